"""How many connections clients may have open: all together, and each client network.

A connection takes its places when it is accepted and gives them back when it is over, whatever it does in
between. Behind a load balancer it counts among those of its client from the moment on at which the PROXY
header has said who that is; the balancer itself has no share in its clients' cap.

A cap that is switched on while the proxy runs counts the connections that are accepted from then on.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from edgeproxy.core.dataplane.rate_limit import client_tag
from edgeproxy.core.dataplane.session import CloseReason, Event


class Caps(msgspec.Struct, frozen=True):
    """Most connections at a time; 0 is no cap."""

    connections: int = 0
    per_client: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.connections or self.per_client)


class Places(Protocol):
    """Connections of clients as all workers count them."""

    def enter(self, most: int) -> bool:
        """Count one more of all connections, unless there are ``most`` already."""
        ...

    def leave(self) -> None:
        """Count one less of all."""
        ...

    def enter_client(self, tag: int, most: int) -> int | None:
        """Count one more connection of the client ``tag``, unless it has ``most`` or no further client can be
        told apart; return where that is counted."""
        ...

    def leave_client(self, entry: int) -> None:
        """Count one less where :meth:`enter_client` has counted it."""
        ...


class Place:
    """What one connection takes up. Give it back with :meth:`Door.leave`."""

    __slots__ = ("entry", "is_counted")

    def __init__(self) -> None:
        self.is_counted = False
        """Among all connections."""
        self.entry: int | None = None
        """Where it is counted among those of its client."""


class Door:
    """Lets clients in as far as the caps allow."""

    def __init__(self, caps: Caps, places: Places, secret: int) -> None:
        """``secret`` is that of the segment, see :func:`~edgeproxy.core.dataplane.rate_limit.client_tag`."""
        self.caps = caps
        """May change; places that are taken stay taken."""
        self._places = places
        self._secret = secret

    def enter(self, network: int | None) -> Place | CloseReason:
        """Take places for a connection of a client ``network``, ``None`` while it is not known; or say what
        forbids it."""
        place = Place()
        if network is not None and (objection := self.identify(place, network)) is not None:
            return CloseReason(objection.value)
        most = self.caps.connections
        if most:
            if not self._places.enter(most):
                self.leave(place)
                return CloseReason.MAX_CONNECTIONS  # feature: admission.caps
            place.is_counted = True
        return place

    def identify(self, place: Place, network: int) -> Event | None:
        """The connection turns out to be that of a client ``network``; say what forbids it, if anything."""
        most = self.caps.per_client
        if most:
            place.entry = self._places.enter_client(client_tag(self._secret, network), most)
            if place.entry is None:
                return Event.MAX_CONNECTIONS_PER_CLIENT
        return None

    def leave(self, place: Place) -> None:
        """Give back what ``place`` takes up."""
        if place.is_counted:
            self._places.leave()
        if place.entry is not None:
            self._places.leave_client(place.entry)
