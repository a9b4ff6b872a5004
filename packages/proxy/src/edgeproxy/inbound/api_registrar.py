"""Keeps registrations: between the API's requests, the store, and the passing of time.

Requests that change something wait until the store has it and the routing table shows it. Those that
come while the store writes share its next transaction, so a thousand backends that register at once cost
some dozens of transactions and not a thousand. Heartbeats wait for nothing and are stored once a second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from time import time
from typing import Any, Final, Protocol

import msgspec

from edgeproxy.core.controlplane.lease_book import Due, Held, LeaseBook
from edgeproxy.core.controlplane.leases import (
    Outcome,
    adjustment,
    deregistration,
    heartbeat,
    registration,
)
from edgeproxy.core.controlplane.registry import Refusal
from edgeproxy.core.controlplane.routing_table import RoutingTable
from edgeproxy.core.geography import Geography
from edgeproxy.errors import EdgeproxyError, StoreError
from edgeproxy.inbound.api_shapes import RegisteredBackend
from edgeproxy.ports import Lease, LeaseOperation, LeaseStore, LeaseWrite, NotWritten

SWEEP_INTERVAL_S: Final = 1.0
"""How often what is due is written, at least: a lease is seen to have run out so much after its TTL."""
SWEEPS_IN_TTL: Final = 4
"""A short TTL is watched more closely."""

BATCH_MAX: Final = 512
"""Operations in one transaction, so that it is over long before other programs tire of waiting."""


class Table(Protocol):
    """The routing table, and a way to have it follow the store at once."""

    @property
    def table(self) -> RoutingTable: ...

    async def refresh(self) -> None:
        """Return when the table holds all that was in the store before the call, if that can be read."""
        ...


class Log(Protocol):
    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...


class RegistrationChange(StrEnum):
    """What became of a registration, for the metrics."""

    REGISTERED = "registered"
    DEREGISTERED = "deregistered"
    EXPIRED = "expired"
    """No heartbeat for the TTL: unhealthy."""
    REMOVED = "removed"
    """None for three times as long."""


class StoppingError(EdgeproxyError):
    """The proxy is about to end and changes nothing any more."""

    def __init__(self) -> None:
        super().__init__("this proxy is about to end")


class _Waiting(msgspec.Struct):
    """An operation of a request, and who waits for what becomes of it."""

    id: str
    operation: LeaseOperation[Refusal]
    written: Callable[[LeaseWrite], object]
    decided: asyncio.Future[LeaseWrite | Refusal | NotWritten]


class Registrar:
    """All registrations of this POP."""

    def __init__(
        self,
        store: LeaseStore,
        table: Table,
        geography: Geography,
        ttl_s: float,
        owner: str,
        log: Log,
        is_elsewhere: Callable[[str], bool] = lambda _owner: False,
    ) -> None:
        """See :class:`~edgeproxy.core.controlplane.lease_book.LeaseBook` for ``is_elsewhere``."""
        self._store = store
        self._table = table
        self._geography = geography
        self._owner = owner
        self._log = log
        self._book = LeaseBook(ttl_s, owner, is_elsewhere)
        self._table_version = -1
        self._waiting: list[_Waiting] = []
        self._deciding: list[_Waiting] = []
        self._anything_waits = asyncio.Event()
        # What the store says reaches the book in the order in which the store said it.
        self._storing = asyncio.Lock()
        self._failing = False
        self._stopped = False
        self.changes = Counter(dict.fromkeys(map(str, RegistrationChange), 0))
        """Since the start."""

    def __len__(self) -> int:
        """How many backends are registered."""
        return len(self._book)

    def change_ttl(self, ttl_s: float) -> None:
        """Go by another TTL from now on, also for leases that run."""
        self._book.ttl_s = ttl_s

    def leases_changed(self) -> None:
        """Others have written leases: take them up with the next sweep."""
        self._table_version = -1

    async def load(self) -> None:
        """Take up the leases that are in the store; they count from now."""
        async with self._storing:
            version = self._table.table.version
            try:
                stored = await asyncio.to_thread(self._store.leases)
            except StoreError as error:
                self._failed(error)
            else:
                self._book.replace(stored, _now_s())
                self._table_version = version

    async def run(self) -> None:
        """Work until cancelled; then store the heartbeats that are not yet, and refuse all changes."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._decide_forever())
                group.create_task(self._sweep_forever())
        finally:
            self._stopped = True
            for each in (*self._deciding, *self._waiting):
                if not each.decided.done():
                    each.decided.set_exception(StoppingError())
            await self._sweep()

    # ---- requests ----------------------------------------------------------------------------

    async def register(
        self, backend_id: str, values: Mapping[str, object], only_app: str | None
    ) -> LeaseWrite | Refusal | NotWritten:
        """Make or renew a registration. All methods that change something raise alike.

        Raises:
            StoreError: the store cannot be written now.
            StoppingError: the proxy is about to end.
        """
        is_new = self._book.get(backend_id) is None
        operation = registration(
            self._geography, backend_id, values, at_s=time(), owner=self._owner, only_app=only_app
        )
        outcome = await self._decide(backend_id, operation, self._renew)
        if isinstance(outcome, LeaseWrite) and is_new:
            address = f"{values['wg_ip']}:{values['port']}"
            self.changes[RegistrationChange.REGISTERED] += 1
            self._log.info("a backend registered", backend=backend_id, app=values["app"], address=address)
        return outcome

    async def beat(self, backend_id: str, only_app: str | None) -> LeaseWrite | Refusal | NotWritten | None:
        """Take a heartbeat; ``None`` is the usual outcome, which needed no look at the store."""
        placed = self._table.table.get(backend_id)
        is_quick = placed is not None and only_app in (None, placed.backend.app)
        if is_quick and self._book.beat(backend_id, _now_s()):
            return None
        operation = heartbeat(backend_id, at_s=time(), owner=self._owner, only_app=only_app)
        return await self._decide(backend_id, operation, self._renew)

    async def deregister(self, backend_id: str, only_app: str | None) -> LeaseWrite | Refusal | NotWritten:
        """End a registration."""
        operation = deregistration(backend_id, only_app=only_app)
        outcome = await self._decide(backend_id, operation, lambda write: self._book.drop(write.id))
        if isinstance(outcome, LeaseWrite):
            self.changes[RegistrationChange.DEREGISTERED] += 1
            self._log.info("a backend deregistered", backend=backend_id)
        return outcome

    async def adjust(
        self, backend_id: str, values: Mapping[str, object]
    ) -> LeaseWrite | Refusal | NotWritten:
        """Change a backend as the operator wishes."""
        operation = adjustment(self._geography, backend_id, values)
        outcome = await self._decide(backend_id, operation, lambda _write: None)
        if isinstance(outcome, LeaseWrite):
            self._log.info("a backend was changed over the API", backend=backend_id, **values)
        return outcome

    def backends(self) -> list[RegisteredBackend]:
        """All that are registered and whose rows can be used."""
        seen = (self._seen(held) for held in self._book.held())
        return [backend for backend in seen if backend is not None]

    def backend(self, backend_id: str) -> RegisteredBackend | None:
        """One of them."""
        held = self._book.get(backend_id)
        return None if held is None else self._seen(held)

    def _seen(self, held: Held) -> RegisteredBackend | None:
        placed = self._table.table.get(held.id)
        if placed is None:
            return None
        backend, now_s = placed.backend, _now_s()
        return RegisteredBackend(
            id=backend.id,
            app=backend.app,
            region=backend.region,
            ip=backend.host,
            port=backend.port,
            healthy=backend.healthy and self._book.is_current(held, now_s),
            last_heartbeat_secs=int(now_s - held.heard_s),
            registered_secs=max(0, int(time() - held.registered_at_s)),
        )

    def _renew(self, write: LeaseWrite) -> None:
        assert write.lease is not None
        self._book.put(write.lease, _now_s())

    # ---- the store ---------------------------------------------------------------------------

    async def _decide(
        self, backend_id: str, operation: LeaseOperation[Refusal], written: Callable[[LeaseWrite], object]
    ) -> LeaseWrite | Refusal | NotWritten:
        if self._stopped:
            raise StoppingError
        waiting = _Waiting(backend_id, operation, written, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._anything_waits.set()
        outcome = await waiting.decided
        if isinstance(outcome, LeaseWrite) and outcome.row is not None:
            await self._table.refresh()
        return outcome

    async def _decide_forever(self) -> None:
        while True:
            await self._anything_waits.wait()
            async with self._storing:
                self._deciding, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
                if not self._waiting:
                    self._anything_waits.clear()
                await self._decide_batch(self._deciding)

    async def _decide_batch(self, batch: Sequence[_Waiting]) -> None:
        operations = [(each.id, each.operation) for each in batch]
        try:
            outcomes = await asyncio.to_thread(self._store.apply, operations)
        except StoreError as error:
            self._failed(error)
            for each in batch:
                if not each.decided.done():
                    each.decided.set_exception(error)
            return
        self._failing = False
        for each, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, LeaseWrite):
                each.written(outcome)
            if not each.decided.done():
                each.decided.set_result(outcome)

    # ---- time --------------------------------------------------------------------------------

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_INTERVAL_S, self._book.ttl_s / SWEEPS_IN_TTL))
            if self._table.table.version != self._table_version:
                # Somebody may have put another file in place, with other leases in it.
                await self.load()
            if await self._sweep():
                await self._table.refresh()

    async def _sweep(self) -> bool:
        """Write what is due; return whether that changed a row."""
        async with self._storing:
            due = self._book.due(_now_s(), time())
            changed = False
            for first in range(0, len(due), BATCH_MAX):
                batch = due[first : first + BATCH_MAX]
                try:
                    outcomes = await asyncio.to_thread(self._write_due, batch)
                except StoreError as error:
                    self._failed(error)
                    break
                self._failing = False
                for each, outcome in zip(batch, outcomes, strict=True):
                    if not isinstance(outcome, NotWritten):
                        self._book.take(each, outcome, _now_s())
                    changed |= isinstance(outcome, LeaseWrite) and outcome.row is not None
                    self._tell(each, outcome)
            return changed

    def _write_due(self, due: Sequence[Due]) -> Sequence[Outcome | NotWritten]:
        return self._store.apply([(each.id, each.operation) for each in due])

    def _tell(self, due: Due, outcome: Outcome | NotWritten) -> None:
        match outcome:
            case LeaseWrite(lease=None):
                self.changes[RegistrationChange.REMOVED] += 1
                self._log.warning("no heartbeat for three times the TTL, backend removed", backend=due.id)
            case LeaseWrite(lease=Lease(expired=True)):
                self.changes[RegistrationChange.EXPIRED] += 1
                self._log.warning("no heartbeat for the TTL, backend unhealthy", backend=due.id)
            case NotWritten(why):
                self._log.warning("the store refuses a change of a lease", backend=due.id, why=why)

    def _failed(self, error: StoreError) -> None:
        if not self._failing:
            self._failing = True
            self._log.warning("registrations cannot be stored, trying again", why=str(error))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
