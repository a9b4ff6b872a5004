"""When a node turns to those that it was told to begin with."""

from __future__ import annotations

import pytest

from edgeproxy.core.replication.joining import COMPANY_INTERVALS, MAX_DELAY_INTERVALS, Joining

pytestmark = pytest.mark.feature("replication.membership")


def times(joining: Joining, until_s: int, *, start_s: int = 0, is_alone: bool = True) -> list[int]:
    return [s for s in range(start_s, until_s) if joining.is_due(float(s), 0.0, is_alone=is_alone)]


def test_who_is_alone_tries_ever_more_seldom_and_for_ever() -> None:
    found = times(Joining(1.0, 0.0), 100_000)
    assert found[:6] == [0, 1, 3, 7, 15, 25]
    assert found[6] - found[5] == found[-1] - found[-2] == MAX_DELAY_INTERVALS


def test_who_is_not_alone_tries_now_and_then() -> None:
    joining = Joining(2.0, 0.0)
    assert times(joining, 500, is_alone=False)[:3] == [0, 120, 240]
    assert COMPANY_INTERVALS == 60.0


def test_who_is_left_alone_tries_at_once() -> None:
    joining = Joining(1.0, 0.0)
    assert times(joining, 10, is_alone=False) == [0]
    assert times(joining, 20, start_s=10)[:3] == [10, 11, 13]


def test_attempts_are_not_in_step() -> None:
    joining = Joining(1.0, 0.0)
    assert joining.is_due(0.0, 0.9, is_alone=True)
    assert not joining.is_due(1.4, 0.9, is_alone=True)
    assert joining.is_due(1.45, 0.9, is_alone=True)
