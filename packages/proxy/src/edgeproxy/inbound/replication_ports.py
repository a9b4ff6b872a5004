"""Where datagrams of other POPs arrive: two UDP sockets, bound before anything else is done.

What they are for lives elsewhere: the one for membership (:mod:`edgeproxy.core.replication.membership`), the
other for connections (:mod:`edgeproxy.outbound.peers_quic`). Nothing listens to the world unprotected, so an
address that nobody chose is that of the loopback interface while there is no key.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from edgeproxy.config import Address
from edgeproxy.inbound.bound_socket import bind_socket

LOOPBACK: Final = "127.0.0.1"


class ReplicationPort:
    """A bound socket that nobody reads yet."""

    def __init__(
        self,
        address: Address,
        *,
        to: str,
        variable: str,
        is_exposable: bool,
        inherited: Sequence[socket.socket] = (),
    ) -> None:
        """``is_exposable``: there is a key, or the address was chosen, which is checked with the settings.

        Raises:
            ListenError: the address is taken, not ours or not allowed.
        """
        host = address.host if is_exposable else LOOPBACK
        if inherited:
            self.socket = inherited[0]
        else:
            self.socket = bind_socket(
                Address(host, address.port), to=to, variable=variable, kind=socket.SOCK_DGRAM
            )
        self.address = Address(*self.socket.getsockname()[:2])

    def advertised(self, chosen: Address | None, first_peer: Address | None) -> Address:
        """Where others reach it: as chosen, as bound, or from where this machine would send to a peer."""
        if chosen is not None:
            return chosen
        if not ip_address(self.address.host).is_unspecified:
            return self.address
        return Address(_outward_host(self.socket.family, first_peer), self.address.port)

    def close(self) -> None:
        self.socket.close()


def _outward_host(family: socket.AddressFamily, peer: Address | None) -> str:
    """The address from which this machine would send to a peer, or to anywhere; the loopback's to nobody."""
    host, port = peer if peer is not None else ("192.0.2.1", 9)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        usable = [each for each in found if family == socket.AF_INET6 or each[0] == family]
        with socket.socket(usable[0][0], socket.SOCK_DGRAM) as probe:
            probe.connect(usable[0][4])  # sends nothing: it is the kernel that says by which way it would
            return str(probe.getsockname()[0])
    except (OSError, IndexError):
        return LOOPBACK
