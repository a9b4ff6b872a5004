"""The admin socket: questions to the running proxy, one JSON object a line.

``{"command": "explain", "client": "200.160.2.3"}`` is answered ``{"ok": true, "result": …}`` or
``{"ok": false, "error": "…"}``. Only the user that runs the proxy, and root, can connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from inspect import isawaitable
from pathlib import Path
from typing import Any

import msgspec

from edgeproxy.errors import EdgeproxyError, ListenError

MAX_REQUEST_BYTES = 64 << 10
MAX_CLIENTS = 32
_IDLE_S = 60.0
_BACKLOG = 128
_KEEPING_THE_PATH: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Since 3.13 asyncio removes the path when it stops to listen, which a successor listens on then."""

Answer = Callable[[dict[str, Any]], Any | Awaitable[Any]]
"""Takes the request, returns what msgspec can encode, at once or later.

``ValueError`` says what is wrong with the request, ``EdgeproxyError`` why it cannot be met.
"""


class AdminServer:
    """Listens on a Unix socket from the construction on, and answers with the commands it was given."""

    def __init__(
        self, path: Path, commands: Mapping[str, Answer], inherited: Sequence[socket.socket] = ()
    ) -> None:
        """Take the path, also from a proxy that was killed, never from one that answers; unless the socket
        that listens on it is ``inherited``.

        Raises:
            ListenError: the path cannot be used, or another proxy answers on it.
        """
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._yielded = False
        self._clients: set[asyncio.StreamWriter] = set()
        try:
            self._socket = inherited[0] if inherited else _listen(path)
        except OSError as error:
            why = (
                "another proxy answers on it, or it is no socket"
                if error.errno == errno.EADDRINUSE
                else error.strerror
            )
            raise ListenError(
                f"cannot listen on the admin socket {path}: {why}; set EDGEPROXY_ADMIN_SOCKET"
            ) from error

    async def start(self) -> None:
        """Begin to answer; who connected before is answered too."""
        self._server = await asyncio.start_unix_server(
            self._serve, sock=self._socket, limit=MAX_REQUEST_BYTES, **_KEEPING_THE_PATH
        )

    @property
    def descriptor(self) -> int:
        """That of the socket, for a successor."""
        return self._socket.fileno()

    def yield_path(self) -> None:
        """Leave new clients, and the path, to a successor; those that are connected go on."""
        self._yielded = True
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """Answer no more, and remove the socket."""
        if not self._yielded:
            self._path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for client in self._clients:
            client.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            if len(self._clients) > MAX_CLIENTS:
                await _send(writer, _refusal(f"{MAX_CLIENTS} clients are connected already"))
            else:
                await self._answer_all(reader, writer)
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            return  # gone, silent for too long, or the proxy stops
        finally:
            self._clients.discard(writer)
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await asyncio.wait_for(reader.readline(), _IDLE_S)
            except ValueError:
                await _send(writer, _refusal(f"a request has {MAX_REQUEST_BYTES} bytes at most"))
                return
            if not line:
                return
            await _send(writer, await self._answer(line))

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:  # feature: administration.show
            request = msgspec.json.decode(line, type=dict[str, Any])
            command = self._commands.get(str(request.get("command")))
            if command is None:
                known = ", ".join(sorted(self._commands))
                return _refusal(f"unknown command {request.get('command')!r}; there are: {known}")
            result = command(request)
            return {"ok": True, "result": await result if isawaitable(result) else result}
        except (EdgeproxyError, ValueError, RecursionError) as error:  # msgspec raises the last two
            return _refusal(str(error))


def _refusal(why: str) -> dict[str, Any]:
    return {"ok": False, "error": why}


async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(msgspec.json.encode(answer) + b"\n")
    await writer.drain()


def _listen(path: Path) -> socket.socket:
    """Bind and listen. Asyncio, given the path, would first remove whatever socket is there."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket() and not _is_answered(path):
            path.unlink()
        with _only_for_the_owner():
            sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) != errno.ECONNREFUSED


@contextlib.contextmanager
def _only_for_the_owner() -> Iterator[None]:
    """A socket's permissions are those of its creation; changing them afterwards would leave a gap."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
