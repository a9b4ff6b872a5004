"""How connects are counted, and that what workers count adds up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.dataplane.connects import BOUNDS_S, Connects

durations = st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=30)


def counted(connects: list[tuple[float, bool]]) -> Connects:
    result = Connects()
    for seconds, from_affinity in connects:
        result.add(seconds, from_affinity)
    return result


@pytest.mark.parametrize(
    ("seconds", "place"), [(0.0, 0), (0.0005, 0), (0.00051, 1), (5.0, 12), (5.1, 13), (3600.0, 13)]
)
def test_a_bound_belongs_to_its_class(seconds: float, place: int) -> None:
    connects = counted([(seconds, False)])
    assert [each for each, count in enumerate(connects.counts) if count] == [place]
    assert (connects.count, connects.seconds_sum, connects.from_affinity) == (1, seconds, 0)


def test_those_by_affinity_are_counted_among_all() -> None:
    connects = counted([(0.1, True), (0.1, False), (0.1, True)])
    assert (connects.count, connects.from_affinity) == (3, 2)


@given(durations, durations)
def test_merging_is_counting_both(first: list[tuple[float, bool]], second: list[tuple[float, bool]]) -> None:
    merged, both = counted(first), counted(first + second)
    merged.merge(counted(second))
    assert merged.counts == both.counts
    assert merged.from_affinity == both.from_affinity
    assert merged.seconds_sum == pytest.approx(both.seconds_sum)


@given(durations)
def test_each_class_holds_what_is_above_the_former_bound_and_not_above_its_own(
    connects: list[tuple[float, bool]],
) -> None:
    expected = [
        sum(low < seconds <= high for seconds, _ in connects)
        for low, high in zip((-1.0, *BOUNDS_S), (*BOUNDS_S, float("inf")), strict=True)
    ]
    assert counted(connects).counts == expected


def test_counts_are_not_shared() -> None:
    counted([(0.1, False)])
    assert Connects().count == 0
