"""Every refusal is counted; the same one is told once a minute."""

from __future__ import annotations

import pytest

from edgeproxy.core.replication import refusals
from edgeproxy.core.replication.handshake import Refused
from edgeproxy.core.replication.refusals import LINES, TOLD_EVERY_S, Refusals, Telling

pytestmark = pytest.mark.feature("replication.peers")


def test_the_first_is_told_and_the_next_when_time_has_passed_with_how_many_were_not() -> None:
    counted = Refusals()
    told = [
        counted.note(Refused.WRONG_KEY, "192.0.2.1", now_s) for now_s in (5.0, 6.0, 7.0, 5.0 + TOLD_EVERY_S)
    ]
    assert told == [0, None, None, 2]
    assert counted.counts[Refused.WRONG_KEY] == 4
    assert counted.counts[Refused.VERSION] == 0
    assert counted.counts.keys() == set(Refused)


def test_another_reason_and_another_address_are_told_apart() -> None:
    counted = Refusals()
    assert counted.note(Refused.WRONG_KEY, "192.0.2.1", 0.0) == 0
    assert counted.note(Refused.WRONG_CLUSTER, "192.0.2.1", 0.0) == 0
    assert counted.note(Refused.WRONG_KEY, "192.0.2.2", 0.0) == 0


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_REMEMBERED", 3)
    counted = Refusals()
    for number in range(10):
        assert counted.note(Refused.MALFORMED, f"192.0.2.{number}", 0.0) == 0
    assert counted.note(Refused.MALFORMED, "192.0.2.9", 0.0) is None
    assert counted.note(Refused.MALFORMED, "192.0.2.0", 0.0) == 0, "forgotten, so told again"


def test_what_was_told_last_is_forgotten_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_REMEMBERED", 2)
    telling = Telling()
    for who, now_s in (("first", 0.0), ("second", 1.0), ("first", TOLD_EVERY_S), ("third", TOLD_EVERY_S)):
        assert telling.may_tell("malformed", who, now_s) == 0
    assert telling.may_tell("malformed", "first", TOLD_EVERY_S + 1) is None
    assert telling.may_tell("malformed", "second", TOLD_EVERY_S + 1) == 0


def test_so_many_are_told_in_a_minute_of_whomever() -> None:
    telling = Telling()
    told = [telling.may_tell("malformed", f"192.0.2.{number}", number / 10) for number in range(200)]
    assert told == [0] * LINES + [None] * (200 - LINES)
    assert telling.may_tell("malformed", "192.0.2.250", TOLD_EVERY_S) == 0
