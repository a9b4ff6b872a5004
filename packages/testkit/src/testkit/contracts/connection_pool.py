"""What every pool of connections must do: lend each to one borrower, as many as allowed, and lose none.

Besides pools, managers: what keeps several pools by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises_async
from testkit.contracts.contract import Contract, needs, since

DEADLINE_S = 30.0
POLL_S = 0.01
"""For what must happen some time, by the loop's clock."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many connections a pool has, and for how long."""

    least: int = 0
    """Opened at once, and kept."""
    most: int = 2
    idle_s: float | None = None
    """Connections beyond the least that nobody has borrowed for so long are closed."""
    uses: int | None = None
    """A connection that was borrowed so often is replaced."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Connections of a pool now."""

    size: int
    idle: int


class Pool(Protocol):
    """The pool under test."""

    async def acquire(self, timeout_s: float | None = None) -> Any:
        """Borrow a connection, waiting at most so long for one; ``None``: as long as it takes."""
        ...

    async def release(self, connection: Any) -> None: ...

    async def close(self) -> None:
        """Close all connections, none of which is lent."""
        ...

    def statistics(self) -> Statistics: ...


class Manager(Protocol):
    """What keeps pools by name."""

    async def add(self, name: str, bounds: Bounds) -> Pool:
        """Open a pool. ``ValueError`` when there is one of that name."""
        ...

    def pool(self, name: str) -> Pool:
        """``KeyError`` when there is none of that name."""
        ...

    async def remove(self, name: str) -> None:
        """Close the pool and forget it. ``KeyError`` when there is none of that name."""
        ...

    async def close(self) -> None:
        """Close and forget all."""
        ...

    def statistics(self) -> dict[str, Statistics]: ...


class ConnectionPoolHarness(Protocol):
    """What a test must know of an implementation, and of those that its pools connect to."""

    @property
    def closed(self) -> type[Exception]:
        """What a closed pool raises."""
        ...

    @property
    def short_s(self) -> float:
        """A time limit for what must not happen: too short to wait for, long enough to connect twice."""
        ...

    async def open(self, bounds: Bounds) -> Pool:
        """``ValueError`` when there can be no such pool."""
        ...

    def manager(self) -> Manager: ...

    def identity(self, connection: Any) -> Hashable:
        """The same for the same connection, however often it is lent."""
        ...

    async def use(self, connection: Any) -> None:
        """Ask something over it; raises when it does not work."""
        ...

    async def break_off(self, connection: Any) -> None:
        """Have the other end close it; return when that has been noticed."""
        ...

    def opened(self) -> int:
        """Connections opened so far."""
        ...

    async def alive(self) -> int:
        """Connections that the other end has now."""
        ...


class ConnectionPoolContract(
    Contract,
    contract="connection_pool",
    capabilities={
        "statistics": "it says how many connections there are",
        "shrinking": "idle connections beyond the least are closed",
        "floor": "of idle connections the least are kept",
        "recycling": "connections are replaced after so many uses",
        "manager": "there is something that keeps pools by name",
    },
):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    # ---- creation ----------------------------------------------------------------------------------

    async def test_pool_opens_its_least_at_once(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(least=2, most=3))
        assert harness.opened() == 2
        await pool.close()

    async def test_pool_opens_no_more_than_is_needed(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(least=0, most=3))
        assert harness.opened() == 0
        await pool.release(await pool.acquire())
        assert harness.opened() == 1
        await pool.close()

    async def test_pool_of_no_connections_is_refused(self, harness: ConnectionPoolHarness) -> None:
        await assert_raises_async(ValueError, lambda: harness.open(Bounds(least=0, most=0)))

    async def test_pool_with_more_at_least_than_at_most_is_refused(
        self, harness: ConnectionPoolHarness
    ) -> None:
        await assert_raises_async(ValueError, lambda: harness.open(Bounds(least=3, most=2)))

    # ---- borrowing ---------------------------------------------------------------------------------

    async def test_borrowed_connection_works(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds())
        connection = await pool.acquire()
        await harness.use(connection)
        await pool.release(connection)
        await pool.close()

    async def test_connection_given_back_is_lent_again(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(most=3))
        seen = set()
        for _ in range(5):
            connection = await pool.acquire()
            await harness.use(connection)
            seen.add(harness.identity(connection))
            await pool.release(connection)
        assert len(seen) == 1
        assert harness.opened() == 1
        await pool.close()

    async def test_no_two_borrowers_share_a_connection(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(most=3))
        lent = [await pool.acquire() for _ in range(3)]
        assert len({harness.identity(each) for each in lent}) == 3
        for each in lent:
            await harness.use(each)
            await pool.release(each)
        await pool.close()

    @since(2)
    async def test_giving_back_twice_changes_nothing(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(most=2))
        connection = await pool.acquire()
        await pool.release(connection)
        await pool.release(connection)
        first, second = await pool.acquire(), await pool.acquire()
        assert harness.identity(first) != harness.identity(second)
        await assert_raises_async(TimeoutError, lambda: pool.acquire(harness.short_s))
        await pool.release(first)
        await pool.release(second)
        await pool.close()

    # ---- a pool that is exhausted ------------------------------------------------------------------

    async def test_exhausted_pool_makes_borrowers_wait_until_one_is_given_back(
        self, harness: ConnectionPoolHarness
    ) -> None:
        pool = await harness.open(Bounds(most=1))
        connection = await pool.acquire()
        waiting = asyncio.ensure_future(pool.acquire())
        await asyncio.wait([waiting], timeout=harness.short_s)
        assert not waiting.done(), "the only connection is lent"
        identity = harness.identity(connection)
        await pool.release(connection)
        async with asyncio.timeout(DEADLINE_S):
            connection = await waiting
        assert harness.identity(connection) == identity
        await pool.release(connection)
        await pool.close()

    async def test_waiting_for_a_connection_ends_with_the_time_limit(
        self, harness: ConnectionPoolHarness
    ) -> None:
        pool = await harness.open(Bounds(most=1))
        connection = await pool.acquire()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with asyncio.timeout(DEADLINE_S):
            await assert_raises_async(TimeoutError, lambda: pool.acquire(harness.short_s))
        # Timers of a loop may go off a tick of the clock early.
        assert loop.time() - began_s >= harness.short_s * 0.9
        await pool.release(connection)
        await pool.close()

    async def test_pool_recovers_from_exhaustion(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(most=2))
        lent = [await pool.acquire() for _ in range(2)]
        for _ in range(2):
            await assert_raises_async(TimeoutError, lambda: pool.acquire(harness.short_s))
        for each in lent:
            await pool.release(each)
        async with asyncio.timeout(DEADLINE_S):
            lent = [await pool.acquire() for _ in range(2)]
        assert harness.opened() == 2
        for each in lent:
            await pool.release(each)
        await pool.close()

    async def test_borrower_that_gives_up_takes_no_connection_along(
        self, harness: ConnectionPoolHarness
    ) -> None:
        pool = await harness.open(Bounds(most=1))
        connection = await pool.acquire()
        waiting = [asyncio.ensure_future(pool.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        # The next one in the very moment in which it would be served.
        await pool.release(connection)
        waiting[1].cancel()
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([waiting[1]])
            if not waiting[1].cancelled():
                await pool.release(waiting[1].result())
            await pool.release(await waiting[2])
            await pool.release(await pool.acquire())
        await pool.close()

    async def test_borrowers_are_served_in_the_order_in_which_they_came(
        self, harness: ConnectionPoolHarness
    ) -> None:
        pool = await harness.open(Bounds(most=1))
        connection = await pool.acquire()
        served: list[int] = []

        async def borrow(number: int) -> None:
            borrowed = await pool.acquire()
            served.append(number)
            await pool.release(borrowed)

        waiting = []
        for number in range(5):
            waiting.append(asyncio.ensure_future(borrow(number)))
            await asyncio.sleep(0)
        await pool.release(connection)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*waiting)
        assert served == [*range(5)]
        await pool.close()

    # ---- many at once ------------------------------------------------------------------------------

    async def test_many_borrowers_never_have_more_than_the_most(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(most=3))
        lent: set[Hashable] = set()
        most = 0
        # Pools may grow while they serve: those who come first stay until all connections are lent.
        all_lent = asyncio.Event()

        async def borrow() -> None:
            nonlocal most
            connection = await pool.acquire()
            identity = harness.identity(connection)
            assert identity not in lent, "two have borrowed the same connection"
            lent.add(identity)
            most = max(most, len(lent))
            if most == 3:
                all_lent.set()
            await harness.use(connection)
            await all_lent.wait()
            lent.remove(identity)
            await pool.release(connection)

        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(borrow() for _ in range(30)))
        assert most == 3
        assert harness.opened() == 3
        await pool.close()

    async def test_single_connection_serves_many(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(most=1))

        async def borrow() -> Hashable:
            connection = await pool.acquire()
            await harness.use(connection)
            identity = harness.identity(connection)
            await pool.release(connection)
            return identity

        async with asyncio.timeout(DEADLINE_S):
            seen = await asyncio.gather(*(borrow() for _ in range(10)))
        assert len({*seen}) == 1
        assert harness.opened() == 1
        await pool.close()

    # ---- connections that end ----------------------------------------------------------------------

    async def test_connection_that_broke_while_lent_is_replaced(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(most=1))
        connection = await pool.acquire()
        await harness.break_off(connection)
        await pool.release(connection)
        async with asyncio.timeout(DEADLINE_S):
            connection = await pool.acquire()
        await harness.use(connection)
        await pool.release(connection)
        await pool.close()

    async def test_connection_that_broke_while_idle_is_replaced(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(most=1))
        connection = await pool.acquire()
        identity = harness.identity(connection)
        await pool.release(connection)
        await harness.break_off(identity)
        async with asyncio.timeout(DEADLINE_S):
            connection = await pool.acquire()
        await harness.use(connection)
        await pool.release(connection)
        await pool.close()

    @needs("recycling")
    async def test_connection_is_replaced_after_so_many_uses(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(most=1, uses=4))
        seen = []
        for _ in range(12):
            connection = await pool.acquire()
            await harness.use(connection)
            seen.append(harness.identity(connection))
            await pool.release(connection)
        assert 3 <= len({*seen}) < 12
        assert await harness.alive() <= 1
        await pool.close()

    async def test_closed_pool_lends_nothing(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds())
        await pool.close()
        await assert_raises_async(harness.closed, pool.acquire)

    async def test_closing_leaves_no_connection_behind(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(least=2, most=3))
        lent = [await pool.acquire() for _ in range(3)]
        assert await harness.alive() == 3
        for each in lent:
            await pool.release(each)
        await pool.close()
        await eventually(harness.alive, 0)

    # ---- growing and shrinking ---------------------------------------------------------------------

    async def test_pool_grows_with_demand_up_to_its_most(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(least=1, most=3))
        lent, sizes = [], []
        for _ in range(3):
            lent.append(await pool.acquire())
            sizes.append(harness.opened())
        assert sizes == [1, 2, 3]
        await assert_raises_async(TimeoutError, lambda: pool.acquire(harness.short_s))
        for each in lent:
            await pool.release(each)
        await pool.close()

    @needs("shrinking")
    async def test_idle_connections_beyond_the_least_are_closed(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(least=0, most=3, idle_s=harness.short_s))
        for each in [await pool.acquire() for _ in range(3)]:
            await pool.release(each)
        await eventually(harness.alive, 0)
        connection = await pool.acquire()
        await harness.use(connection)
        assert harness.opened() == 4, "it grows again"
        await pool.release(connection)
        await pool.close()

    @needs("shrinking")
    async def test_lent_connection_is_not_taken_for_idle(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(least=0, most=2, idle_s=harness.short_s))
        for each in [await pool.acquire() for _ in range(2)]:
            await pool.release(each)
        lent = await pool.acquire()
        await eventually(harness.alive, 1)
        await idle_time_passes(harness, 2 * harness.short_s)
        await harness.use(lent)
        await pool.release(lent)
        await pool.close()

    @needs("shrinking", "floor")
    async def test_least_are_kept_however_idle(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(least=1, most=3, idle_s=harness.short_s))
        for each in [await pool.acquire() for _ in range(3)]:
            await pool.release(each)
        await eventually(harness.alive, 1)
        await idle_time_passes(harness, 3 * harness.short_s)
        assert await harness.alive() == 1
        await pool.close()

    # ---- statistics --------------------------------------------------------------------------------

    @needs("statistics")
    async def test_statistics_tell_size_and_idle(self, harness: ConnectionPoolHarness) -> None:
        pool = await harness.open(Bounds(least=1, most=3))
        assert pool.statistics() == Statistics(size=1, idle=1)
        lent = [await pool.acquire() for _ in range(2)]
        assert pool.statistics() == Statistics(size=2, idle=0)
        await pool.release(lent[0])
        assert pool.statistics() == Statistics(size=2, idle=1)
        await pool.release(lent[1])
        await pool.close()

    # ---- several pools -----------------------------------------------------------------------------

    @needs("manager")
    async def test_manager_gives_pools_by_name(self, harness: ConnectionPoolHarness) -> None:
        manager = harness.manager()
        main, spare = await manager.add("main", Bounds()), await manager.add("spare", Bounds())
        assert main is not spare
        assert manager.pool("main") is main
        assert manager.pool("spare") is spare
        await manager.close()

    @needs("manager")
    async def test_manager_knows_no_other_names(self, harness: ConnectionPoolHarness) -> None:
        manager = harness.manager()
        await manager.add("main", Bounds())

        async def ask() -> object:
            return manager.pool("nobody")

        await assert_raises_async(KeyError, ask)
        await assert_raises_async(KeyError, lambda: manager.remove("nobody"))
        await manager.close()

    @needs("manager")
    async def test_name_is_taken_only_once(self, harness: ConnectionPoolHarness) -> None:
        manager = harness.manager()
        pool = await manager.add("main", Bounds(least=1))
        await assert_raises_async(ValueError, lambda: manager.add("main", Bounds(least=1)))
        assert manager.pool("main") is pool
        assert harness.opened() == 1, "what was refused has opened nothing"
        await manager.close()

    @needs("manager")
    async def test_exhausted_pool_leaves_the_others_alone(self, harness: ConnectionPoolHarness) -> None:
        manager = harness.manager()
        main, spare = await manager.add("main", Bounds(most=1)), await manager.add("spare", Bounds(most=2))
        connection = await main.acquire()
        await assert_raises_async(TimeoutError, lambda: main.acquire(harness.short_s))
        for each in [await spare.acquire() for _ in range(2)]:
            await spare.release(each)
        await main.release(connection)
        await manager.close()

    @needs("manager")
    async def test_removed_pool_is_closed_and_its_name_free(self, harness: ConnectionPoolHarness) -> None:
        manager = harness.manager()
        pool = await manager.add("main", Bounds(least=1))
        await manager.remove("main")
        await eventually(harness.alive, 0)
        await assert_raises_async(harness.closed, pool.acquire)
        await manager.add("main", Bounds())
        await manager.close()

    @needs("manager")
    async def test_closing_the_manager_closes_every_pool(self, harness: ConnectionPoolHarness) -> None:
        manager = harness.manager()
        pools = [await manager.add(name, Bounds(least=1)) for name in ("a", "b", "c")]
        assert await harness.alive() == 3
        await manager.close()
        await eventually(harness.alive, 0)
        for pool in pools:
            await assert_raises_async(harness.closed, pool.acquire)

    @needs("manager", "statistics")
    async def test_manager_tells_the_statistics_of_each_pool(self, harness: ConnectionPoolHarness) -> None:
        manager = harness.manager()
        main = await manager.add("main", Bounds(least=1))
        await manager.add("spare", Bounds(least=2))
        connection = await main.acquire()
        assert manager.statistics() == {"main": Statistics(1, 0), "spare": Statistics(2, 2)}
        await main.release(connection)
        await manager.close()


async def idle_time_passes(harness: ConnectionPoolHarness, idle_s: float) -> None:
    """Wait until another pool has closed a connection that was idle for so long."""
    before = await harness.alive()
    witness = await harness.open(Bounds(least=0, most=1, idle_s=idle_s))
    await witness.release(await witness.acquire())
    # Fewer, if the pool that is looked at closes one, too: that is for the test to say.
    await eventually(lambda: _at_most(harness, before), True)
    await witness.close()


async def _at_most(harness: ConnectionPoolHarness, count: int) -> bool:
    return await harness.alive() <= count


async def eventually(ask: Callable[[], Any], expected: object) -> None:
    """Ask until the answer is ``expected``, by the loop's clock, which may be virtual."""
    answer: object = None
    loop = asyncio.get_running_loop()
    until_s = loop.time() + DEADLINE_S
    while loop.time() < until_s:
        answer = await ask()
        if answer == expected:
            return
        await asyncio.sleep(POLL_S)
    raise AssertionError(f"expected {expected!r} in the end, the last answer was {answer!r}")
