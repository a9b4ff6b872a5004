"""One look at the whole POP: what metrics, the status page and ``edgeproxy ctl`` show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.controlplane.traffic import TrafficRow, TrafficTotals
from edgeproxy.core.dataplane.connects import Connects
from edgeproxy.core.dataplane.dispatch import Refusal
from edgeproxy.core.dataplane.selection import has_room
from edgeproxy.core.dataplane.session import CloseReason
from edgeproxy.core.dataplane.times import Times


class BackendState(StrEnum):
    """What keeps a backend from being given clients, if anything does."""

    READY = "ready"
    FULL = "full"
    """At its ``hard_limit``."""
    EJECTED = "ejected"
    """This POP's own verdict."""
    DOWN = "down"
    """The operator's word, or the registration's: ``healthy = 0``."""
    GONE = "gone"
    """No longer in the table; connections may still be open."""


class BackendView(msgspec.Struct):
    """One backend and its traffic since the start."""

    id: str
    state: BackendState
    app: str = ""
    region: str = ""
    country: str = ""
    address: str = ""
    weight: int = 0
    soft_limit: int = 0
    hard_limit: int = 0
    connections: int = 0
    """Places taken at this moment, those of connects under way among them: what selection goes by."""
    warm: int = 0
    """Connections that are ready, or nearly so, and that no client has; not counted among the others."""
    opened: int = 0
    """This and the rest come with the workers' reports, a fraction of a second later."""
    active: int = 0
    bytes_received: int = 0
    """From clients. Counted when a connection ends, as is ``bytes_sent``."""
    bytes_sent: int = 0
    errors: int = 0
    """Connects that failed."""
    connects: Connects = msgspec.field(default_factory=Connects)


class CountryView(msgspec.Struct):
    """Traffic with the clients of one country since the start."""

    country: str
    """``""`` for clients of whom that is not known."""
    opened: int = 0
    active: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0


class Overview(msgspec.Struct, kw_only=True):
    """The POP at one moment."""

    version: str
    node: str
    region: str
    started_at_s: float
    """Wall time."""
    uptime_s: float
    workers: int
    worker_restarts: int
    worker_troubles: Mapping[str, int] = {}
    """What went wrong between the control process and its workers, by kind."""
    table_version: int
    table_age_s: float
    """Since the table was last known to be that of the store."""
    bad_rows: int
    clients: int
    """Connections of clients since the start; see :attr:`TrafficTotals.clients`."""
    closes: Mapping[str, int]
    """By close reason."""
    backends: list[BackendView]
    countries: list[CountryView]
    dns: dict[str, Any] | None
    """What the DNS server counts, ``None`` without one."""
    max_connections: int = 0
    """The cap on all connections of clients, 0 for none."""
    max_connections_per_client: int = 0
    capped_connections: int = 0
    """Connections that count towards the first: those accepted since there is one."""
    waiting: int = 0
    """Clients in the queue."""
    queue_limit: int = 0
    waits: Times = msgspec.field(default_factory=Times)
    """In the queue, of those clients that got a backend."""
    kernel_workers: int = 0
    """Workers that have the kernel relay chatty connections."""
    kernel_connections: int = 0
    """Those that it relays at this moment."""
    kernel_promotions: int = 0
    """Those that it took over since the start."""

    @property
    def refused(self) -> int:
        """Clients that were given no backend."""
        return sum(self.closes.get(reason, 0) for reason in _REFUSED)


_REFUSED = (*Refusal, CloseReason.QUEUE_FULL, CloseReason.QUEUE_TIMEOUT)


def backend_views(
    table: Iterable[PlacedBackend],
    connections: Callable[[int], int],
    traffic: TrafficTotals,
    warm: Callable[[int], int] = lambda _slot: 0,
) -> list[BackendView]:
    """Every backend of the table, and those that are gone but had traffic, ordered by id."""
    views = {
        placed.backend.id: _view(placed, connections(placed.slot), warm(placed.slot)) for placed in table
    }

    def view_of(backend: str) -> BackendView:
        return views.setdefault(backend, BackendView(backend, BackendState.GONE))

    for row in traffic.rows():
        _add(view_of(row.backend), row)
    for backend, errors in traffic.connect_errors.items():
        view_of(backend).errors = errors
    for backend, connects in traffic.connects.items():
        view_of(backend).connects = connects
    return [views[backend] for backend in sorted(views)]


def country_views(traffic: TrafficTotals) -> list[CountryView]:
    """The traffic by country, most connections first."""
    views: dict[str, CountryView] = {}
    for row in traffic.rows():
        _add(views.setdefault(row.country, CountryView(row.country)), row)
    return sorted(views.values(), key=lambda view: (-view.opened, view.country))


def _view(placed: PlacedBackend, connections: int, warm: int) -> BackendView:
    backend = placed.backend
    host = f"[{backend.host}]" if ":" in backend.host else backend.host
    return BackendView(
        id=backend.id,
        state=_state(placed, connections),
        app=backend.app,
        region=backend.region,
        country=backend.country,
        address=f"{host}:{backend.port}",
        weight=backend.weight,
        soft_limit=backend.soft_limit,
        hard_limit=backend.hard_limit,
        connections=connections,
        warm=warm,
    )


def _state(placed: PlacedBackend, connections: int) -> BackendState:
    if not placed.backend.healthy:
        return BackendState.DOWN
    if not placed.verdict.is_good:
        return BackendState.EJECTED
    return BackendState.READY if has_room(placed.backend, connections) else BackendState.FULL


def _add(view: BackendView | CountryView, row: TrafficRow) -> None:
    view.opened += row.opened
    view.active += row.active
    view.bytes_received += row.bytes_received
    view.bytes_sent += row.bytes_sent
