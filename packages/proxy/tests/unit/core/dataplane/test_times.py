"""How times are counted, and that what workers count adds up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.dataplane.times import BOUNDS_S, Times

durations = st.lists(st.floats(0, 10), max_size=30)


def counted(seconds: list[float]) -> Times:
    result = Times()
    for each in seconds:
        result.note(each)
    return result


@pytest.mark.parametrize(
    ("seconds", "place"), [(0.0, 0), (0.0005, 0), (0.00051, 1), (5.0, 12), (5.1, 13), (3600.0, 13)]
)
def test_a_bound_belongs_to_its_class(seconds: float, place: int) -> None:
    times = counted([seconds])
    assert [each for each, count in enumerate(times.counts) if count] == [place]
    assert (times.count, times.seconds_sum) == (1, seconds)


@given(durations, durations)
def test_merging_is_counting_both(first: list[float], second: list[float]) -> None:
    merged, both = counted(first), counted(first + second)
    merged.merge(counted(second))
    assert merged.counts == both.counts
    assert merged.seconds_sum == pytest.approx(both.seconds_sum)


@given(durations)
def test_each_class_holds_what_is_above_the_former_bound_and_not_above_its_own(seconds: list[float]) -> None:
    expected = [
        sum(low < each <= high for each in seconds)
        for low, high in zip((-1.0, *BOUNDS_S), (*BOUNDS_S, float("inf")), strict=True)
    ]
    assert counted(seconds).counts == expected


def test_counts_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Times().merge(Times(counts=[1]))


def test_counts_are_not_shared() -> None:
    counted([0.1])
    assert Times().count == 0
