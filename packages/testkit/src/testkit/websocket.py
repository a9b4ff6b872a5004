"""A WebSocket client for tests of servers: it can do what well-behaved clients do not.

It speaks RFC 6455 on asyncio's streams, frame by frame, answers nothing by itself, sends frames that are
wrong, and goes away without a word. Lengths of time are the running loop's, so it works in
:mod:`testkit.virtual_time`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import socket
import ssl
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TIMEOUT_S = 10.0


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it came."""

    opcode: Opcode
    payload: bytes
    final: bool = True

    @property
    def close_code(self) -> int | None:
        """Why the server closes; ``None`` when it does not say, or when this is no close."""
        if self.opcode is not Opcode.CLOSE or len(self.payload) < 2:
            return None
        (code,) = struct.unpack_from("!H", self.payload)
        return int(code)

    def json(self) -> Any:
        """The payload as JSON.

        Raises:
            AssertionError: this is no text.
        """
        assert self.opcode is Opcode.TEXT, f"expected text, got {self}"
        return json.loads(self.payload)


class UpgradeRefusedError(Exception):
    """The server answered the request to upgrade with something else."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"{status}: {body[:200]!r}")
        self.status = status
        self.headers = headers
        self.body = body


class WebSocketClient:
    """One connection that was upgraded; made by :meth:`connect`, closed as an async context manager."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> WebSocketClient:
        """Connect and upgrade; ``url`` begins with ``ws://`` or, with ``tls``, with ``wss://``.

        Raises:
            UpgradeRefusedError: the server answered with another status.
            AssertionError: it says that it upgrades, and does not prove it as RFC 6455 asks.
            OSError: it cannot be reached.
        """
        parts = urlsplit(url)
        assert parts.hostname is not None, url
        port = parts.port or (443 if tls else 80)
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls)
            try:
                key = base64.b64encode(os.urandom(16))
                target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
                asked = {
                    "Host": f"{parts.hostname}:{port}",
                    "Upgrade": "websocket",
                    "Connection": "Upgrade",
                    "Sec-WebSocket-Key": key.decode(),
                    "Sec-WebSocket-Version": "13",
                    **(headers or {}),
                }
                lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.items())]
                writer.write("\r\n".join([*lines, "", ""]).encode())
                status, answered = await _read_head(reader)
                if status != HTTPStatus.SWITCHING_PROTOCOLS:
                    body = await reader.readexactly(int(answered.get("content-length", 0)))
                    raise UpgradeRefusedError(status, answered, body)
                proof = base64.b64encode(hashlib.sha1(key + _ACCEPT_SUFFIX).digest()).decode()
                assert answered.get("sec-websocket-accept") == proof, answered
            except BaseException:
                writer.close()
                raise
        return cls(reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    # ---- sending -----------------------------------------------------------------------------------

    async def send_text(self, text: str) -> None:
        await self.send_frame(Opcode.TEXT, text.encode())

    async def send_json(self, value: object) -> None:
        await self.send_text(json.dumps(value))

    async def send_frame(
        self, opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True
    ) -> None:
        """Send one frame, right or wrong: any opcode, parts of messages, without the mask that is due."""
        length = len(payload)
        short, extended = length, b""
        if length >= 126:
            short, extended = (
                (126, struct.pack("!H", length)) if length < 1 << 16 else (127, struct.pack("!Q", length))
            )
        head = bytes([(0x80 if final else 0) | opcode, (0x80 if masked else 0) | short]) + extended
        if masked:
            mask = os.urandom(4)
            head += mask
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._writer.write(head + payload)
        await self._writer.drain()

    async def send_raw(self, data: bytes) -> None:
        """Send bytes that need not be a frame."""
        self._writer.write(data)
        await self._writer.drain()

    # ---- receiving ---------------------------------------------------------------------------------

    async def receive(self, timeout_s: float = _TIMEOUT_S) -> Frame:
        """Return the next frame, whatever it is.

        Raises:
            asyncio.IncompleteReadError: the connection ended instead.
            TimeoutError: nothing came.
        """
        async with asyncio.timeout(timeout_s):
            first, second = await self._reader.readexactly(2)
            length = second & 0x7F
            if length >= 126:
                size = 2 if length == 126 else 8
                length = int.from_bytes(await self._reader.readexactly(size), "big")
            assert not second & 0x80, "servers must not mask"
            payload = await self._reader.readexactly(length)
            return Frame(Opcode(first & 0x0F), payload, bool(first & 0x80))

    async def receive_json(self, timeout_s: float = _TIMEOUT_S) -> Any:
        """Return the next frame's text as JSON; see :meth:`receive`."""
        return (await self.receive(timeout_s)).json()

    async def ended(self, timeout_s: float = _TIMEOUT_S) -> Frame | None:
        """Read until the server ends the connection; return its close frame, ``None`` when it sent none.

        Raises:
            TimeoutError: it keeps the connection.
        """
        closing: Frame | None = None
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    frame = await self.receive(timeout_s)
                except (asyncio.IncompleteReadError, ConnectionResetError):
                    return closing
                if frame.opcode is Opcode.CLOSE:
                    closing = frame
                    await self.send_frame(Opcode.CLOSE, frame.payload)

    # ---- going away --------------------------------------------------------------------------------

    async def close(self, code: int = 1000) -> Frame | None:
        """Say good-bye as RFC 6455 wants it; return the server's close frame."""
        await self.send_frame(Opcode.CLOSE, struct.pack("!H", code))
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                try:
                    frame = await self.receive()
                except asyncio.IncompleteReadError:
                    return None
                if frame.opcode is Opcode.CLOSE:
                    self._writer.close()
                    return frame

    def cut(self) -> None:
        """Close the TCP connection in order (FIN), without a closing handshake."""
        self._writer.close()

    def reset(self) -> None:
        """Break the TCP connection off (RST), as a client that crashes does."""
        own = self._writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


# ---- checks ----------------------------------------------------------------------------------------------


async def assert_refused(url: str, status: int, *, headers: Mapping[str, str] | None = None) -> None:
    """Assert that the upgrade is refused with ``status``."""
    try:
        client = await WebSocketClient.connect(url, headers=headers)
    except UpgradeRefusedError as error:
        refused = error
    else:
        client.cut()
        raise AssertionError("the upgrade was accepted")
    assert refused.status == status, f"refused with {refused}, not with {status}"


async def assert_answers_ping(client: WebSocketClient, payload: bytes = b"are you there") -> None:
    """Assert that a ping is answered by a pong of the same payload, before anything else."""
    await client.send_frame(Opcode.PING, payload)
    frame = await client.receive()
    assert frame == Frame(Opcode.PONG, payload), frame


async def assert_silence_is_ended(client: WebSocketClient, within_s: float, *, not_before_s: float) -> None:
    """Assert that a client which says nothing, not even pong, is dropped in that span of the loop's time."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await client.ended(within_s)
    silent_s = loop.time() - began_s
    assert silent_s >= not_before_s, f"dropped after {silent_s:g} s"


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines if line)
    return int(status_line.split()[1]), {name.lower(): value.strip() for name, _, value in fields}
