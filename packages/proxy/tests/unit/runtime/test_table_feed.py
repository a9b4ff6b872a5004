"""What the feed tells the workers and the log, with a store that does as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from edgeproxy.core.controlplane.routing_table import RoutingTable, TableChange
from edgeproxy.core.geography import parse_geography
from edgeproxy.core.wire.frames import HostAddresses, TableChanged
from edgeproxy.errors import StoreError
from edgeproxy.ports import Row
from edgeproxy.runtime import table_feed
from edgeproxy.runtime.table_feed import TableFeed, events_of, log_issues
from testkit.wait import wait_until_async

GEOGRAPHY, _ = parse_geography({})


def row(backend_id: str, **values: object) -> Row:
    return {
        "id": backend_id,
        "app": "test",
        "region": "eu",
        "country": None,
        "wg_ip": "10.0.0.1",
        "port": 9001,
        "healthy": 1,
        "weight": 1,
        "soft_limit": 100,
        "hard_limit": 0,
        **values,
    }


class FakeStore:
    """Holds rows, or the error that reading them ends in."""

    def __init__(self) -> None:
        self.rows: Sequence[Row] = []
        self.error: StoreError | None = None
        self.polls = 0
        self._told: Sequence[Row] | None = None

    def poll(self) -> Sequence[Row] | None:
        self.polls += 1
        if self.error is not None:
            raise self.error
        told, self._told = self._told, self.rows
        return None if told is self.rows else self.rows


class FakeWorkers:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.changes: list[TableChanged] = []
        self.hosts: list[HostAddresses] = []
        self.caught_up = 0
        self.version = -1

    def publish(self, news: TableChanged | HostAddresses) -> None:
        if isinstance(news, TableChanged):
            self.changes.append(news)
        else:
            self.hosts.append(news)

    def catch_up(self) -> None:
        self.caught_up += 1

    def applied_version(self) -> int:
        return self.version


class FakeLog:
    """Keeps lines as (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]


class World:
    """A feed and everything around it."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.workers = FakeWorkers()
        self.log: Any = FakeLog()
        self.names: dict[str, tuple[str, ...]] = {}
        self.connections: dict[int, int] = {}
        self.followed: list[tuple[TableChange, int]] = []
        store: Any = self.store
        self.feed = TableFeed(
            store,
            RoutingTable(GEOGRAPHY),
            self._resolve,
            lambda slot: self.connections.get(slot, 0),
            poll_interval_s=0.001,
            on_change=lambda change: self.followed.append((change, len(self.workers.changes))),
        )

    async def _resolve(self, name: str) -> tuple[str, ...]:
        return self.names.get(name, ())

    async def watch_until(self, condition: Callable[[], object], reason: str) -> None:
        watching = asyncio.create_task(self.feed.watch(self.workers, self.log))
        try:
            await wait_until_async(lambda: bool(condition()), reason=reason)
        finally:
            # Cut off in the middle, a poll would have seen an edit of which nobody hears.
            async with self.feed.paused():
                watching.cancel()

    async def polls(self, count: int = 3) -> None:
        """So many polls from now on, each of which has had its effect."""
        wanted = self.workers.caught_up + count
        await self.watch_until(lambda: self.workers.caught_up >= wanted, "the store to be polled")


@pytest.fixture
def world() -> World:
    return World()


# ---- rows ----------------------------------------------------------------------------------------


def test_the_first_rows_are_the_table(world: World) -> None:
    world.store.rows = [row("one"), row("two")]
    change = world.feed.load()
    assert [placed.backend.id for placed in change.upserts] == ["one", "two"]
    assert world.feed.whole_table() == TableChanged(1, True, change.upserts, ())


def test_rows_that_cannot_be_read_at_first_are_an_error(world: World) -> None:
    world.store.error = StoreError("gone")
    with pytest.raises(StoreError, match="gone"):
        world.feed.load()


async def test_workers_are_told_what_an_edit_changed(world: World) -> None:
    world.store.rows = [row("one"), row("two")]
    one, two = world.feed.load().upserts
    world.store.rows = [row("two", weight=7), row("three")]
    await world.watch_until(lambda: world.workers.changes, "the edit to be published")
    (change,) = world.workers.changes
    assert (change.version, change.whole, change.removed_slots) == (2, False, (one.slot,))
    assert {placed.backend.id: placed.backend.weight for placed in change.upserts} == {"two": 7, "three": 1}
    assert two.slot in {placed.slot for placed in change.upserts}
    assert world.log.lines == []


async def test_nothing_is_published_without_an_edit(world: World) -> None:
    world.store.rows = [row("one")]
    world.feed.load()
    await world.polls()
    # Nor for one that changes nothing.
    world.store.rows = [dict(row("one"))]
    await world.polls()
    assert world.workers.changes == []
    assert world.log.lines == []


async def test_a_store_that_fails_is_told_once_and_once_more_when_it_is_back(world: World) -> None:
    world.feed.load()
    world.store.error = StoreError("is locked")
    await world.polls()
    assert world.log.lines == [
        ("warning", "the routing table cannot be read, keeping the last good one", {"why": "is locked"})
    ]
    world.store.error = None
    await world.polls()
    assert world.log.events()[1:] == ["the routing table can be read again"]


async def test_a_slot_is_free_once_its_row_is_gone_everywhere_and_its_connections_have_ended(
    world: World,
) -> None:
    world.store.rows = [row("one")]
    (one,) = world.feed.load().upserts
    world.connections[one.slot] = 1
    world.store.rows = []
    await world.watch_until(lambda: world.workers.changes, "the removal to be published")
    await world.polls()
    assert one.slot in world.feed.table.removed_slots
    world.workers.version = 2  # every worker has applied it, but a connection is still open
    await world.polls()
    assert one.slot in world.feed.table.removed_slots
    world.connections[one.slot] = 0
    await world.polls()
    assert not world.feed.table.removed_slots


def test_bad_rows_are_named_when_they_come_and_when_they_go(world: World) -> None:
    world.store.rows = [row("one", port=0), row("two")]
    log_issues(world.feed.load(), world.log)
    assert world.log.lines[0] == (
        "warning",
        "skipping a bad row",
        {
            "row": "backend 'one'",
            "column": "port",
            "value": "0",
            "why": "is not a whole number from 1 to 65535",
        },
    )
    change = world.feed.table.replace([row("two")])
    log_issues(change, world.log)
    assert world.log.lines[-1] == ("info", "a bad row is gone", {"row": "backend 'one'", "column": "port"})


def test_very_many_bad_rows_are_counted(world: World) -> None:
    world.store.rows = [row(f"bad-{number}", port=0) for number in range(10_000)]
    log_issues(world.feed.load(), world.log)
    assert world.log.events() == ["skipping a bad row"] * 20 + ["skipping more bad rows"]
    assert world.log.lines[-1][2] == {"problems": 9_980}
    log_issues(world.feed.table.replace([]), world.log)
    assert world.log.events()[21:] == ["a bad row is gone"] * 20 + ["more bad rows are gone"]
    assert world.log.lines[-1][2] == {"problems": 9_980}


def events(world: World, change: TableChange) -> list[tuple[str, str, dict[str, Any]]]:
    told = events_of(change, lambda slot: world.connections.get(slot, 0))
    return [(event.topic, event.name, dict(event.fields)) for event in told]


def test_a_change_is_an_event_that_counts_very_many_backends(world: World) -> None:
    world.store.rows = [row(f"backend-{number}") for number in range(1_000)]
    ((topic, event, fields),) = events(world, world.feed.load())
    assert (topic, event) == ("registry", "routing table changed")
    assert (len(fields["changed"]), fields["changed_total"]) == (20, 1_000)
    assert (fields["removed"], fields["removed_total"], fields["version"]) == ([], 0, 1)


def test_no_change_is_no_event(world: World) -> None:
    world.store.rows = [row("one"), row("bad", port=0)]
    world.feed.load()
    assert events(world, world.feed.table.replace([row("one")])) == []


def test_a_backend_that_takes_no_more_clients_is_told_with_the_connections_it_still_has(world: World) -> None:
    world.store.rows = [row("one"), row("two"), row("three")]
    world.feed.load()
    world.connections = {0: 7, 1: 3}
    told = events(world, world.feed.table.replace([row("one", healthy=0), row("three")]))
    assert told[1:] == [
        ("drain", "a backend takes no more clients", {"backend": "one", "connections": 7}),
        ("drain", "a backend takes no more clients", {"backend": "two", "connections": 3}),
    ]


async def test_changes_are_handed_on_after_the_workers_have_been_told(world: World) -> None:
    world.feed.load()
    world.store.rows = [row("one")]
    await world.watch_until(lambda: world.followed, "the change to be handed on")
    ((change, published),) = world.followed
    assert [placed.backend.id for placed in change.upserts] == ["one"]
    assert published == 1


# ---- names ---------------------------------------------------------------------------------------


async def test_a_host_has_addresses_once_its_name_is_resolved(world: World) -> None:
    world.store.rows = [row("one", wg_ip="one.test"), row("two", wg_ip="10.0.0.2"), row("three", wg_ip="::1")]
    world.feed.load()
    assert world.feed.addresses("one.test") == ()
    world.names["one.test"] = ("10.0.0.7", "10.0.0.8")
    await world.feed.resolve_names(world.workers, world.log)
    assert world.feed.addresses("one.test") == ("10.0.0.7", "10.0.0.8")
    assert world.feed.addresses("10.0.0.2") == ("10.0.0.2",)
    assert world.feed.addresses("::1") == ("::1",)


@pytest.mark.parametrize(
    ("host", "is_name"),
    [("one.example.org", True), ("localhost", True), ("10.0.0.1", False), ("fd00::1", False)],
)
def test_knows_names_from_addresses(world: World, host: str, is_name: bool) -> None:
    world.store.rows = [row("one", wg_ip=host)]
    world.feed.load()
    assert world.feed.has_names() is is_name


async def test_a_name_is_told_to_workers_when_its_addresses_change(world: World) -> None:
    world.store.rows = [row("one", wg_ip="one.test"), row("two", wg_ip="one.test"), row("three")]
    world.feed.load()
    for addresses in [("10.0.0.1",), ("10.0.0.1",), ("10.0.0.2", "10.0.0.1"), ("10.0.0.1", "10.0.0.2"), ()]:
        world.names["one.test"] = addresses
        await world.feed.resolve_names(world.workers, world.log)
    # Another order is no change, and a name that fails keeps what it had.
    assert [each.addresses for each in world.workers.hosts] == [("10.0.0.1",), ("10.0.0.2", "10.0.0.1")]
    assert world.feed.resolved_hosts() == [HostAddresses("one.test", ("10.0.0.2", "10.0.0.1"))]


async def test_a_name_without_addresses_is_told_once(world: World) -> None:
    world.store.rows = [row("one", wg_ip="one.test")]
    world.feed.load()
    await world.feed.resolve_names(world.workers, world.log)
    await world.feed.resolve_names(world.workers, world.log)
    assert world.log.lines == [
        ("warning", "a backend's host name does not resolve", {"host": "one.test"}),
    ]
    world.names["one.test"] = ("10.0.0.1",)
    await world.feed.resolve_names(world.workers, world.log)
    assert world.log.events()[1:] == ["resolved"]


async def test_a_name_that_no_backend_has_any_more_is_forgotten(world: World) -> None:
    world.store.rows = [row("one", wg_ip="one.test")]
    world.names["one.test"] = ("10.0.0.1",)
    world.feed.load()
    await world.feed.resolve_names(world.workers, world.log)
    world.feed.table.replace([])
    await world.feed.resolve_names(world.workers, world.log)
    assert world.feed.resolved_hosts() == []


async def test_a_name_that_comes_with_an_edit_is_looked_up_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_feed, "RESOLVE_INTERVAL_S", 1e6)
    world.names = {"one.test": ("10.0.0.1",), "two.test": ("10.0.0.2",)}
    world.store.rows = [row("one", wg_ip="one.test")]
    world.feed.load()
    names = asyncio.create_task(world.feed.watch_names(world.workers, world.log))
    try:
        await wait_until_async(lambda: len(world.workers.hosts) == 1, reason="the first name")
        world.store.rows = [row("one", wg_ip="one.test"), row("two", wg_ip="two.test")]
        await world.watch_until(lambda: len(world.workers.hosts) == 2, "the second name")
    finally:
        names.cancel()
    assert world.workers.hosts[1] == HostAddresses("two.test", ("10.0.0.2",))


async def test_names_are_looked_up_again_and_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_feed, "RESOLVE_INTERVAL_S", 0.001)
    world.names["one.test"] = ("10.0.0.1",)
    world.store.rows = [row("one", wg_ip="one.test")]
    world.feed.load()
    names = asyncio.create_task(world.feed.watch_names(world.workers, world.log))
    try:
        await wait_until_async(lambda: world.workers.hosts, reason="the first addresses")
        world.names["one.test"] = ("10.0.0.9",)
        await wait_until_async(lambda: len(world.workers.hosts) == 2, reason="the new addresses")
    finally:
        names.cancel()


async def test_a_name_server_that_hangs_delays_no_edit(world: World) -> None:
    async def hang(_name: str) -> tuple[str, ...]:
        await asyncio.Event().wait()
        raise AssertionError

    world.feed._resolve = hang
    world.store.rows = [row("one", wg_ip="one.test")]
    world.feed.load()
    names = asyncio.create_task(world.feed.watch_names(world.workers, world.log))
    try:
        for edits in (1, 2):
            world.store.rows = [row("one", wg_ip="one.test", weight=1 + edits)]
            await world.polls()
            assert len(world.workers.changes) == edits
    finally:
        names.cancel()


# ---- following at once ---------------------------------------------------------------------------


@pytest.fixture
async def slow_world(world: World) -> AsyncIterator[World]:
    """A feed that is watched and would poll in an hour."""
    world.feed._poll_interval_s = 3600.0
    world.feed.load()
    watching = asyncio.create_task(world.feed.watch(world.workers, world.log))
    await asyncio.sleep(0)
    yield world
    watching.cancel()


async def test_refresh_returns_when_the_table_holds_what_the_store_held(slow_world: World) -> None:
    slow_world.store.rows = [row("one")]
    await slow_world.feed.refresh()
    assert slow_world.feed.table.get("one") is not None
    assert len(slow_world.workers.changes) == 1
    slow_world.store.rows = []
    await slow_world.feed.refresh()
    assert slow_world.feed.table.get("one") is None


async def test_all_who_want_a_refresh_share_a_poll_and_one_may_give_up(slow_world: World) -> None:
    slow_world.store.rows = [row("one")]
    impatient, *patient = [asyncio.create_task(slow_world.feed.refresh()) for _ in range(5)]
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(*patient)
    assert impatient.cancelled()
    assert slow_world.workers.caught_up <= 1


async def test_refresh_returns_when_the_store_cannot_be_read(slow_world: World) -> None:
    slow_world.store.error = StoreError("is locked")
    await slow_world.feed.refresh()
    assert len(slow_world.log.lines) == 1


async def test_refresh_returns_when_nobody_watches_or_watching_ends(world: World) -> None:
    await world.feed.refresh()
    world.feed._poll_interval_s = 3600.0
    watching = asyncio.create_task(world.feed.watch(world.workers, world.log))
    await asyncio.sleep(0)
    refreshing = asyncio.create_task(world.feed.refresh())
    await asyncio.sleep(0)
    watching.cancel()
    await refreshing
