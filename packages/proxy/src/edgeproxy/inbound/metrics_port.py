"""Where metrics and the status page are served. They are only read, so any address may be chosen.

Apart from the server, whose imports take longer than a start may: the port is bound first of all.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from edgeproxy.config import Address
from edgeproxy.inbound.bound_socket import bind_socket

LOOPBACK: Final = "127.0.0.1"


class MetricsPort:
    """A bound socket that nobody serves yet; whoever serves it closes it."""

    def __init__(
        self, address: Address, *, is_default: bool, inherited: Sequence[socket.socket] = ()
    ) -> None:
        """Bind, unless the socket is ``inherited``.

        An address that nobody chose is that of the loopback interface, whatever its host.

        Raises:
            ListenError: the address is taken, not ours or not allowed.
        """
        host = LOOPBACK if is_default else address.host
        self.socket = (
            inherited[0]
            if inherited
            else bind_socket(
                Address(host, address.port), to="serve metrics", variable="EDGEPROXY_METRICS_LISTEN_ADDR"
            )
        )
        self.address = str(Address(host, self.socket.getsockname()[1]))
