from __future__ import annotations

from datetime import UTC, datetime

import pytest

from testkit.clocks import ManualClock, SkewedClock


def test_clock_stands_still_until_it_is_moved(clock: ManualClock) -> None:
    began_s = clock()
    assert clock() == began_s
    clock.advance(90)
    assert clock() == began_s + 90


def test_date_and_seconds_tell_the_same_time() -> None:
    clock = ManualClock(at_s=86_400.0)
    assert clock.now() == datetime(1970, 1, 2, tzinfo=UTC)


def test_only_a_step_goes_back(clock: ManualClock) -> None:
    before_s = clock()
    with pytest.raises(ValueError, match=r"advance\(-1\)"):
        clock.advance(-1)
    clock.step(-60)
    assert clock() == before_s - 60


def test_clock_of_another_machine_is_ahead_and_drifts(clock: ManualClock) -> None:
    other = SkewedClock(clock, offset_s=5.0, rate=1.5)
    assert other() == clock() + 5.0
    clock.advance(100)
    assert other() == clock() + 5.0 + 50.0
