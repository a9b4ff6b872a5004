"""Machines come when they are needed and go when nobody is connected; all in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from examples.log.compute import Address, Compute, State, Usage
from testkit.virtual_time import virtual_time

START_S, STOP_S, IDLE_S = 0.4, 2.0, 300.0


class FakeMachine:
    def __init__(self, number: int) -> None:
        self.number = number
        self.is_stopped = False

    @property
    def address(self) -> Address:
        return ("127.0.0.1", self.number)

    async def stop(self) -> None:
        await asyncio.sleep(STOP_S)  # sleeps: in the virtual time of the tests
        self.is_stopped = True


class Launcher:
    def __init__(self) -> None:
        self.machines: list[FakeMachine] = []
        self.is_broken = False

    async def __call__(self, project: str) -> FakeMachine:
        assert project == "shop"
        await asyncio.sleep(START_S)  # sleeps: in the virtual time of the tests
        if self.is_broken:
            raise OSError("no machine to be had")
        self.machines.append(FakeMachine(len(self.machines)))
        return self.machines[-1]


def compute_of(launcher: Launcher, *, each: int = 2, most: int = 3) -> Compute:
    return Compute("shop", launcher, each=each, most=most, idle_s=IDLE_S)


@virtual_time
async def test_connection_wakes_what_is_suspended() -> None:
    compute = compute_of(Launcher())
    assert compute.states == [State.SUSPENDED]
    using = asyncio.create_task(compute.use().__aenter__())
    await asyncio.sleep(START_S / 2)
    assert compute.states == [State.STARTING]
    assert await using == ("127.0.0.1", 0)
    assert compute.states == [State.RUNNING]


@virtual_time
async def test_those_who_come_while_it_wakes_wait_for_the_same_machine() -> None:
    launcher = Launcher()
    compute = compute_of(launcher, each=10)
    async with AsyncExitStack() as stack:
        uses = [stack.enter_async_context(compute.use()) for _ in range(5)]
        assert set(await asyncio.gather(*uses)) == {("127.0.0.1", 0)}
    assert len(launcher.machines) == 1


@virtual_time
async def test_idle_machine_is_suspended_after_its_time_and_no_sooner() -> None:
    launcher = Launcher()
    compute = compute_of(launcher)
    async with compute.use():
        await asyncio.sleep(10 * IDLE_S)
        assert compute.states == [State.RUNNING]
    await asyncio.sleep(IDLE_S - 1)
    assert compute.states == [State.RUNNING]
    await asyncio.sleep(1 + STOP_S / 2)
    assert compute.states == [State.SUSPENDING]
    await asyncio.sleep(STOP_S)
    assert compute.states == [State.SUSPENDED]
    assert launcher.machines[0].is_stopped


@virtual_time
async def test_whoever_comes_back_in_time_keeps_it_awake() -> None:
    launcher = Launcher()
    compute = compute_of(launcher)
    for _ in range(3):
        async with compute.use():
            pass
        await asyncio.sleep(IDLE_S * 0.9)
    assert compute.states == [State.RUNNING]
    assert len(launcher.machines) == 1


@virtual_time
async def test_resumed_machine_is_a_new_one_and_its_time_is_measured() -> None:
    compute = compute_of(Launcher())
    for number in range(2):
        async with compute.use() as address:
            assert address == ("127.0.0.1", number)
        await asyncio.sleep(2 * IDLE_S)
    assert [usage.resumed_in_s for usage in compute.usage] == pytest.approx([START_S, START_S])


@virtual_time
async def test_more_machines_come_with_more_connections_and_go_with_them() -> None:
    compute = compute_of(Launcher(), each=2, most=3)
    async with compute.use() as first:
        async with AsyncExitStack() as crowd:
            addresses = [first] + [await crowd.enter_async_context(compute.use()) for _ in range(7)]
            assert [addresses.count(("127.0.0.1", number)) for number in range(3)] == [3, 3, 2]
        await asyncio.sleep(IDLE_S + 2 * STOP_S)
        assert compute.states == [State.RUNNING]


@virtual_time
async def test_fullest_machine_with_room_is_chosen_so_that_others_can_go() -> None:
    compute = compute_of(Launcher(), each=3, most=2)
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        for _ in range(3):
            assert await first.enter_async_context(compute.use()) == ("127.0.0.1", 0)
        for _ in range(2):
            assert await second.enter_async_context(compute.use()) == ("127.0.0.1", 1)
        await first.aclose()
        async with compute.use() as address:
            assert address == ("127.0.0.1", 1)


@virtual_time
async def test_usage_is_from_start_to_end() -> None:
    loop = asyncio.get_running_loop()
    compute = compute_of(Launcher())
    async with compute.use():
        (usage,) = compute.usage
        assert (usage.project, usage.ended_s) == ("shop", None)
        await asyncio.sleep(100)
        assert usage.seconds(loop.time()) == pytest.approx(100)
    await asyncio.sleep(10 * IDLE_S)
    assert usage.seconds(loop.time()) == pytest.approx(100 + IDLE_S + STOP_S)


def test_what_has_not_begun_costs_nothing() -> None:
    assert (Usage("shop", 10.0).seconds(20.0), Usage("shop", 10.0).resumed_in_s) == (0.0, None)


@virtual_time
async def test_start_that_fails_is_told_to_all_who_wait_and_tried_anew() -> None:
    launcher = Launcher()
    compute = compute_of(launcher)
    launcher.is_broken = True
    failed = await asyncio.gather(*(compute.use().__aenter__() for _ in range(2)), return_exceptions=True)
    assert [str(each) for each in failed] == ["no machine to be had"] * 2
    assert (compute.states, compute.usage) == ([State.SUSPENDED], [])
    launcher.is_broken = False
    async with compute.use() as address:
        assert address == ("127.0.0.1", 0)


@virtual_time
async def test_whoever_gives_up_waiting_does_not_end_the_start() -> None:
    launcher = Launcher()
    compute = compute_of(launcher)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(START_S / 2), compute.use():
            raise AssertionError("it cannot have started")
    await asyncio.sleep(START_S)
    assert compute.states == [State.RUNNING]
    await asyncio.sleep(IDLE_S + 2 * STOP_S)
    assert compute.states == [State.SUSPENDED]


@virtual_time
async def test_close_suspends_what_is_used_and_what_just_starts() -> None:
    launcher = Launcher()
    compute = compute_of(launcher, each=1)
    async with compute.use():
        starting = asyncio.create_task(compute.use().__aenter__())
        await asyncio.sleep(0)
        await compute.close()
        assert compute.states == [State.SUSPENDED]
        assert [machine.is_stopped for machine in launcher.machines] == [True, True]
        await starting


@virtual_time
async def test_close_during_a_start_that_fails_ends() -> None:
    launcher = Launcher()
    launcher.is_broken = True
    compute = compute_of(launcher)
    starting = asyncio.create_task(compute.use().__aenter__())
    await asyncio.sleep(0)
    await compute.close()
    with pytest.raises(OSError, match="no machine"):
        await starting
