"""Sets of dots, compared with plain Python sets."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.replication.messages import Ranges
from edgeproxy.core.replication.model import Dot
from edgeproxy.core.replication.vector import Known, bounded, common, lacking

pytestmark = pytest.mark.feature("replication.changes")

Dots = frozenset[tuple[str, int]]
dot_sets = st.frozensets(st.tuples(st.sampled_from("abc"), st.integers(1, 12)))
range_lists = st.dictionaries(
    st.sampled_from("abc"),
    st.lists(st.tuples(st.integers(-2, 12), st.integers(-2, 12)), max_size=5).map(tuple),
)


def known(dots: Dots) -> Known:
    result = Known()
    for origin, sequence in dots:
        result.add(Dot(origin, sequence))
    return result


def dots_of(ranges: Ranges) -> Dots:
    return frozenset(
        (origin, sequence)
        for origin, spans in ranges.items()
        for first, last in spans
        for sequence in range(first, last + 1)
    )


def test_what_came_in_order_is_one_range() -> None:
    assert known(frozenset({("a", 1), ("a", 2), ("a", 3)})).ranges == {"a": ((1, 3),)}


def test_a_gap_is_told_and_closed() -> None:
    vector = known(frozenset({("a", 1), ("a", 3)}))
    assert vector.ranges == {"a": ((1, 1), (3, 3))}
    assert vector.last("a") == 3
    assert vector.lacks({"a": ((1, 4),), "b": ((1, 2),)}) == {"a": ((2, 2), (4, 4)), "b": ((1, 2),)}
    assert vector.add(Dot("a", 2))
    assert not vector.add(Dot("a", 2))
    assert vector.ranges == {"a": ((1, 3),)}


def test_of_an_unknown_origin_nothing_is_known() -> None:
    assert Known().last("a") == 0
    assert not Known().has(Dot("a", 1))


def test_what_is_sent_does_not_change_afterwards() -> None:
    vector = known(frozenset({("a", 1)}))
    ranges = vector.ranges
    vector.add(Dot("a", 2))
    vector.add(Dot("b", 1))
    assert ranges == {"a": ((1, 1),)}


def test_only_so_many_ranges_are_asked_for() -> None:
    ranges = {"a": ((1, 1), (3, 3)), "b": ((1, 1), (3, 3)), "c": ((1, 1),)}
    assert bounded(ranges, 3) == {"a": ((1, 1), (3, 3)), "b": ((1, 1),)}
    assert bounded(ranges, 9) == ranges


def test_what_is_lacking_is_cut_out_of_each_range() -> None:
    mine, theirs = {"a": ((1, 2), (5, 9))}, {"a": ((1, 1), (7, 7), (9, 12))}
    assert lacking(mine, theirs) == {"a": ((2, 2), (5, 6), (8, 8))}


def test_ranges_that_are_none_are_left_out_and_those_that_overlap_are_one() -> None:
    assert Known({"a": ((0, 3), (4, 2), (6, 8), (5, 6))}).ranges == {"a": ((5, 8),)}


@given(range_lists)
def test_ranges_of_others_are_put_right(ranges: dict[str, tuple[tuple[int, int], ...]]) -> None:
    vector = Known(ranges)
    expected = frozenset(
        dot
        for origin, spans in ranges.items()
        for span in spans
        if span[0] >= 1
        for dot in dots_of({origin: (span,)})
    )
    assert dots_of(vector.ranges) == expected
    assert vector.ranges == known(expected).ranges


@given(dot_sets, dot_sets)
def test_it_is_a_set(mine: Dots, theirs: Dots) -> None:
    vector, other = known(mine), known(theirs).ranges
    assert dots_of(vector.ranges) == mine
    assert {dot for dot in mine | theirs if vector.has(Dot(*dot))} == mine
    assert vector.covers(other) == (theirs <= mine)
    assert dots_of(vector.lacks(other)) == theirs - mine
    assert dots_of(lacking(vector.ranges, other)) == mine - theirs
    vector.learn(other)
    assert vector.ranges == known(mine | theirs).ranges


@given(st.lists(dot_sets, min_size=1, max_size=4))
def test_common_is_what_is_in_all(sets: list[Dots]) -> None:
    expected = reduce(frozenset.intersection, sets)
    assert common([known(each).ranges for each in sets]) == known(expected).ranges
