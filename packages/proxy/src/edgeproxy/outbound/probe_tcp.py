"""Is somebody listening? A connection that is closed again as soon as it stands."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_OUR_OWN: frozenset[int | None] = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),  # no descriptor or memory left
        *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT),  # no port left, or no IPv6 on this machine
    }
)


class BackendError(Exception):
    """The backend, or the way to it, is at fault; the text says how."""


@asynccontextmanager
async def connection(address: str, port: int) -> AsyncIterator[socket.socket]:
    """Connect to a numeric address; the socket is non-blocking and closed at the end of the block.

    Raises:
        BackendError: it refuses, or cannot be reached.
        OSError: this machine cannot connect to anybody.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            yield sock
        except OSError as error:
            if error.errno in _OUR_OWN:
                raise
            raise BackendError(os.strerror(error.errno or 0).lower()) from error


class TcpProbe:
    """A :class:`edgeproxy.ports.Probe` that asks for no more than a connection."""

    async def check(self, host: str, address: str, port: int) -> str | None:  # noqa: ARG002
        """See :meth:`edgeproxy.ports.Probe.check`."""
        try:
            async with connection(address, port):
                return None
        except BackendError as error:
            return str(error)
