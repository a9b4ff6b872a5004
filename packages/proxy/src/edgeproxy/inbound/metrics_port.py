"""Where metrics and the status page are served. They are only read, so any address may be chosen.

Apart from the server, whose imports take longer than a start may: the port is bound first of all.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Final

from edgeproxy.config import Address
from edgeproxy.errors import ListenError

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
        self.socket = inherited[0] if inherited else _bound(host, address.port)
        self.address = str(Address(host, self.socket.getsockname()[1]))


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        why = (
            f"another process has the port (see `ss -tlnp 'sport = :{port}'`)"
            if error.errno == errno.EADDRINUSE
            else error.strerror
        )
        raise ListenError(
            f"cannot serve metrics on {Address(host, port)}: {why}; set EDGEPROXY_METRICS_LISTEN_ADDR"
        ) from error
    return sock
