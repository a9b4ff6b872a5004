"""What shared state must do: be the same for all instances soon, and never lose a change to a race.

Each instance of a service opens a namespace, in which keys have values with versions. Whoever writes can say
which version was seen; whoever listens is told of changes by others, and has a copy that is free to read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises_async
from testkit.contracts.contract import Contract, needs

INSTANCES = 3


@dataclass(frozen=True, slots=True)
class Entry:
    value: Any
    version: int
    """1 for the first value of a key, and one more with each change."""


Handler = Callable[[str, Entry | None], None]
"""Is told the key and what it has now, ``None`` when it is gone."""


class SharedState(Protocol):
    """One instance's view of a namespace."""

    async def start(self) -> None:
        """Hear of changes from now on, and know what there is already."""
        ...

    async def stop(self) -> None:
        """Hear of nothing more; may be called twice."""
        ...

    async def set(
        self, key: str, value: Any, *, expected_version: int | None = None, ttl_s: float | None = None
    ) -> int:
        """Write, and return the new version. ``expected_version`` must be the one there is, 0 for none."""
        ...

    async def get(self, key: str) -> Entry | None:
        """What all agree on."""
        ...

    def cached(self, key: str) -> Entry | None:
        """What this instance has heard, without asking anybody."""
        ...

    async def increment(self, key: str, by: int = 1) -> int:
        """Add to a number, 0 if there is none, and return the sum."""
        ...

    async def delete(self, key: str) -> bool:
        """Whether there was something to delete."""
        ...

    def on_change(self, handler: Handler) -> None:
        """Tell ``handler`` of each change, this instance's own too."""
        ...

    async def settle(self) -> None:
        """Wait until all changes made so far have been heard here."""
        ...


class StateManager(Protocol):
    """An instance's namespaces, started and stopped together."""

    def namespace(self, name: str) -> SharedState:
        """The same object for the same name."""
        ...

    def names(self) -> Sequence[str]: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class StateSyncHarness(Protocol):
    """What a test must know of an implementation. Begins without state; stops what it opened."""

    @property
    def conflict(self) -> type[Exception]:
        """What is raised when the version is another one."""
        ...

    def open(self, namespace: str = "default") -> SharedState:
        """An instance that has not been started."""
        ...

    def manager(self) -> StateManager: ...

    async def pass_time(self, seconds: float) -> None:
        """Let that time pass for the state."""
        ...

    async def announce_rubbish(self, namespace: str = "default") -> None:
        """Tell all instances what is no change."""
        ...


class StateSyncContract(
    Contract,
    contract="state_sync",
    capabilities={
        "ttl": "values can end by themselves",
        "manager": "namespaces can be started and stopped together",
        "rubbish": "there is a channel on which others could say what makes no sense",
    },
):
    """Subclass it, define the fixture ``harness``, and pytest runs it."""

    # ---- one instance ------------------------------------------------------------------------------

    async def test_new_namespace_is_empty(self, harness: StateSyncHarness) -> None:
        state = await started(harness)
        assert await state.get("nothing") is None
        assert state.cached("nothing") is None
        assert not await state.delete("nothing")

    async def test_what_is_set_can_be_read(self, harness: StateSyncHarness) -> None:
        state = await started(harness)
        values: tuple[Any, ...] = (None, "", 0, [], {"ä": [1, 2.5, True]}, "x" * (1 << 18))
        for version, value in enumerate(values, start=1):
            assert await state.set("key", value) == version
            assert await state.get("key") == Entry(value, version)

    async def test_value_is_what_it_was_when_it_was_set(self, harness: StateSyncHarness) -> None:
        state, value = await started(harness), {"n": 1}
        await state.set("key", value)
        value["n"] = 2
        assert await state.get("key") == Entry({"n": 1}, 1)

    async def test_deleted_key_is_gone(self, harness: StateSyncHarness) -> None:
        state = await started(harness)
        await state.set("key", 1)
        await state.set("other", 2)
        assert await state.delete("key")
        assert await state.get("key") is None
        assert not await state.delete("key")
        assert await state.get("other") == Entry(2, 1)

    async def test_namespaces_know_nothing_of_each_other(self, harness: StateSyncHarness) -> None:
        first, second = await started(harness, "a"), await started(harness, "b")
        await first.set("key", 1)
        await second.settle()
        assert await second.get("key") is None
        assert second.cached("key") is None
        await second.set("key", 2)
        assert await first.get("key") == Entry(1, 1)

    # ---- versions ----------------------------------------------------------------------------------

    async def test_version_that_was_seen_can_be_demanded(self, harness: StateSyncHarness) -> None:
        state = await started(harness)
        assert await state.set("key", "a", expected_version=0) == 1
        assert await state.set("key", "b", expected_version=1) == 2
        for wrong in (0, 1, 3):
            await assert_raises_async(
                harness.conflict,
                lambda wrong=wrong: state.set("key", "c", expected_version=wrong),  # type: ignore[misc]
            )
        assert await state.get("key") == Entry("b", 2)

    async def test_one_of_those_that_change_the_same_version_wins(self, harness: StateSyncHarness) -> None:
        states = [await started(harness) for _ in range(INSTANCES)]
        await states[0].set("key", "old")
        outcomes = await asyncio.gather(
            *(states[n].set("key", n, expected_version=1) for n in range(INSTANCES)), return_exceptions=True
        )
        winners = [n for n, outcome in enumerate(outcomes) if outcome == 2]
        assert len(winners) == 1, outcomes
        assert all(isinstance(each, harness.conflict) for each in outcomes if each != 2), outcomes
        assert await states[0].get("key") == Entry(winners[0], 2)

    async def test_no_change_by_read_and_write_is_lost(self, harness: StateSyncHarness) -> None:
        states = [await started(harness) for _ in range(INSTANCES)]
        await states[0].set("list", [])

        async def append(n: int) -> None:
            while True:
                seen = await states[n].get("list")
                assert seen is not None
                try:
                    await states[n].set("list", [*seen.value, n], expected_version=seen.version)
                except harness.conflict:
                    continue
                return

        await asyncio.gather(*(append(n) for n in range(INSTANCES)))
        final = await states[0].get("list")
        assert final is not None
        assert (sorted(final.value), final.version) == ([0, 1, 2], INSTANCES + 1)

    async def test_increments_of_all_add_up(self, harness: StateSyncHarness) -> None:
        states = [await started(harness) for _ in range(INSTANCES)]
        sums = await asyncio.gather(*(states[n % INSTANCES].increment("n") for n in range(30)))
        assert sorted(sums) == [*range(1, 31)]
        assert await states[0].increment("n", -30) == 0
        seen = await states[1].get("n")
        assert seen == Entry(0, 31)

    # ---- several instances -------------------------------------------------------------------------

    async def test_others_hear_of_a_change(self, harness: StateSyncHarness) -> None:
        writer, reader = await started(harness), await started(harness)
        await writer.set("key", {"n": 1})
        await reader.settle()
        assert reader.cached("key") == Entry({"n": 1}, 1)
        await writer.increment("n", 5)
        await reader.settle()
        assert reader.cached("n") == Entry(5, 1)

    async def test_others_hear_of_a_deletion(self, harness: StateSyncHarness) -> None:
        writer, reader = await started(harness), await started(harness)
        await writer.set("key", 1)
        await reader.settle()
        await writer.delete("key")
        await reader.settle()
        assert reader.cached("key") is None

    async def test_copy_is_the_instances_own(self, harness: StateSyncHarness) -> None:
        state = await started(harness)
        await state.set("key", {"n": 1})
        await state.settle()
        copy = state.cached("key")
        assert copy is not None
        copy.value["n"] = 2
        assert await state.get("key") == Entry({"n": 1}, 1)

    async def test_whoever_comes_later_knows_what_there_is(self, harness: StateSyncHarness) -> None:
        await (await started(harness)).set("key", "value")
        late = await started(harness)
        assert late.cached("key") == Entry("value", 1)

    async def test_stopped_instance_hears_of_nothing(self, harness: StateSyncHarness) -> None:
        writer, reader = await started(harness), await started(harness)
        heard: list[str] = []
        reader.on_change(lambda key, _: heard.append(key))
        await reader.stop()
        await reader.stop()
        await writer.set("key", 1)
        await writer.settle()
        assert heard == []
        # And has all again when it goes on.
        await reader.start()
        assert reader.cached("key") == Entry(1, 1)

    async def test_changes_are_heard_in_their_order(self, harness: StateSyncHarness) -> None:
        writer, reader = await started(harness), await started(harness)
        heard: list[int] = []
        reader.on_change(lambda _, entry: heard.append(entry.version if entry else -1))
        for n in range(20):
            await writer.set("key", n)
        await reader.settle()
        assert heard == [*range(1, 21)]

    # ---- handlers ----------------------------------------------------------------------------------

    async def test_handlers_are_told_what_changed(self, harness: StateSyncHarness) -> None:
        writer, reader = await started(harness), await started(harness)
        told: dict[str, list[tuple[str, Entry | None]]] = {"first": [], "second": [], "own": []}
        reader.on_change(lambda key, entry: told["first"].append((key, entry)))
        reader.on_change(lambda key, entry: told["second"].append((key, entry)))
        writer.on_change(lambda key, entry: told["own"].append((key, entry)))
        await writer.set("key", 1)
        await writer.delete("key")
        await writer.settle()
        await reader.settle()
        expected = [("key", Entry(1, 1)), ("key", None)]
        assert told == {"first": expected, "second": expected, "own": expected}

    async def test_handler_that_fails_harms_nobody(self, harness: StateSyncHarness) -> None:
        state = await started(harness)
        heard: list[str] = []

        def fail(key: str, entry: Entry | None) -> None:
            raise ZeroDivisionError("on purpose")

        state.on_change(fail)
        state.on_change(lambda key, _: heard.append(key))
        await state.set("a", 1)
        await state.set("b", 1)
        await state.settle()
        assert heard == ["a", "b"]

    @needs("rubbish")
    async def test_rubbish_on_the_channel_is_passed_over(self, harness: StateSyncHarness) -> None:
        writer, reader = await started(harness), await started(harness)
        await harness.announce_rubbish()
        await writer.set("key", 1)
        await reader.settle()
        assert reader.cached("key") == Entry(1, 1)

    # ---- time --------------------------------------------------------------------------------------

    @needs("ttl")
    async def test_value_ends_with_its_time(self, harness: StateSyncHarness) -> None:
        state = await started(harness)
        await state.set("short", 1, ttl_s=30)
        await state.set("long", 1)
        await harness.pass_time(25)
        assert await state.get("short") == Entry(1, 1)
        await harness.pass_time(6)
        assert await state.get("short") is None
        assert await state.get("long") == Entry(1, 1)

    @needs("ttl")
    async def test_next_value_has_its_own_time(self, harness: StateSyncHarness) -> None:
        state = await started(harness)
        await state.set("key", 1, ttl_s=30)
        await state.set("key", 2)
        await harness.pass_time(100)
        assert await state.get("key") == Entry(2, 2)

    # ---- manager -----------------------------------------------------------------------------------

    @needs("manager")
    async def test_manager_has_one_state_for_each_namespace(self, harness: StateSyncHarness) -> None:
        manager = harness.manager()
        assert list(manager.names()) == []
        first = manager.namespace("a")
        assert manager.namespace("a") is first
        assert manager.namespace("b") is not first
        assert sorted(manager.names()) == ["a", "b"]

    @needs("manager")
    async def test_manager_starts_and_stops_all(self, harness: StateSyncHarness) -> None:
        manager, writer = harness.manager(), await started(harness, "a")
        state = manager.namespace("a")
        await manager.start()
        await writer.set("key", 1)
        await state.settle()
        assert state.cached("key") == Entry(1, 1)
        heard: list[str] = []
        state.on_change(lambda key, _: heard.append(key))
        await manager.stop()
        await writer.set("key", 2)
        await writer.settle()
        assert heard == []


async def started(harness: StateSyncHarness, namespace: str = "default") -> SharedState:
    state = harness.open(namespace)
    await state.start()
    return state
