"""The upkeep of an archive: when it takes a step, what it says, and that nothing ends it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.outbound.archive import Step
from edgeproxy.runtime.archive_upkeep import keep_archive

DONE = Step(1, snapshot=False, until="", more=False)
MORE = DONE._replace(more=True)


class Log:
    """Keeps what is said, by level."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, why="": self.said.append((level, event, why))


class Outcomes:
    """An archive whose opening and steps have these outcomes, one after the other; then the test ends."""

    def __init__(self, *outcomes: Step | Exception) -> None:
        self._outcomes: list[Step | BaseException] = [*outcomes, asyncio.CancelledError()]
        self.opened = 0

    def open(self) -> Outcomes:
        self.opened += 1
        if isinstance(self._outcomes[0], StoreError) and "installed" in str(self._outcomes[0]):
            self.step()
        return self

    def step(self) -> Step:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def said(outcomes: Outcomes, interval_s: float = 0.0) -> list[tuple[str, str, str]]:
    log = Log()
    with contextlib.suppress(asyncio.CancelledError):
        await keep_archive(outcomes.open, interval_s, log)
    return log.said


async def test_archive_that_is_kept_is_nothing_to_speak_of() -> None:
    outcomes = Outcomes(DONE, DONE)
    assert await said(outcomes) == []
    assert outcomes.opened == 1


async def test_while_there_is_more_it_does_not_wait() -> None:
    async with asyncio.timeout(10):
        assert await said(Outcomes(MORE, MORE), interval_s=3_600.0) == []


async def test_trouble_is_told_once_and_its_end_too() -> None:
    outcomes = Outcomes(
        StoreError("boto3 is not installed"), StoreError("no bucket"), DONE, StoreError("full")
    )
    assert await said(outcomes) == [
        ("warning", "changes are not archived, trying again", "boto3 is not installed"),
        ("info", "changes are archived again", ""),
        ("warning", "changes are not archived, trying again", "full"),
    ]
    assert outcomes.opened == 2


async def test_it_waits_an_interval_after_each_step_behind_which_there_is_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await said(Outcomes(DONE, MORE, MORE, StoreError("away"), DONE), interval_s=7.0)
    assert waits == [7.0, 7.0, 7.0]
