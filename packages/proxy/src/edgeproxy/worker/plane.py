"""The data plane of one worker: everything a connection needs, put together."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from itertools import islice
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.admission import Admission
from edgeproxy.core.dataplane.affinity import renewal_interval
from edgeproxy.core.dataplane.backend_rules import BackendRules
from edgeproxy.core.dataplane.caps import Door, Place
from edgeproxy.core.dataplane.client import identify
from edgeproxy.core.dataplane.dispatch import Dispatcher
from edgeproxy.core.dataplane.listening import Listening, Networks, ServerNames
from edgeproxy.core.dataplane.rate_limit import client_tag
from edgeproxy.core.dataplane.retry_budget import RetryBudget
from edgeproxy.core.dataplane.selection import Selection
from edgeproxy.core.dataplane.session import CloseReason, Event
from edgeproxy.core.model import Client
from edgeproxy.core.wire.frames import (
    ListConnections,
    Notice,
    OpenConnections,
    Start,
    TableChanged,
    TlsSettings,
)
from edgeproxy.ports import CountryLookup
from edgeproxy.worker.census import Census
from edgeproxy.worker.connection import Connection
from edgeproxy.worker.ledger import Ledger
from edgeproxy.worker.listener import Listener, set_reset_on_close
from edgeproxy.worker.loop import Deadlines, Loop
from edgeproxy.worker.relay_splice import relay_for
from edgeproxy.worker.shared_state import SharedState
from edgeproxy.worker.targets import Targets
from edgeproxy.worker.waiting_room import WaitingRoom
from edgeproxy.worker.warm import WarmKeeper

if TYPE_CHECKING:
    from edgeproxy.worker.kernel_maps import KernelMaps
    from edgeproxy.worker.tls import WorkerTls

_NOTICE_INTERVAL_S = 10.0
_PEERS_REMEMBERED = 4096
"""Clients come back, and where each is takes 3 to 10 µs to find out; at 300 bytes each."""
_DEFECTS_TOLD = 32
"""Distinct defects told to the log; beyond that many the log has enough to go by."""


class Plane:
    """Accepts clients and gives each a connection of its own until :meth:`drain`."""

    def __init__(
        self,
        loop: Loop,
        settings: Start,
        geo: CountryLookup,
        state: SharedState,
        notify: Callable[[Notice], None],
        report_soon: Callable[[], None],
        maps: KernelMaps | None = None,
    ) -> None:
        """``report_soon`` is called when the settings want outcomes watched and a backend has failed.

        With ``maps`` the kernel relays chatty connections.
        """
        self.loop = loop
        self._geo = geo
        self._who = lru_cache(_PEERS_REMEMBERED)(self._look_up)
        self.relay = relay_for(settings.relay, loop, maps, settings.promote_after_turns)
        self.targets = Targets()
        self.ledger = Ledger(settings.access_log_every, report_soon if settings.watch_outcomes else None)
        self._selection = Selection(settings.pop_region, settings.panic_threshold)
        self.dispatcher = Dispatcher(
            settings.pop_region, settings.binding_ttl_s, self._selection, state, state
        )
        self.openings: Deadlines[Connection] = loop.deadlines(
            settings.opening_timeout_s, Connection.opening_timed_out
        )
        self.connects: Deadlines[Connection] = loop.deadlines(
            settings.connect_timeout_s, Connection.connect_timed_out
        )
        self.tls = self._tls(settings.tls)
        """``None`` when neither listeners nor backends need it."""
        self.retries = RetryBudget(settings.retry_budget_percent)
        self.looks: Deadlines[Connection] = loop.deadlines(_look_interval_s(settings), Connection.look)
        self.waiting_room = WaitingRoom(loop, settings.queue, state.queue, self.contain)
        self._warm_counts = state.warm
        self.warm: WarmKeeper | None = None
        """Connections kept ready; ``None`` when none are to be."""
        self.door = Door(settings.caps, state.places, state.secret)
        self._buckets = state.clients
        self._secret = state.secret
        self._region_by_country = settings.region_by_country
        self._backends: dict[int, PlacedBackend] = {}
        self._connections: set[Connection] = set()
        self._listenings = settings.listeners
        self._listeners: list[Listener] = []
        self._notify = notify
        self._overload_told_s = -inf
        self._not_secured_told_s: dict[str, float] = {}
        """When that was last said, by backend id."""
        self._defects_told: set[str] = set()
        self._on_idle: Callable[[], None] | None = None
        self._follow(settings)

    def change_settings(self, settings: Start) -> None:
        """Go by these from now on, but for what is bound to sockets, memory and this worker's life."""
        self.openings.duration_s = settings.opening_timeout_s
        self.connects.duration_s = settings.connect_timeout_s
        self.looks.duration_s = _look_interval_s(settings)
        self.dispatcher.binding_ttl_s = settings.binding_ttl_s
        self.retries.percent = settings.retry_budget_percent
        self.ledger.log_each(settings.access_log_every)
        self._selection.set_panic_threshold(settings.panic_threshold)
        self.door.caps = settings.caps
        self.waiting_room.change_terms(settings.queue)
        if settings.tls is not None:
            self.change_tls(settings.tls)
        self._follow(settings)

    def change_tls(self, settings: TlsSettings) -> None:
        """Do TLS like this from now on."""
        if self.tls is None:
            self.tls = self._tls(settings)
        else:
            self.tls.change(settings)

    def _follow(self, settings: Start) -> None:
        self.lifetimes = settings.lifetimes
        self.server_names = ServerNames(settings.app_by_server_name)
        self.networks_trusted = Networks(settings.proxy_protocol_trusted)
        self.backend_rules = BackendRules(settings.backend_rules) if settings.backend_rules else None
        self._admission = None if settings.access.is_empty else Admission(settings.access)
        self._keep_warm(settings)
        self._rate_limit = settings.rate_limit
        self._is_guarded = self._admission is not None or self._rate_limit is not None
        self._is_capped = not settings.caps.is_empty

    def _keep_warm(self, settings: Start) -> None:
        terms = settings.warm
        if self.warm is not None:
            if terms is not None:
                self.warm.change_terms(terms, settings.connect_timeout_s)
            else:
                self.warm.close()
                self.warm = None
        elif terms is not None and self._on_idle is None:
            self.warm = WarmKeeper(
                self.loop,
                terms,
                self.targets,
                self._warm_counts,
                self._backends.get,
                settings.connect_timeout_s,
                self.contain,
            )

    def _tls(self, settings: TlsSettings | None) -> WorkerTls | None:
        if settings is None:
            return None
        # OpenSSL is loaded only by those who need it.
        from edgeproxy.worker.tls import WorkerTls

        return WorkerTls(self.loop, self.relay, settings, self.contain, self._stop_if_idle)

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept clients from bound, listening sockets, one for each listener of the settings."""
        self._listeners = [
            Listener(sock, self.loop, partial(self._accepted, listening), self._shed)
            for sock, listening in zip(sockets, self._listenings, strict=True)
        ]

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def use_countries(self, geo: CountryLookup) -> None:
        """Look countries up here from now on."""
        self._geo = geo
        self._who.cache_clear()

    def locate(self, address: str) -> Client:
        """Who is at ``address``, which is normalised."""
        country = self._geo.country(address)
        return Client(address, country, self._region_by_country.get(country, ""))

    def _look_up(self, peer_address: str) -> tuple[Client, int]:
        """Who is at ``peer_address``, and the network that affinity remembers it by."""
        address, network = identify(peer_address)
        return self.locate(address), network

    def objection(self, client: Client, network: int) -> Event | None:
        """What forbids ``client`` one more connection; when nothing does, it is counted against his rate."""
        if self._admission is not None and not self._admission.admits(client):
            return Event.DENIED  # feature: admission.lists
        limit = self._rate_limit
        if limit is not None and not self._buckets.take(
            limit, client_tag(self._secret, network), self.loop.now_s
        ):
            return Event.RATE_LIMITED  # feature: admission.rate_limit
        return None

    def change_table(self, change: TableChanged) -> None:
        """Route by these rows from now on; open connections stay where they are."""
        removed: Collection[int] = change.removed_slots
        if change.whole:
            removed = self._backends.keys() - {placed.slot for placed in change.upserts}
        for slot in removed:
            self.dispatcher.discard(slot)
            if self.warm is not None:
                self.warm.drop(slot)
            if (placed := self._backends.pop(slot, None)) is not None:
                self.targets.forget(placed.backend)
                self._not_secured_told_s.pop(placed.backend.id, None)
        for placed in change.upserts:
            if (previous := self._backends.get(placed.slot)) is not None:
                self.targets.forget(previous.backend)
            self._backends[placed.slot] = placed
            self.dispatcher.put(placed.slot, placed.backend, placed.verdict)
            if self.warm is not None:
                self.warm.follow(placed)

    def resolved(self, host: str, addresses: tuple[str, ...]) -> None:
        """The name of backends means these addresses from now on."""
        self.targets.resolve(host, addresses)
        if self.warm is not None:
            self.warm.resolved(host, addresses)

    def drain(self, on_idle: Callable[[], None]) -> None:
        """Accept nobody any more, and call ``on_idle`` when the last connection is gone."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self.warm is not None:
            self.warm.close()
        self._on_idle = on_idle
        self._stop_if_idle()

    def list_connections(self, question: ListConnections, answer: Callable[[OpenConnections], None]) -> None:
        """Find the connections that are asked for, and call ``answer`` with them some turns later."""
        Census(self.loop, list(self._connections), question, answer)

    def reset_all(self) -> int:
        """End every connection now; return how many there were."""
        if self.tls is not None:
            self.tls.farewells.cut_short()
        return self.reset(len(self._connections))

    def reset(self, count: int) -> int:
        """End so many connections now, or all there are; return how many that was."""
        connections = list(islice(self._connections, count))
        for connection in connections:
            connection.shut_down()
        return len(connections)

    def closed(self, connection: Connection) -> None:
        """``connection`` is over."""
        self._connections.discard(connection)
        if self.waiting_room.is_open:
            self.waiting_room.place_is_free()
        self._stop_if_idle()

    def _stop_if_idle(self) -> None:
        if self._on_idle is None or self._connections:
            return
        if self.tls is None or self.tls.farewells.are_over:
            self._on_idle()

    def contain(self, culprit: object, error: Exception) -> None:
        """End the connection that ``culprit`` belongs to; for :class:`~edgeproxy.worker.loop.Loop`.

        What belongs to none, or fails while it is ending, ends the process: only its successor, whose
        leases are cleared, starts from a state that is known to be whole.
        """
        connection = getattr(culprit, "owner", culprit)  # a side of the relay has one while it is open
        if not (isinstance(connection, Connection) and connection.abandon()):
            raise error
        self._tell_defect(error)

    def overloaded(self) -> None:
        """No descriptor was left; said at most once in ten seconds, however many clients are turned away."""
        if self.warm is not None:
            self.warm.give_way()
        if self.loop.now_s >= self._overload_told_s + _NOTICE_INTERVAL_S:
            self._overload_told_s = self.loop.now_s
            self._notify(
                Notice(
                    "error",
                    "out of file descriptors, turning new clients away: raise the limit of open files",
                    {"connections": len(self._connections)},
                )
            )

    def backend_not_secured(self, backend_id: str, why: str) -> None:
        """TLS with a backend did not come about; said at most once in ten seconds for each."""
        now_s = self.loop.now_s
        if now_s >= self._not_secured_told_s.get(backend_id, -inf) + _NOTICE_INTERVAL_S:
            self._not_secured_told_s[backend_id] = now_s
            self._notify(Notice("warning", "no TLS with a backend", {"backend": backend_id, "why": why}))

    def _shed(self) -> None:
        self.ledger.shed(CloseReason.OVERLOAD)
        self.overloaded()

    def _accepted(self, listening: Listening, sock: socket.socket, peer_address: str) -> None:
        place: Place | None = None
        objection: Event | CloseReason | None = None
        try:
            client, network = self._who(peer_address)
            if self._is_guarded:
                objection = self._objection_to_peer(listening, client, network)
            if objection is None and self._is_capped:
                place, objection = self._enter(listening, client, network)
            if objection is not None:
                set_reset_on_close(sock)
                sock.close()
                self.ledger.shed(objection)
                return
            connection = Connection(self, sock, client, network, listening)
        except Exception as error:  # noqa: BLE001
            if place is not None:
                self.door.leave(place)
            set_reset_on_close(sock)
            sock.close()
            self.ledger.shed(CloseReason.INTERNAL)
            self._tell_defect(error)
            return
        connection.place = place
        self._connections.add(connection)
        self.retries.came(self.loop.now_s)
        try:
            connection.start(listening)
        except Exception as error:  # noqa: BLE001
            self.contain(connection, error)

    def _speaks_for_others(self, listening: Listening, peer: Client) -> bool:
        """Who does is not judged himself; they are, when his PROXY header has come."""
        return listening.proxy_protocol and self.networks_trusted.hold(peer.address)

    def _objection_to_peer(self, listening: Listening, peer: Client, network: int) -> Event | None:
        if self._speaks_for_others(listening, peer):
            return None
        return self.objection(peer, network)

    def _enter(
        self, listening: Listening, peer: Client, network: int
    ) -> tuple[Place | None, CloseReason | None]:
        entered = self.door.enter(None if self._speaks_for_others(listening, peer) else network)
        return (entered, None) if isinstance(entered, Place) else (None, entered)

    def _tell_defect(self, error: Exception) -> None:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno} in {place.name}"
        what = f"{type(error).__name__} at {where}"
        if what not in self._defects_told and len(self._defects_told) < _DEFECTS_TOLD:
            self._defects_told.add(what)
            self._notify(
                Notice("error", "a defect ended a connection", {"what": what, "message": str(error)})
            )


def _look_interval_s(settings: Start) -> float:
    """How often each open connection is looked at: for its limits, and to renew its client's binding."""
    return min(settings.lifetimes.look_interval_s, renewal_interval(settings.binding_ttl_s))
