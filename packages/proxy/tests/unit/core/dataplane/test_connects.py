"""How connects are counted, and that what workers count adds up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.dataplane.connects import Connects

connects = st.lists(st.tuples(st.floats(0, 10), st.booleans(), st.booleans()), max_size=30)


def counted(each_one: list[tuple[float, bool, bool]]) -> Connects:
    result = Connects()
    for seconds, from_affinity, from_warm in each_one:
        result.add(seconds, from_affinity, from_warm)
    return result


def test_how_they_came_about_is_counted_among_all() -> None:
    both = counted([(0.1, True, False), (0.1, False, True), (0.1, True, False)])
    assert (both.count, both.from_affinity, both.from_warm) == (3, 2, 1)


@given(connects, connects)
def test_merging_is_counting_both(
    first: list[tuple[float, bool, bool]], second: list[tuple[float, bool, bool]]
) -> None:
    merged, both = counted(first), counted(first + second)
    merged.merge_connects(counted(second))
    assert merged.counts == both.counts
    assert (merged.from_affinity, merged.from_warm) == (both.from_affinity, both.from_warm)
    assert merged.seconds_sum == pytest.approx(both.seconds_sum)
