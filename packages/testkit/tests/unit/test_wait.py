from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from testkit.wait import wait_until, wait_until_async


def results(*values: object) -> Callable[[], object]:
    """Return a condition that gives one value after the other, and raises those that are exceptions."""
    remaining: Iterator[object] = iter(values)

    def condition() -> object:
        value = next(remaining)
        if isinstance(value, Exception):
            raise value
        return value

    return condition


def test_returns_the_first_truthy_value() -> None:
    assert wait_until(results(0, "", None, "here", "later"), reason="a word", interval_s=0) == "here"


def test_failure_names_reason_time_and_last_value() -> None:
    with pytest.raises(TimeoutError, match=r"waited \d+\.\d\d s for: the moon; last value: \[\]"):
        wait_until(list[int], reason="the moon", timeout_s=0.02, interval_s=0.001)


def test_swallowed_exception_is_tried_again() -> None:
    condition = results(ConnectionRefusedError("not yet"), 7)
    assert wait_until(condition, reason="a number", interval_s=0, swallow=(OSError,)) == 7


def test_failure_names_and_chains_the_last_exception() -> None:
    def refuse() -> None:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(
        TimeoutError, match=r"last exception: ConnectionRefusedError\('nobody there'\)"
    ) as info:
        wait_until(refuse, reason="a connection", timeout_s=0.01, interval_s=0.001, swallow=(OSError,))
    assert isinstance(info.value.__cause__, ConnectionRefusedError)


def test_other_exception_passes_through_at_once() -> None:
    condition = results(ValueError("wrong"), 1)
    with pytest.raises(ValueError, match="wrong"):
        wait_until(condition, reason="a number", swallow=(OSError,))


def test_condition_gets_a_last_chance_after_the_deadline() -> None:
    timeout_s = 0.02
    started_s = time.monotonic()
    assert wait_until(
        lambda: time.monotonic() - started_s >= timeout_s, reason="the deadline", timeout_s=timeout_s
    )


def test_zero_timeout_asks_exactly_once() -> None:
    condition = results(False)
    with pytest.raises(TimeoutError, match="last value: False"):
        wait_until(condition, reason="nothing", timeout_s=0)


async def test_async_awaits_an_async_condition() -> None:
    outcomes = results(None, OSError("not yet"), "here")

    async def condition() -> str | None:
        outcome = outcomes()
        return None if outcome is None else str(outcome)

    assert await wait_until_async(condition, reason="x", interval_s=0, swallow=(OSError,)) == "here"


async def test_async_takes_a_plain_condition() -> None:
    assert await wait_until_async(results(0, 3), reason="a number", interval_s=0) == 3


async def test_async_failure_names_the_reason() -> None:
    with pytest.raises(TimeoutError, match="for: the moon; last value: 0"):
        await wait_until_async(lambda: 0, reason="the moon", timeout_s=0.01, interval_s=0.001)


async def test_async_lets_others_work_between_two_looks() -> None:
    done = asyncio.Event()
    working = asyncio.create_task(asyncio.to_thread(lambda: None))
    working.add_done_callback(lambda _: done.set())
    assert await wait_until_async(done.is_set, reason="the other's work", interval_s=0)
    await working


def test_looks_are_an_interval_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert wait_until(results(0, 0, 3), reason="a number", interval_s=0.25) == 3
    assert slept == [0.25, 0.25]
