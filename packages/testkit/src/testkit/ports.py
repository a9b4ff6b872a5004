"""Free TCP ports that nobody else is given while a test uses them.

"Bind port 0, close, use the number" is a race: between the close and the server's own bind the kernel
may hand the same number to another xdist worker or to an outgoing connection. So the socket that found
the port stays open, bound and *not listening*. While it lives, the kernel neither gives the number to
another ``bind(0)`` nor uses it for a connect; a server that sets ``SO_REUSEADDR`` (asyncio, aiohttp and
most others do) or ``SO_REUSEPORT`` may still bind it by name; and until a server listens, connecting is
refused, as with any closed port. No lock file, nothing to clean after a crash.

A server that can bind port 0 itself and tell what it got needs none of this: prefer that.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a free TCP port, for every local IPv4 and IPv6 address, reserved until the block ends."""
    holder = _hold()
    try:
        yield _port_of(holder)
    finally:
        holder.close()


_held: list[socket.socket] = []


def free_port() -> int:
    """Return a free TCP port, reserved for as long as this process lives.

    For code outside a test; in a test use the fixtures ``port`` and ``port_factory``, which give the
    number back at the end.
    """
    holder = _hold()
    _held.append(holder)
    return _port_of(holder)


def _hold() -> socket.socket:
    dual_stack = socket.has_dualstack_ipv6()
    holder = socket.socket(socket.AF_INET6 if dual_stack else socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if dual_stack:
        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    holder.bind(("::" if dual_stack else "0.0.0.0", 0))
    return holder


def _port_of(holder: socket.socket) -> int:
    port: int = holder.getsockname()[1]
    return port
