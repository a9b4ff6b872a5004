"""Pools of connections, and managers of pools, with a known bug."""

from __future__ import annotations

import asyncio
from typing import Any

from testkit.contracts.connection_pool import Bounds, ConnectionPoolContract, Pool, Statistics
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.connection_pool import (
    MemoryConnection,
    MemoryHarness,
    MemoryPool,
    PoolManager,
)


class _Base(MemoryPool[MemoryConnection]):
    """With the connections that the harness makes."""


def _harness(kind: Any) -> MemoryHarness:
    return MemoryHarness(manager_kind=kind) if issubclass(kind, PoolManager) else MemoryHarness(kind)


Contract = ConnectionPoolContract
BUGS = PlantedBugs(Contract, _harness)


@BUGS.caught_by(Contract.test_pool_opens_its_least_at_once)
class OpensNothingAtOnce(_Base):
    async def start(self) -> None: ...


@BUGS.caught_by(Contract.test_pool_opens_no_more_than_is_needed)
class OpensAllAtOnce(_Base):
    async def start(self) -> None:
        while self.size < self._bounds.most:
            self._rest(await self._open())


@BUGS.caught_by(
    Contract.test_pool_of_no_connections_is_refused,
    Contract.test_pool_with_more_at_least_than_at_most_is_refused,
)
class TakesAnyBounds(_Base):
    def check(self, bounds: Bounds) -> None: ...


@BUGS.caught_by(
    Contract.test_connection_given_back_is_lent_again, Contract.test_single_connection_serves_many
)
class ConnectsEachTime(_Base):
    def is_worn(self, connection: MemoryConnection) -> bool:
        return True


@BUGS.caught_by(
    Contract.test_no_two_borrowers_share_a_connection,
    Contract.test_many_borrowers_never_have_more_than_the_most,
)
class LendsTheSameToAll(_Base):
    async def _take(self) -> MemoryConnection | None:
        return next(iter(self._lent), None) or await super()._take()


@BUGS.caught_by(Contract.test_giving_back_twice_changes_nothing)
class TakesBackTwice(_Base):
    async def release(self, connection: MemoryConnection) -> None:
        self._lent.add(connection)
        await super().release(connection)


@BUGS.caught_by(
    Contract.test_waiting_for_a_connection_ends_with_the_time_limit,
    Contract.test_pool_grows_with_demand_up_to_its_most,
)
class OpensMoreThanTheMost(_Base):
    async def _take(self) -> MemoryConnection | None:
        return await super()._take() or await self._open()


@BUGS.caught_by(Contract.test_many_borrowers_never_have_more_than_the_most)
class ForgetsThoseBeingOpened(_Base):
    @property
    def size(self) -> int:
        return len(self._idle) + len(self._lent)


@BUGS.caught_by(Contract.test_waiting_for_a_connection_ends_with_the_time_limit)
class FailsAtOnceWhenExhausted(_Base):
    async def _wait(self) -> None:
        raise TimeoutError


@BUGS.caught_by(Contract.test_exhausted_pool_makes_borrowers_wait_until_one_is_given_back)
class WakesNobody(_Base):
    def _wake(self) -> None:
        self._waiting.clear()


@BUGS.caught_by(Contract.test_borrower_that_gives_up_takes_no_connection_along)
class LendsToThoseWhoGaveUp(_Base):
    async def acquire(self, timeout_s: float | None = None) -> MemoryConnection:
        lending = asyncio.ensure_future(super().acquire(timeout_s))
        return await asyncio.shield(lending)


@BUGS.caught_by(Contract.test_borrowers_are_served_in_the_order_in_which_they_came)
class ServesTheLastFirst(_Base):
    def _wake(self) -> None:
        self._waiting.reverse()
        super()._wake()
        self._waiting.reverse()


@BUGS.caught_by(Contract.test_connection_that_broke_while_lent_is_replaced)
class KeepsWhatBroke(_Base):
    async def _take(self) -> MemoryConnection | None:
        if self._idle:
            return self._idle.pop()
        return await super()._take()

    async def release(self, connection: MemoryConnection) -> None:
        self._lent.discard(connection)
        self._rest(connection)
        self._wake()


@BUGS.caught_by(Contract.test_connection_that_broke_while_idle_is_replaced)
class LendsWhatBrokeWhileIdle(_Base):
    async def _take(self) -> MemoryConnection | None:
        if self._idle:
            return self._idle.pop()
        return await super()._take()


@BUGS.caught_by(Contract.test_connection_is_replaced_after_so_many_uses)
class RecyclesNothing(_Base):
    def is_worn(self, connection: MemoryConnection) -> bool:
        return False


@BUGS.caught_by(Contract.test_closed_pool_lends_nothing)
class LendsAfterTheEnd(_Base):
    async def close(self) -> None:
        await super().close()
        self._is_closed = False


@BUGS.caught_by(Contract.test_closing_leaves_no_connection_behind)
class LeavesConnectionsBehind(_Base):
    async def close(self) -> None:
        self._idle.clear()
        await super().close()


@BUGS.caught_by(Contract.test_idle_connections_beyond_the_least_are_closed)
class NeverShrinks(_Base):
    def _close_if_idle(self, connection: MemoryConnection) -> None: ...


@BUGS.caught_by(Contract.test_lent_connection_is_not_taken_for_idle)
class ClosesWhatIsLent(_Base):
    def _stop_timer(self, connection: MemoryConnection) -> None: ...

    def _close_if_idle(self, connection: MemoryConnection) -> None:
        connection.close()

    async def start(self) -> None:
        await super().start()

    async def _open(self) -> MemoryConnection:
        connection = await super()._open()
        if self._bounds.idle_s is not None:
            asyncio.get_running_loop().call_later(self._bounds.idle_s, connection.close)
        return connection


@BUGS.caught_by(Contract.test_least_are_kept_however_idle)
class ShrinksToNothing(_Base):
    def _close_if_idle(self, connection: MemoryConnection) -> None:
        self._close_idle(connection)


@BUGS.caught_by(Contract.test_statistics_tell_size_and_idle)
class CountsLentAsIdle(_Base):
    def statistics(self) -> Statistics:
        return Statistics(size=self.size, idle=self.size)


@BUGS.caught_by(Contract.test_name_is_taken_only_once)
class ReplacesPoolsOfTheSameName(PoolManager):
    async def add(self, name: str, bounds: Bounds) -> Pool:
        self._pools.pop(name, None)
        return await super().add(name, bounds)


@BUGS.caught_by(
    Contract.test_manager_gives_pools_by_name, Contract.test_exhausted_pool_leaves_the_others_alone
)
class HasOnePoolForAllNames(PoolManager):
    async def add(self, name: str, bounds: Bounds) -> Pool:
        if self._pools and name not in self._pools:
            self._pools[name] = next(iter(self._pools.values()))
            return self._pools[name]
        return await super().add(name, bounds)


@BUGS.caught_by(Contract.test_removed_pool_is_closed_and_its_name_free)
class ForgetsWithoutClosing(PoolManager):
    async def remove(self, name: str) -> None:
        del self._pools[name]


@BUGS.caught_by(Contract.test_closing_the_manager_closes_every_pool)
class ClosesTheFirstOnly(PoolManager):
    async def close(self) -> None:
        for name in [*self._pools][:1]:
            await self.remove(name)


SUITE = Suite(
    Contract,
    "testkit.contracts.references.connection_pool:MemoryHarness",
    BUGS,
    mutate=(MemoryPool.__name__, PoolManager.__name__),
)
