"""DNS over TCP (RFC 7766): many queries on one connection, each with its length in front."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from edgeproxy.inbound.dns_messages import MAX_QUERY_BYTES

MAX_CLIENTS: Final = 128
"""One more, and the one that has been silent for longest has to go."""

IDLE_S: Final = 10.0
"""How long a query may take to arrive, and a reply to be taken."""

_BACKLOG: Final = 128
_LENGTH_BYTES: Final = 2


class StreamEndpoint:
    """Accepts clients on a listening TCP socket and answers each one's queries in their order."""

    def __init__(
        self,
        sock: socket.socket,
        answer: Callable[[bytes, str], Awaitable[bytes | None]],
        max_clients: int = MAX_CLIENTS,
        idle_s: float = IDLE_S,
    ) -> None:
        """``answer`` takes a query and the peer's address; ``None`` ends the connection."""
        self._sock = sock
        self._answer = answer
        self._max_clients = max_clients
        self._idle_s = idle_s
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], None] = {}

    async def start(self) -> None:
        """Accept from now on."""
        self._server = await asyncio.start_server(self._serve, sock=self._sock, backlog=_BACKLOG)

    async def stop(self) -> None:
        """Close the socket and all connections."""
        if self._server is not None:
            self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None
        if len(self._clients) >= self._max_clients:
            silent_longest = next(iter(self._clients))
            del self._clients[silent_longest]
            silent_longest.cancel()
        self._clients[client] = None
        try:
            await self._answer_all(client, reader, writer)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # gone, silent for too long, or told to go
        finally:
            self._clients.pop(client, None)
            writer.close()

    async def _answer_all(
        self, client: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        peer: str = writer.get_extra_info("peername")[0]
        while True:
            async with asyncio.timeout(self._idle_s):
                length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
                if length > MAX_QUERY_BYTES:
                    return
                query = await reader.readexactly(length)
            reply = await self._answer(query, peer)
            if reply is None:
                return
            writer.write(len(reply).to_bytes(_LENGTH_BYTES, "big") + reply)
            async with asyncio.timeout(self._idle_s):
                await writer.drain()
            # Last in the row of those that may have to go.
            self._clients[client] = self._clients.pop(client)
