"""Locks with a known bug; most of them were in somebody's program once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from testkit.contracts.distributed_lock import DistributedLockContract, LockInfo
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.distributed_lock import (
    Instance,
    MemoryLock,
    MemoryLockHarness,
)

Contract = DistributedLockContract
BUGS = PlantedBugs(Contract, MemoryLockHarness)


@BUGS.caught_by(Contract.test_late_holder_does_not_give_back_what_is_somebody_elses)
class GivesBackWhateverIsThere(MemoryLock):
    """DEL without asking whose it is."""

    async def release(self) -> None:
        await super().is_held()
        for each in self._instances:
            held = each.owner(self.name) if each.reachable else None
            if held is not None:
                each.give_back(self.name, held[0])


@BUGS.caught_by(Contract.test_holder_that_died_is_no_deadlock)
class LastsForEver(MemoryLock):
    """SETNX without a time."""

    async def _take(self) -> bool:
        self._ttl_s = 1e9
        return await super()._take()


@BUGS.caught_by(Contract.test_what_is_over_cannot_be_extended)
class ExtendsWhatIsOver(MemoryLock):
    async def extend(self, ttl_s: float) -> None:
        await self._ask(lambda each: each.take(self.name, self._owner, ttl_s))
        await super().extend(ttl_s)


@BUGS.caught_by(Contract.test_only_the_holder_extends_it)
class ExtendsForAnybody(MemoryLock):
    async def extend(self, ttl_s: float) -> None:
        found = await self.info()
        self._owner = found.owner if found else ""
        await super().extend(ttl_s)


@BUGS.caught_by(Contract.test_extension_counts_from_now)
class ExtensionIsForgotten(MemoryLock):
    async def extend(self, ttl_s: float) -> None:
        if not await self.is_held():
            await super().extend(ttl_s)


@BUGS.caught_by(
    Contract.test_one_of_many_that_ask_at_once_gets_it, Contract.test_all_that_wait_get_it_one_after_the_other
)
class AsksThenTakes(MemoryLock):
    """GET, and if there is nothing, SET."""

    async def _take(self) -> bool:
        if await self.info() is not None:
            return False
        await asyncio.sleep(0)
        self._owner = f"owner-{id(self)}"
        for each in self._instances:
            if (held := each.owner(self.name)) is not None:
                each.give_back(self.name, held[0])
            each.take(self.name, self._owner, self._ttl_s)
        return True


@BUGS.caught_by(
    Contract.test_waiting_ends_after_its_time, Contract.test_block_without_the_lock_is_not_entered
)
class WaitsForEver(MemoryLock):
    async def acquire(self, *, wait_s: float = 0.0) -> bool:
        return await super().acquire(wait_s=1e12 if wait_s else 0.0)


@BUGS.caught_by(Contract.test_waiting_taker_gets_it_when_it_is_given_back)
class NeverWaits(MemoryLock):
    async def acquire(self, *, wait_s: float = 0.0) -> bool:
        return await super().acquire()


@BUGS.caught_by(Contract.test_retries_back_off_and_end)
class RetriesWithoutBackingOff(MemoryLock):
    async def acquire_with_retries(self, retries: int, *, delay_s: float) -> bool:
        for _ in range(retries):
            if await self._take():
                return True
            await asyncio.sleep(delay_s)
        return await self._take()


@BUGS.caught_by(Contract.test_block_that_fails_gives_it_back)
class KeepsItWhenTheBlockFails(MemoryLock):
    async def __aexit__(self, *exception: object) -> None:
        if exception[0] is None:
            await super().__aexit__(*exception)


@BUGS.caught_by(Contract.test_block_without_the_lock_is_not_entered)
class EntersWithoutIt(MemoryLock):
    async def __aenter__(self) -> Self:
        await self.acquire(wait_s=self._wait_s)
        return self


@BUGS.caught_by(Contract.test_majority_out_of_reach_is_no_lock, Contract.test_lock_is_lost_with_the_majority)
class CountsThoseInReachOnly(MemoryLock):
    def _is_quorum(self, votes: int) -> bool:
        return votes > sum(each.reachable for each in self._instances) // 2


@BUGS.caught_by(Contract.test_minority_out_of_reach_is_no_matter)
class NeedsAll(MemoryLock):
    def _is_quorum(self, votes: int) -> bool:
        return votes == len(self._instances)


@BUGS.caught_by(
    Contract.test_majority_out_of_reach_is_no_lock, Contract.test_minority_that_forgets_gives_nothing_away
)
class LeavesItsVotes(MemoryLock):
    def _give_up(self, owner: str) -> None:
        if owner == self._owner:
            super()._give_up(owner)


@BUGS.caught_by(Contract.test_locks_of_other_names_are_free)
class CutsNamesOff(MemoryLock):
    def __init__(self, instances: list[Instance], name: str, ttl_s: float, wait_s: float) -> None:
        super().__init__(instances, name[:64].strip(), ttl_s, wait_s)


@BUGS.caught_by(Contract.test_anybody_is_told_who_holds_it_and_how_long)
class TellsTheWholeTime(MemoryLock):
    async def info(self) -> LockInfo | None:
        found = await super().info()
        return found and LockInfo(found.owner, self._ttl_s)


@BUGS.caught_by(Contract.test_lock_needs_a_name_and_a_time)
class TakesAnyTime(MemoryLock):
    def __init__(self, instances: list[Instance], name: str, ttl_s: float, wait_s: float) -> None:
        super().__init__(instances, name, ttl_s if ttl_s > 0 else 1.0, wait_s)


@BUGS.caught_by(Contract.test_lock_that_nobody_took_is_held_by_nobody)
class HoldsWhatNobodyHolds(MemoryLock):
    async def _ask(self, question: Callable[[Instance], bool]) -> int:
        votes = await super()._ask(question)
        return votes or len(self._instances) * all(
            each.reachable and each.owner(self.name) is None for each in self._instances
        )


SUITE = Suite(
    Contract,
    "testkit.contracts.references.distributed_lock:MemoryLockHarness",
    BUGS,
    mutate=("Instance", "MemoryLock", "MemoryLockManager"),
)
