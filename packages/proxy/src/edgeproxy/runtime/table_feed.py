"""From the store to the workers: watches the rows, publishes what changed, resolves host names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from edgeproxy.core.controlplane.events import Event, Topic
from edgeproxy.core.controlplane.routing_table import RoutingTable, TableChange
from edgeproxy.core.wire.frames import HostAddresses, TableChanged
from edgeproxy.errors import StoreError
from edgeproxy.ports import RowStore

if TYPE_CHECKING:
    from edgeproxy.runtime.logs import Logger

POLL_INTERVAL_S = 0.5
"""An edit is seen within a second: at most one interval, and the time to read and publish it."""

RESOLVE_INTERVAL_S = 10.0
"""How often the names of backends are looked up again."""

_TOLD_AT_ONCE = 20
"""So many bad rows or changed backends are named, the others counted: a table may have 65,536."""


class Workers(Protocol):
    """Who must hear of changes."""

    def publish(self, news: TableChanged | HostAddresses) -> None: ...

    def catch_up(self) -> None: ...

    def applied_version(self) -> int: ...


class TableFeed:
    """Keeps the workers' table equal to the store's rows.

    When the store cannot be read the last good table stays in force; that is said once, and once more
    when it can be read again.
    """

    def __init__(
        self,
        store: RowStore,
        table: RoutingTable,
        resolve: Callable[[str], Awaitable[tuple[str, ...]]],
        connections: Callable[[int], int],
        poll_interval_s: float,
        on_change: Callable[[TableChange], None] = lambda _change: None,
    ) -> None:
        """``on_change`` hears of each change of the rows but the first, when workers have been told."""
        self._store = store
        self._resolve = resolve
        self._connections = connections
        self._on_change = on_change
        self.change_interval(poll_interval_s)
        self._hosts: dict[str, tuple[str, ...]] = {}
        self._names_changed = asyncio.Event()
        self._failing = False
        self.failures = 0
        """Times that the store became unreadable."""
        self._watching = False
        self._poll_wanted = asyncio.Event()
        self._following = asyncio.Lock()
        self._next_poll: asyncio.Future[None] | None = None
        self.table = table
        self.read_at_s = monotonic()
        """When the table was last known to be that of the store."""

    def change_interval(self, poll_interval_s: float) -> None:
        """Look at the store so often from now on, and at least every :data:`POLL_INTERVAL_S`."""
        self._poll_interval_s = min(poll_interval_s, POLL_INTERVAL_S)

    @property
    def is_failing(self) -> bool:
        """Whether the store could not be read the last time."""
        return self._failing

    def load(self) -> TableChange:
        """Read the rows for the first time.

        Raises:
            StoreError: they cannot be read; at the start that is the end.
        """
        return self.table.replace(self._store.poll() or ())

    # ---- what a new worker starts from -------------------------------------------------------

    def whole_table(self) -> TableChanged:
        return TableChanged(self.table.version, whole=True, upserts=self.table.snapshot(), removed_slots=())

    def resolved_hosts(self) -> Sequence[HostAddresses]:
        return [HostAddresses(host, addresses) for host, addresses in self._hosts.items()]

    # ---- while running -----------------------------------------------------------------------

    def addresses(self, host: str) -> tuple[str, ...]:
        """The numeric addresses of a backend's host; none while a name does not resolve."""
        return self._hosts.get(host, ()) if _is_name(host) else (host,)

    async def watch(self, workers: Workers, log: Logger) -> None:
        """Follow the store until cancelled."""
        self._watching = True
        try:
            while True:
                # Not wait_for(), which in Python 3.11 forgets that it was cancelled when the event came, too.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_interval_s):
                        await self._poll_wanted.wait()
                self._poll_wanted.clear()
                wanted, self._next_poll = self._next_poll, None
                try:
                    async with self._following:
                        await self._poll(workers, log)
                        workers.catch_up()
                        self._release_slots(workers)
                finally:
                    _settle(wanted)
        finally:
            self._watching = False
            _settle(self._next_poll)

    def paused(self) -> asyncio.Lock:
        """A context in which the table stays as it is, so that a successor can build on it."""
        return self._following

    def poll_soon(self) -> None:
        """Poll before the interval is over, because there is something to be seen."""
        self._poll_wanted.set()

    async def refresh(self) -> None:
        """Return when the table holds all that was in the store before the call, if that can be read.

        While nobody watches the store, this returns at once.
        """
        if not self._watching:
            return
        if self._next_poll is None:
            self._next_poll = asyncio.get_running_loop().create_future()
            self._poll_wanted.set()
        # Others wait for the same poll, and one that gives up must not take it from them.
        await asyncio.shield(self._next_poll)

    async def watch_names(self, workers: Workers, log: Logger) -> None:
        """Look names up again and again, and at once when the table has changed, until cancelled.

        Apart from :meth:`watch`, because a name server may take longer to answer than an edit to be seen.
        """
        while True:
            self._names_changed.clear()
            await self.resolve_names(workers, log)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESOLVE_INTERVAL_S):
                    await self._names_changed.wait()

    def has_names(self) -> bool:
        """Whether a backend goes by a host name."""
        return bool(self._names())

    async def resolve_names(self, workers: Workers, log: Logger) -> None:
        """Tell the workers what the backends' host names mean now. A name that fails keeps its addresses."""
        names = self._names()
        for gone in self._hosts.keys() - names:
            del self._hosts[gone]
        await asyncio.gather(*(self._resolve_name(name, workers, log) for name in sorted(names)))

    async def _resolve_name(self, name: str, workers: Workers, log: Logger) -> None:
        addresses = await self._resolve(name)
        known = self._hosts.get(name)
        if not addresses:
            if known is None:
                self._hosts[name] = ()
                log.warning("a backend's host name does not resolve", host=name)
        elif known is None or set(addresses) != set(known):
            self._hosts[name] = addresses
            workers.publish(HostAddresses(name, addresses))
            log.info("resolved", host=name, addresses=list(addresses))

    def _names(self) -> set[str]:
        return {placed.backend.host for placed in self.table.snapshot() if _is_name(placed.backend.host)}

    async def _poll(self, workers: Workers, log: Logger) -> None:
        try:
            rows = await asyncio.to_thread(self._store.poll)
        except StoreError as error:
            if not self._failing:
                self._failing = True
                self.failures += 1
                log.warning("the routing table cannot be read, keeping the last good one", why=str(error))
            return
        self.read_at_s = monotonic()
        if self._failing:
            self._failing = False
            log.info("the routing table can be read again")
        if rows is None:
            return
        change = self.table.replace(rows)
        log_issues(change, log)
        if change.alters_routing:
            removed = tuple(placed.slot for placed in change.removed)
            workers.publish(
                TableChanged(change.version, whole=False, upserts=change.upserts, removed_slots=removed)
            )
            self._names_changed.set()
            self._on_change(change)

    def _release_slots(self, workers: Workers) -> None:
        """Let slots be used again whose backend is gone from every worker, with all its connections."""
        if self.table.removed_slots and workers.applied_version() == self.table.version:
            for slot in self.table.removed_slots:
                if not self._connections(slot):
                    self.table.release(slot)


def log_issues(change: TableChange, log: Logger) -> None:
    """Name bad rows that came or went, one by one as far as anybody reads that many."""
    for issue in change.issues[:_TOLD_AT_ONCE]:
        log.warning(
            "skipping a bad row", row=issue.row, column=issue.column, value=issue.value, why=issue.problem
        )
    if (untold := len(change.issues) - _TOLD_AT_ONCE) > 0:
        log.warning("skipping more bad rows", problems=untold)
    for issue in change.resolved[:_TOLD_AT_ONCE]:
        log.info("a bad row is gone", row=issue.row, column=issue.column)
    if (untold := len(change.resolved) - _TOLD_AT_ONCE) > 0:
        log.info("more bad rows are gone", problems=untold)


def events_of(change: TableChange, connections: Callable[[int], int]) -> Iterator[Event]:
    """What a change of the rows means for routing; ``connections`` gives a slot's open ones."""
    if change.alters_routing:
        fields = {
            "version": change.version,
            "changed": [placed.backend.id for placed in change.upserts[:_TOLD_AT_ONCE]],
            "removed": [placed.backend.id for placed in change.removed[:_TOLD_AT_ONCE]],
            "changed_total": len(change.upserts),
            "removed_total": len(change.removed),
        }
        yield Event(Topic.REGISTRY, "routing table changed", fields)
    for placed in (*change.drained, *change.removed)[:_TOLD_AT_ONCE]:
        drain = {"backend": placed.backend.id, "connections": connections(placed.slot)}
        yield Event(Topic.DRAIN, "a backend takes no more clients", drain)


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None:
        future.set_result(None)


def _is_name(host: str) -> bool:
    return ":" not in host and not host.replace(".", "").isdigit()
