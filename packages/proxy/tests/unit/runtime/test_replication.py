"""The shell of a replica, between a store and peers that a test plays."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edgeproxy.core.replication.commands import Cause, Warn
from edgeproxy.core.replication.messages import (
    Changes,
    Digest,
    Gone,
    Message,
    Ranges,
    SnapshotPart,
    SnapshotWanted,
    Want,
)
from edgeproxy.core.replication.model import Dot, Group, RowState, Stamp, Write
from edgeproxy.core.replication.replica import Terms
from edgeproxy.core.wire.peer_frames import Frame
from edgeproxy.core.wire.peer_messages import framed, message_in
from edgeproxy.errors import StoreError
from edgeproxy.ports import Captured, LogRead, RowsRead
from edgeproxy.runtime import replication as module
from edgeproxy.runtime.replication import Replication
from testkit.wait import wait_until_async

pytestmark = pytest.mark.feature("replication.changes")


def write(origin: str, sequence: int, wall_ms: int = 1_000) -> Write:
    groups = {Group.HEALTH: {"healthy": 1}}
    return Write(Dot(origin, sequence), Stamp(wall_ms, sequence, origin.partition("/")[0]), "b1", groups)


class Store:
    """What a test says was written here, and what others wrote."""

    def __init__(self) -> None:
        self.origin = "a/1"
        self.new: list[Write] = []
        self.told_origin = ""
        self.applied: list[Write] = []
        self.error: Exception | None = None
        self.error_in: str | None = None
        """The call that fails, ``None`` for all."""
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.error is not None and self.error_in in (None, name):
            raise self.error

    def capture(self) -> Captured:
        self._call("capture")
        writes, self.new = self.new, []
        is_new, self.told_origin = self.told_origin != self.origin, self.origin
        return Captured(self.origin, writes, is_new)

    def renew(self, origin: str) -> str:
        self._call("renew")
        if origin == self.origin:
            self.origin = "a/2"
        return self.origin

    def apply(self, writes: Sequence[Write]) -> int:
        self._call("apply")
        self.applied += writes
        return len(writes)

    def install(
        self, after: str | None, until: str | None, known: Ranges, rows: Sequence[RowState], *, learn: bool
    ) -> None:
        self._call("install")

    def collect(self, stable: Ranges) -> int:
        self._call("collect")
        return 0

    def known(self) -> Ranges:
        self._call("known")
        return {}

    def read_log(self, ranges: Ranges) -> LogRead:
        self._call("read_log")
        return LogRead((), gone=True)

    def read_rows(self, after: str | None) -> RowsRead:
        self._call("read_rows")
        return RowsRead((), None, {})

    def fingerprint(self) -> tuple[Ranges, int]:
        self._call("fingerprint")
        return {}, 0


class World:
    """Everything around one replication."""

    def __init__(self) -> None:
        self.store = Store()
        self.sent: list[tuple[str, Message]] = []
        self.refused: list[tuple[str, str]] = []
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.published = 0
        self.done: list[str] = []
        self.replication = Replication(
            "a", self.store, Terms(sync_interval_s=0.02), self, self._publish, lambda: None, ["b"]
        )

    def _publish(self) -> None:
        self.published += 1

    def send(self, nodes: Iterable[str], frame: Frame) -> None:
        message = message_in(frame)
        assert message is not None
        self.sent += [(node, message) for node in nodes]

    def refuse_message(self, node: str, why: str) -> None:
        self.refused.append((node, why))

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info

    def hear(self, message: Message, node: str = "b") -> None:
        self.replication.peer_message(node, framed(message), lambda: self.done.append(type(message).__name__))

    def got(self, kind: type) -> list[Any]:
        return [message for _, message in self.sent if isinstance(message, kind)]


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    await world.replication.start(world)
    task = asyncio.create_task(world.replication.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object], reason: str) -> None:
    await wait_until_async(lambda: bool(condition()), reason=reason)


async def test_what_is_written_here_is_pushed() -> None:
    world = World()
    async with running(world):
        world.replication.peer_connected("b")
        world.store.new = [write("a/1", 1)]
        world.replication.table_changed()
        await until(lambda: world.got(Changes), "a push")
        assert world.got(Changes) == [Changes((write("a/1", 1),))]
        assert world.replication.counts.written == 1


async def test_what_was_written_just_before_the_end_is_pushed() -> None:
    world = World()
    await world.replication.finish()
    assert world.store.calls == []
    async with running(world):
        world.replication.peer_connected("b")
        await until(lambda: world.store.calls.count("capture") > 1, "the first look to be over")
    world.store.new = [write("a/1", 1)]
    await world.replication.finish()
    assert world.got(Changes) == [Changes((write("a/1", 1),))]
    world.store.error = StoreError("locked")
    await world.replication.finish()


async def test_the_end_does_not_wait_for_a_store_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FINISH_TIMEOUT_S", 0.01)
    world = World()
    async with running(world):
        await until(lambda: world.store.calls.count("capture") > 1, "the first look to be over")
    gate = threading.Event()
    monkeypatch.setattr(world.store, "capture", gate.wait)
    await world.replication.finish()
    gate.set()


async def test_what_comes_is_written_and_published_before_it_counts_as_worked_off() -> None:
    world = World()
    async with running(world):
        world.replication.peer_connected("b")
        world.hear(Changes((write("b/1", 1),)))
        await until(lambda: world.done, "it to be worked off")
        assert world.store.applied == [write("b/1", 1)]
        assert world.published == 1
        assert world.replication.counts.applied == 1
        assert world.replication.waiting == 0


async def test_what_a_peer_asks_for_is_read() -> None:
    world = World()
    async with running(world):
        world.replication.peer_connected("b")
        world.hear(Want({"a/1": ((1, 2),)}))
        world.hear(SnapshotWanted(None))
        await until(lambda: len(world.done) == 2, "both to be answered")
        assert {"read_log", "read_rows"} <= set(world.store.calls)


async def test_rows_are_fetched_from_who_has_dropped_what_is_lacking() -> None:
    world = World()
    async with running(world):
        world.replication.peer_connected("b")
        world.hear(Digest("b/1", {"b/1": ((1, 5),)}, None, 1_000, answer=False))
        await until(lambda: world.got(Want), "it to ask")
        world.hear(Gone())
        await until(lambda: world.got(SnapshotWanted), "it to ask for rows")
        assert world.replication.replica is not None
        assert world.replication.replica.pulling == "b"
        world.hear(SnapshotPart("b/1", None, "b1", {"b/1": ((1, 5),)}, ()))
        await until(lambda: "install" in world.store.calls, "a part to be written")
        assert world.published == 0, "the table is not read again for each part"
        world.hear(SnapshotPart("b/1", "b1", None, {"b/1": ((1, 5),)}, ()))
        await until(lambda: world.published == 1, "the last part to be routed by")
        assert [event for event, _ in world.lines] == [module.WARNINGS["snapshot"]]


async def test_when_nothing_happens_rows_are_compared_and_tombstones_collected() -> None:
    world = World()
    async with running(world):
        world.replication.peer_connected("b")
        world.hear(Digest("b/1", {"b/1": ((1, 1),)}, None, 1_000, answer=False))
        world.hear(Changes((write("b/1", 1),)))
        await until(lambda: "fingerprint" in world.store.calls, "a fingerprint")
        await until(lambda: "collect" in world.store.calls, "a collection")
        assert len(world.got(Digest)) > 1


async def test_numbers_that_are_in_use_elsewhere_lead_to_a_new_origin() -> None:
    world = World()
    async with running(world):
        world.replication.peer_connected("b")
        replica = world.replication.replica
        world.hear(Digest("b/1", {"a/1": ((1, 9),)}, None, 1_000, answer=False))
        await until(lambda: world.store.origin == "a/2", "a new origin")
        await until(
            lambda: world.replication.replica is not replica, "the machine to begin anew with what is known"
        )
        assert world.replication.replica is not None
        assert world.replication.replica.origin == "a/2"
        assert world.got(Digest)[-1].origin == "a/2", "peers are compared with again"


async def test_a_store_that_fails_is_said_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_INTERVAL_S", 0.01)
    world = World()
    async with running(world):
        world.replication.peer_connected("b")
        world.store.error = StoreError("locked")
        world.hear(Changes((write("b/1", 1),)))
        await until(lambda: world.replication.counts.store_failures > 2, "failures")
        world.store.error = None
        world.hear(Changes((write("b/1", 1),)))
        await until(lambda: world.store.applied, "what comes again to be written")
        said = [fields for event, fields in world.lines if "trying again" in event]
        assert said == [{"why": "locked"}]


async def test_what_the_store_cannot_take_ends_the_connection() -> None:
    world = World()
    async with running(world):
        world.replication.peer_connected("b")
        world.store.error, world.store.error_in = OverflowError("too large"), "apply"
        world.hear(Changes((write("b/1", 1),)))
        await until(lambda: world.refused, "a refusal")
        assert world.refused == [("b", "the store cannot take it: too large")]


async def test_a_fault_of_ours_is_not_put_on_a_peer() -> None:
    world = World()
    world.store.error, world.store.error_in = ValueError("a defect"), "fingerprint"
    await world.replication.start(world)
    with pytest.raises(ExceptionGroup) as failed:
        await world.replication.run()
    assert str(failed.value.exceptions[0]) == "a defect"
    assert world.refused == []


async def test_what_is_no_message_ends_the_connection_and_what_is_unknown_is_passed_over() -> None:
    world = World()
    async with running(world):
        world.replication.peer_message("b", Frame(16, b"\xc1"), lambda: world.done.append("never"))
        world.replication.peer_message("b", Frame(99, b""), lambda: world.done.append("later version"))
        assert world.done == ["later version"]
        ((node, why),) = world.refused
        assert node == "b"
        assert "undecodable" in why


async def test_a_clock_that_is_ahead_is_warned_of_by_name() -> None:
    world = World()
    async with running(world):
        world.replication.peer_connected("b")
        far = write("b/1", 1, wall_ms=9_000_000_000_000)
        for _ in range(3):
            world.hear(Changes((far,)))
        ((event, fields),) = world.lines
        assert event == module.WARNINGS["clock_ahead"]
        assert (fields["pop"], fields["cause"], fields["origin"]) == ("b", "clock_ahead", "b/1")
        assert float(fields["ahead_s"]) > 1e9
        assert world.replication.counts.warnings == {"clock_ahead": 3}
        assert world.store.applied == []


async def test_facts_before_the_start_count_after_it() -> None:
    world = World()
    world.replication.member_alive("b")
    world.replication.member_alive("c")
    world.replication.member_dead("c")
    world.replication.member_left("d")
    world.replication.peer_connected("b")
    world.replication.peer_connected("c")
    world.replication.peer_lost("c")
    world.hear(Want({}))
    assert world.done == ["Want"]
    assert world.replication.replica is None
    async with running(world):
        assert [node for node, _ in world.sent] == ["b"]
        for tell in (
            world.replication.member_alive,
            world.replication.member_dead,
            world.replication.member_left,
        ):
            tell("c")
        world.replication.peer_lost("b")


def test_every_warning_has_its_words() -> None:
    assert set(module.WARNINGS) == set(map(str, Cause))


def test_a_command_that_is_not_for_the_store_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        World().replication._ask_in_thread(None, Warn(Cause.SNAPSHOT, "b"))  # type: ignore[arg-type]
