"""Is somebody listening? A connection, in TLS where the rules say so, that is closed as soon as it stands."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeproxy.errors import tls_failure

if TYPE_CHECKING:
    import ssl

_OUR_OWN: frozenset[int | None] = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),  # no descriptor or memory left
        *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT),  # no port left, or no IPv6 on this machine
    }
)


class BackendError(Exception):
    """The backend, or the way to it, is at fault; the text says how."""


class Approach(NamedTuple):
    """What comes before anything else on a connection, as on those of clients."""

    header: bytes = b""
    """A PROXY header which says that the connection is our own."""
    tls: ssl.SSLContext | None = None
    """``None``: without TLS."""
    server_name: str = ""
    """Whom the certificate must be for; empty: the host that the row names."""


PLAIN = Approach()


class Conversation(Protocol):
    """An open connection."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


class _Plain:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def receive(self, size: int) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._sock, size)


class _Secured:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self, size: int) -> bytes:
        return await self._reader.read(size)


@asynccontextmanager
async def connection(host: str, address: str, port: int, approach: Approach) -> AsyncIterator[Conversation]:
    """Connect to a numeric address of ``host``; closed at the end of the block.

    Raises:
        BackendError: it refuses, or cannot be reached, or TLS does not come about.
        OSError: this machine cannot connect to anybody.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            plain = _Plain(sock)
            if approach.header:
                await plain.send(approach.header)
            if approach.tls is None:
                yield plain
                return
            async with _secured(sock, approach.tls, approach.server_name or host) as secured:
                yield secured
        except OSError as error:
            if error.errno in _OUR_OWN:
                raise
            raise BackendError(os.strerror(error.errno or 0).lower()) from error


@asynccontextmanager
async def _secured(sock: socket.socket, context: ssl.SSLContext, name: str) -> AsyncIterator[Conversation]:
    try:
        reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
        try:
            yield _Secured(reader, writer)
        finally:
            writer.transport.abort()
    except (OSError, ValueError) as error:
        raise BackendError(f"in TLS: {tls_failure(error)}") from error


class TcpProbe:
    """A :class:`edgeproxy.ports.Probe` that asks for no more than a connection."""

    def __init__(self, approach: Approach = PLAIN) -> None:
        self._approach = approach

    async def check(self, host: str, address: str, port: int) -> str | None:
        """See :meth:`edgeproxy.ports.Probe.check`."""
        try:
            async with connection(host, address, port, self._approach):
                return None
        except BackendError as error:
            return str(error)
