"""Wait for a fact instead of sleeping for a guess."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T | None],
    *,
    reason: str,
    timeout_s: float = 10.0,
    interval_s: float = 0.01,
    swallow: tuple[type[Exception], ...] = (),
) -> T:
    """Call ``condition`` until it returns something truthy, and return that.

    The last call is made after ``timeout_s`` has passed, so a machine that pauses in between does not
    turn a late success into a failure. Exceptions listed in ``swallow`` count as "not yet".

    Raises:
        TimeoutError: names ``reason``, the time waited and the last value or exception.
    """
    attempt = _Attempt(reason, timeout_s)
    while True:
        last_chance = attempt.is_last()
        try:
            value = condition()
        except swallow as error:
            attempt.record(error)
        else:
            if value:
                return value
            attempt.record(value)
        if last_chance:
            raise attempt.failure()
        time.sleep(interval_s)


@overload
async def wait_until_async(
    condition: Callable[[], Awaitable[T | None]],
    *,
    reason: str,
    timeout_s: float = ...,
    interval_s: float = ...,
    swallow: tuple[type[Exception], ...] = ...,
) -> T: ...


@overload
async def wait_until_async(
    condition: Callable[[], T | None],
    *,
    reason: str,
    timeout_s: float = ...,
    interval_s: float = ...,
    swallow: tuple[type[Exception], ...] = ...,
) -> T: ...


async def wait_until_async(
    condition: Callable[[], Awaitable[T | None] | T | None],
    *,
    reason: str,
    timeout_s: float = 10.0,
    interval_s: float = 0.01,
    swallow: tuple[type[Exception], ...] = (),
) -> T:
    """Like `wait_until`, leaving the event loop free in between; ``condition`` may be sync or async.

    A condition that never returns is not interrupted: give it its own timeout.
    """
    attempt = _Attempt(reason, timeout_s)
    while True:
        last_chance = attempt.is_last()
        try:
            answer = condition()
            value: T | None = await answer if inspect.isawaitable(answer) else answer
        except swallow as error:
            attempt.record(error)
        else:
            if value:
                return value
            attempt.record(value)
        if last_chance:
            raise attempt.failure()
        await asyncio.sleep(interval_s)


class _Attempt:
    """The deadline of one wait, and what was seen last."""

    def __init__(self, reason: str, timeout_s: float) -> None:
        self._reason = reason
        self._started_s = time.monotonic()
        self._timeout_s = timeout_s
        self._last: object = None

    def is_last(self) -> bool:
        return time.monotonic() - self._started_s >= self._timeout_s

    def record(self, last: object) -> None:
        self._last = last

    def failure(self) -> TimeoutError:
        waited_s = time.monotonic() - self._started_s
        kind = "exception" if isinstance(self._last, Exception) else "value"
        error = TimeoutError(f"waited {waited_s:.2f} s for: {self._reason}; last {kind}: {self._last!r}")
        if isinstance(self._last, Exception):
            error.__cause__ = self._last
        return error
