"""Binding the ports of the control process's servers, and saying what is wrong when that fails."""

from __future__ import annotations

import errno
import socket

from edgeproxy.config import Address
from edgeproxy.errors import ListenError


def bind_socket(
    address: Address,
    *,
    to: str,
    variable: str,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    if_taken: str = "",
) -> socket.socket:
    """Return a socket that is bound to ``address`` and does not listen yet.

    An address of IPv6 takes clients of IPv4, too. ``to`` says what for, ``variable`` is the setting that
    names another address, ``if_taken`` a hint for whoever finds the port taken.

    Raises:
        ListenError: the address is taken, not ours or not allowed.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        if kind is socket.SOCK_STREAM:
            # On UDP it would let any process of the machine take the port over.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
    except OSError as error:
        sock.close()
        why = _explained(error, address.port, kind, if_taken)
        raise ListenError(f"cannot {to} on {address}: {why}; set {variable}") from error
    return sock


def _explained(error: OSError, port: int, kind: socket.SocketKind, if_taken: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            flag = "t" if kind is socket.SOCK_STREAM else "u"
            return f"another process has the port (see `ss -{flag}lnp 'sport = :{port}'`{if_taken})"
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has that address"
        case errno.EACCES:
            return "ports below 1024 need root or CAP_NET_BIND_SERVICE"
        case _:
            return str(error.strerror)
