"""The data plane of one worker: everything a connection needs, put together."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.affinity import renewal_interval
from edgeproxy.core.dataplane.dispatch import Bindings, Dispatcher, Leases
from edgeproxy.core.dataplane.selection import Selection
from edgeproxy.core.dataplane.session import CloseReason
from edgeproxy.core.model import Client
from edgeproxy.core.wire.frames import Notice, Start, TableChanged
from edgeproxy.ports import CountryLookup
from edgeproxy.worker.connection import Connection
from edgeproxy.worker.ledger import Ledger
from edgeproxy.worker.listener import Listener
from edgeproxy.worker.loop import Deadlines, Loop
from edgeproxy.worker.relay_copy import CopyRelay
from edgeproxy.worker.targets import Targets


class Plane:
    """Accepts clients and gives each a connection of its own until :meth:`drain`."""

    def __init__(
        self,
        loop: Loop,
        settings: Start,
        geo: CountryLookup,
        bindings: Bindings,
        leases: Leases,
        notify: Callable[[Notice], None],
    ) -> None:
        self.loop = loop
        self.app = settings.app
        self.geo = geo
        """Replaced when the country database changes."""
        self.relay = CopyRelay(loop)
        self.targets = Targets()
        self.ledger = Ledger(settings.access_log_every)
        self.dispatcher = Dispatcher(
            settings.pop_region, settings.binding_ttl_s, Selection(settings.pop_region), bindings, leases
        )
        self.connects: Deadlines[Connection] = loop.deadlines(
            settings.connect_timeout_s, Connection.connect_timed_out
        )
        self.renewals: Deadlines[Connection] = loop.deadlines(
            renewal_interval(settings.binding_ttl_s), Connection.renew
        )
        self._region_by_country = settings.region_by_country
        self._backends: dict[int, PlacedBackend] = {}
        self._connections: set[Connection] = set()
        self._listener: Listener | None = None
        self._notify = notify
        self._overloaded = False
        self._on_idle: Callable[[], None] | None = None

    def listen(self, sock: socket.socket) -> None:
        """Accept clients from a bound, listening socket."""
        self._listener = Listener(sock, self.loop, self._accepted, self._shed)

    def change_table(self, change: TableChanged) -> None:
        """Route by these rows from now on; open connections stay where they are."""
        removed: Collection[int] = change.removed_slots
        if change.whole:
            removed = self._backends.keys() - {placed.slot for placed in change.upserts}
        for slot in removed:
            self.dispatcher.discard(slot)
            if (placed := self._backends.pop(slot, None)) is not None:
                self.targets.forget(placed.backend)
        for placed in change.upserts:
            self._backends[placed.slot] = placed
            self.dispatcher.put(placed.slot, placed.backend)

    def drain(self, on_idle: Callable[[], None]) -> None:
        """Accept nobody any more, and call ``on_idle`` when the last connection is gone."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._on_idle = on_idle
        if not self._connections:
            on_idle()

    def reset_all(self) -> int:
        """End every connection now; return how many there were."""
        connections = list(self._connections)
        for connection in connections:
            connection.shut_down()
        return len(connections)

    def closed(self, connection: Connection) -> None:
        """``connection`` is over."""
        self._connections.discard(connection)
        self._overloaded = False
        if self._on_idle is not None and not self._connections:
            self._on_idle()

    def overloaded(self) -> None:
        """No descriptor was left; said once until a connection ends."""
        if not self._overloaded:
            self._overloaded = True
            self._notify(
                Notice(
                    "error",
                    "out of file descriptors, turning new clients away: raise the limit of open files",
                    {"connections": len(self._connections)},
                )
            )

    def _shed(self) -> None:
        self.ledger.shed(CloseReason.OVERLOAD)
        self.overloaded()

    def _accepted(self, sock: socket.socket, address: str) -> None:
        country = self.geo.country(address)
        client = Client(address, country, self._region_by_country.get(country, ""))
        connection = Connection(self, sock, client)
        self._connections.add(connection)
        connection.start()
