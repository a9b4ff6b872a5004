"""Shared state with a known bug."""

from __future__ import annotations

import asyncio
from typing import Any

from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.state_sync import MemoryState, MemoryStateHarness
from testkit.contracts.state_sync import Entry, Handler, StateSyncContract

Contract = StateSyncContract
BUGS = PlantedBugs(Contract, MemoryStateHarness)


@BUGS.caught_by(
    Contract.test_one_of_those_that_change_the_same_version_wins,
    Contract.test_no_change_by_read_and_write_is_lost,
)
class ComparesThenWrites(MemoryState):
    """Between the two, others write."""

    async def set(
        self, key: str, value: Any, *, expected_version: int | None = None, ttl_s: float | None = None
    ) -> int:
        version = self._version(key)
        if expected_version in {None, version}:
            await asyncio.sleep(0)
            expected_version = self._version(key)
        return await super().set(key, value, expected_version=expected_version, ttl_s=ttl_s)


@BUGS.caught_by(Contract.test_version_that_was_seen_can_be_demanded)
class TakesOlderVersionsOnlyForConflicts(MemoryState):
    async def set(
        self, key: str, value: Any, *, expected_version: int | None = None, ttl_s: float | None = None
    ) -> int:
        if expected_version is not None and expected_version > self._version(key):
            expected_version = None
        return await super().set(key, value, expected_version=expected_version, ttl_s=ttl_s)


@BUGS.caught_by(Contract.test_increments_of_all_add_up)
class ReadsThenAdds(MemoryState):
    async def increment(self, key: str, by: int = 1) -> int:
        entry = await self.get(key)
        await asyncio.sleep(0)
        total = int(entry.value if entry else 0) + by
        await self.set(key, total)
        return total


@BUGS.caught_by(Contract.test_others_hear_of_a_change, Contract.test_handlers_are_told_what_changed)
class HearsNothing(MemoryState):
    def _hear(self, key: str, entry: Entry | None) -> None:
        return


@BUGS.caught_by(Contract.test_others_hear_of_a_deletion)
class KeepsItsCopyOfWhatIsGone(MemoryState):
    def _hear(self, key: str, entry: Entry | None) -> None:
        copy = dict(self._copy)
        super()._hear(key, entry)
        if entry is None:
            self._copy = copy


@BUGS.caught_by(Contract.test_whoever_comes_later_knows_what_there_is)
class KnowsWhatItHeardOnly(MemoryState):
    async def start(self) -> None:
        await super().start()
        self._copy.clear()


@BUGS.caught_by(Contract.test_stopped_instance_hears_of_nothing, Contract.test_manager_starts_and_stops_all)
class NeverStops(MemoryState):
    async def start(self) -> None:
        if self._listening is None:
            await super().start()

    async def stop(self) -> None:
        return


@BUGS.caught_by(Contract.test_namespaces_know_nothing_of_each_other)
class HasOneNamespace(MemoryState):
    def __init__(self, store: Any, namespace: str) -> None:
        super().__init__(store, "default")


@BUGS.caught_by(Contract.test_handler_that_fails_harms_nobody)
class FailsWithItsHandlers(MemoryState):
    def _hear(self, key: str, entry: Entry | None) -> None:
        failed = False
        for handler in self._handlers:
            failed = failed or not self._succeeds(handler, key, entry)
        self._handlers = [] if failed else self._handlers

    def _succeeds(self, handler: Handler, key: str, entry: Entry | None) -> bool:
        try:
            handler(key, entry)
        except Exception:  # noqa: BLE001
            return False
        return True


@BUGS.caught_by(Contract.test_handlers_are_told_what_changed)
class HasOneHandler(MemoryState):
    def on_change(self, handler: Handler) -> None:
        self._handlers = [handler]


@BUGS.caught_by(Contract.test_value_ends_with_its_time)
class KnowsNoTimes(MemoryState):
    async def set(
        self, key: str, value: Any, *, expected_version: int | None = None, ttl_s: float | None = None
    ) -> int:
        return await super().set(key, value, expected_version=expected_version)


@BUGS.caught_by(Contract.test_next_value_has_its_own_time)
class InheritsTheTime(MemoryState):
    async def set(
        self, key: str, value: Any, *, expected_version: int | None = None, ttl_s: float | None = None
    ) -> int:
        self._ttls: dict[str, float | None] = getattr(self, "_ttls", {})
        ttl_s = self._ttls.setdefault(key, ttl_s)
        return await super().set(key, value, expected_version=expected_version, ttl_s=ttl_s)


@BUGS.caught_by(Contract.test_copy_is_the_instances_own, Contract.test_value_is_what_it_was_when_it_was_set)
class HandsOutItsOwnObjects(MemoryState):
    async def set(
        self, key: str, value: Any, *, expected_version: int | None = None, ttl_s: float | None = None
    ) -> int:
        version = await super().set(key, value, expected_version=expected_version, ttl_s=ttl_s)
        self._objects = {**getattr(self, "_objects", {}), key: Entry(value, version)}
        return version

    async def get(self, key: str) -> Entry | None:
        found = await super().get(key)
        return getattr(self, "_objects", {}).get(key, found) if found else None

    def cached(self, key: str) -> Entry | None:
        found = super().cached(key)
        return getattr(self, "_objects", {}).get(key, found) if found else None


@BUGS.caught_by(Contract.test_what_is_set_can_be_read)
class TakesNoneForNothing(MemoryState):
    async def get(self, key: str) -> Entry | None:
        found = await super().get(key)
        return found if found and found.value is not None else None


SUITE = Suite(
    Contract,
    "testkit.contracts.references.state_sync:MemoryStateHarness",
    BUGS,
    mutate=("MemoryStore", "MemoryState", "MemoryStateManager"),
)
