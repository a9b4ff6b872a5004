"""Time that passes only when nothing else does. Without the network; sockets are in the integration tests."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from testkit.virtual_time import HORIZON_S, DeadlockError, VirtualTimeLoop, real_time, run, virtual_time

DAY_S = 86_400.0


def now_s() -> float:
    return asyncio.get_running_loop().time()


@virtual_time
async def test_day_passes_at_once() -> None:
    await asyncio.sleep(DAY_S)
    assert now_s() == DAY_S


@virtual_time
async def test_timers_come_in_their_order() -> None:
    seen: list[tuple[str, float]] = []

    async def note(name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        seen.append((name, now_s()))

    asyncio.get_running_loop().call_later(60.0, seen.append, ("called", 60.0))
    await asyncio.gather(note("long", 3600.0), note("short", 0.5), note("middle", 90.0))
    assert seen == [("short", 0.5), ("called", 60.0), ("middle", 90.0), ("long", 3600.0)]


@virtual_time
async def test_timeout_ends_what_lasts_longer() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await asyncio.sleep(6)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 7)
    assert now_s() == 12.0


@virtual_time
async def test_what_comes_just_in_time_is_no_timeout() -> None:
    async with asyncio.timeout(5):
        await asyncio.sleep(4.999)


@virtual_time
async def test_queue_is_handed_on_before_time_passes() -> None:
    queue: asyncio.Queue[float] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for _ in range(3):
            await asyncio.sleep(30)
            await queue.put(now_s())

    producer = asyncio.create_task(produce())
    assert [await queue.get() for _ in range(3)] == [30.0, 60.0, 90.0]
    await producer


def test_deadlock_says_who_waits_where() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async def story() -> None:
        waiting = asyncio.create_task(never(), name="the-one-that-waits")
        await asyncio.sleep(1)
        await waiting

    with pytest.raises(DeadlockError, match=r"the-one-that-waits: Event.wait, \S+locks.py:\d+"):
        run(story())


def test_whoever_polls_for_ever_is_found_out() -> None:
    async def polls() -> None:
        while True:  # noqa: ASYNC110  that is what is found out
            await asyncio.sleep(3600)

    with pytest.raises(DeadlockError, match=f"not done after {HORIZON_S:g} s"):
        run(polls())


@virtual_time
async def test_thread_is_waited_for_and_not_jumped_over() -> None:
    release = threading.Event()
    asyncio.get_running_loop().call_later(0.01, release.set)
    async with asyncio.timeout(30):
        assert await asyncio.to_thread(release.wait, 30)
    assert 0.01 <= now_s() < 30


@virtual_time
async def test_clock_can_be_held_to_real_time_for_somebody_outside() -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    teller = threading.Thread(target=loop.call_soon_threadsafe, args=(told.set,))
    with real_time():
        teller.start()
        async with asyncio.timeout(30):
            await told.wait()
    teller.join()
    assert now_s() < 30


@virtual_time
async def test_held_clock_passes_as_real_ones_do() -> None:
    began_s = time.monotonic()
    with real_time():
        await asyncio.sleep(0.01)
    assert time.monotonic() - began_s >= 0.01
    await asyncio.sleep(DAY_S)
    assert now_s() >= DAY_S + 0.01


async def test_holding_a_real_clock_changes_nothing() -> None:
    with real_time():
        assert now_s() > 0


def test_task_that_has_not_begun_is_listed() -> None:
    loop = VirtualTimeLoop()

    async def soon() -> None: ...

    task = loop.create_task(soon(), name="later")
    assert "later: test_task_that_has_not_begun_is_listed.<locals>.soon" in loop.who_waits()
    loop.run_until_complete(task)
    assert loop.who_waits() == ""
    loop.close()


def test_jump_makes_what_was_due_late() -> None:
    async def story() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        late = asyncio.create_task(asyncio.sleep(5))
        await asyncio.sleep(0)
        loop.jump(60)
        await late
        return [now_s()]

    assert run(story()) == [60.0]


@virtual_time
async def test_arguments_and_result_pass_through(seed: int) -> None:
    await asyncio.sleep(seed % 1000)
