"""Stamps: close to wall time, later than all that was seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.replication.clock import MAX_AHEAD_MS, RESERVED_MS, Clock, ahead_ms
from edgeproxy.core.replication.model import Stamp

pytestmark = pytest.mark.feature("replication.changes")


def test_a_stamp_is_wall_time_while_that_goes_on() -> None:
    clock = Clock("a")
    assert [clock.stamp(1_000), clock.stamp(1_001)] == [Stamp(1_000, 0, "a"), Stamp(1_001, 0, "a")]


def test_what_happens_in_one_millisecond_is_counted() -> None:
    clock = Clock("a")
    assert [clock.stamp(1_000), clock.stamp(1_000), clock.stamp(400)] == [
        *(Stamp(1_000, 0, "a"), Stamp(1_000, 1, "a"), Stamp(1_000, 2, "a"))
    ]


def test_who_has_seen_a_stamp_gives_a_greater_one() -> None:
    clock = Clock("a")
    clock.saw(Stamp(5_000, 7, "z"))
    clock.saw(Stamp(4_000, 9, "z"))
    assert clock.stamp(1_000) == Stamp(5_000, 8, "a")


def test_nodes_with_the_same_time_are_told_apart_by_their_names() -> None:
    assert Clock("a").stamp(1_000) < Clock("b").stamp(1_000)


def test_a_stamp_is_refused_only_beyond_the_limit() -> None:
    assert ahead_ms(Stamp(1_000 + MAX_AHEAD_MS, 0, "a"), 1_000) == 0
    assert ahead_ms(Stamp(1_001 + MAX_AHEAD_MS, 0, "a"), 1_000) == MAX_AHEAD_MS + 1
    assert ahead_ms(Stamp(0, 0, "a"), 1_000) == 0


def test_the_mark_is_written_seldom() -> None:
    clock = Clock("a")
    clock.stamp(1_000)
    assert clock.rises()
    clock.stamp(1_000 + RESERVED_MS - 1)
    assert not clock.rises()
    clock.stamp(1_000 + RESERVED_MS)
    assert clock.rises()
    assert clock.high_water_ms == 1_000 + 2 * RESERVED_MS


@given(st.lists(st.one_of(st.integers(0, 10**6), st.just("restart"), st.integers(0, 10**6).map(str))))
def test_stamps_rise_over_restarts_whatever_the_wall_clock_does(steps: list[int | str]) -> None:
    clock, last, mark = Clock("a"), Stamp(0, -1, "a"), 0
    for step in steps:
        if step == "restart":
            clock = Clock("a", mark)
        elif isinstance(step, str):
            clock.saw(Stamp(int(step), 3, "b"))
        else:
            stamp = clock.stamp(step)
            if clock.rises():
                mark = clock.high_water_ms
            assert stamp > last
            last = stamp
