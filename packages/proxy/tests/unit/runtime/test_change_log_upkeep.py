"""The upkeep of the change log: what it says, and that nothing ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.ports import Change
from edgeproxy.runtime import change_log_upkeep
from edgeproxy.runtime.change_log_upkeep import keep_change_log


class Log:
    """Keeps what is said, by level."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, why="": self.said.append((level, event, why))


class Outcomes:
    """A change log whose tending has these outcomes, one after the other, and then ends the test."""

    def __init__(self, *outcomes: str | Exception | None) -> None:
        self._outcomes = [*outcomes, asyncio.CancelledError()]

    def tend(self) -> str | None:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def changes(self, since: str, limit: int) -> Sequence[Change]:
        raise AssertionError("nobody asks")


async def said(
    monkeypatch: pytest.MonkeyPatch, *outcomes: str | Exception | None
) -> list[tuple[str, str, str]]:
    monkeypatch.setattr(change_log_upkeep, "UPKEEP_INTERVAL_S", 0)
    log = Log()
    with contextlib.suppress(asyncio.CancelledError):
        await keep_change_log(Outcomes(*outcomes), log)
    return log.said


async def test_log_that_is_kept_is_nothing_to_speak_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await said(monkeypatch, None, None) == []


async def test_obstacle_is_told_once_and_its_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await said(monkeypatch, "read-only", "read-only", None, None, "no key") == [
        ("warning", "changes are not logged", "read-only"),
        ("info", "changes are logged", ""),
        ("warning", "changes are not logged", "no key"),
    ]


async def test_store_that_is_away_is_left_to_those_who_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await said(monkeypatch, "read-only", StoreError("locked"), "read-only") == [
        ("warning", "changes are not logged", "read-only"),
        ("debug", "the change log is left as it is", "locked"),
    ]
