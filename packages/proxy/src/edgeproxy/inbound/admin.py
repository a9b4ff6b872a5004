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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgeproxy.errors import ListenError

MAX_REQUEST_BYTES = 64 << 10
MAX_CLIENTS = 32
_IDLE_S = 60.0

Answer = Callable[[dict[str, Any]], Any]
"""Takes the request, returns what msgspec can encode; ``ValueError`` says what is wrong with it."""


class AdminServer:
    """Listens on a Unix socket and answers with the commands it was given."""

    def __init__(self, path: Path, commands: Mapping[str, Answer]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._clients = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            ListenError: the path cannot be used, or another proxy answers on it.
        """
        try:
            self._remove_stale()
            with _only_for_the_owner():
                self._server = await asyncio.start_unix_server(
                    self._serve, self._path, limit=MAX_REQUEST_BYTES
                )
        except OSError as error:
            raise ListenError(
                f"cannot listen on the admin socket {self._path}: {error.strerror}; "
                "set EDGEPROXY_ADMIN_SOCKET"
            ) from error

    async def stop(self) -> None:
        """Answer no more, and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    def _remove_stale(self) -> None:
        """Remove what a proxy that was killed left behind, and nothing that still answers."""
        if not self._path.is_socket():
            return
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self._path)) == errno.ECONNREFUSED:
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= MAX_CLIENTS:
                await self._answer_all(reader, writer)
        except (ConnectionError, TimeoutError, ValueError, asyncio.CancelledError):
            return  # gone, silent for too long, a line without end, or the proxy stops
        finally:
            self._clients -= 1
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await asyncio.wait_for(reader.readline(), _IDLE_S):
            writer.write(msgspec.json.encode(self._answer(line)) + b"\n")
            await writer.drain()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(line, type=dict[str, Any])
            command = self._commands.get(str(request.get("command")))
            if command is None:
                known = ", ".join(sorted(self._commands))
                raise ValueError(f"unknown command {request.get('command')!r}; there are: {known}")
            return {"ok": True, "result": command(request)}
        except ValueError as error:  # msgspec's errors are ValueErrors too
            return {"ok": False, "error": str(error)}


@contextlib.contextmanager
def _only_for_the_owner() -> Iterator[None]:
    """A socket's permissions are those of its creation; changing them afterwards would leave a gap."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
