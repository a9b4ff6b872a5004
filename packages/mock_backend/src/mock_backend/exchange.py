"""What the instrument answers besides the four paths of every mock backend, over HTTP.

======================= =====================================================================================
``/connection``         JSON: what is known of the connection: number, client, PROXY header, TLS, requests
``/echo``               JSON: any method; the request as it came, the length of its body, its beginning
``/status/{code}``      that status
``/delay/{ms}``         ``ok`` after so many milliseconds
``/bytes/{n}``          n zeros, of a length told before
``/stream``             chunks: ``?chunks=5&bytes=10&interval_ms=0&trailer=x-sum``
``/ws``                 WebSocket: text and binary messages come back
======================= =====================================================================================
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from weakref import WeakSet

from aiohttp import WSCloseCode, WSMsgType, web

from mock_backend.instrument import Arrival

MAX_DELAY_MS = 60_000
MAX_BYTES = 1 << 30
MAX_CHUNKS = 100_000
MAX_CHUNK_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 16 << 20
_SHOWN_BYTES = 64 << 10
_BLOCK = bytes(64 << 10)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")

Headers = Mapping[str, str]
Responder = Callable[[web.BaseRequest, Arrival, Headers, str], Awaitable[web.StreamResponse]]


class BadRequestError(Exception):
    """The request asks for what is not possible; says what is."""


class Exchange:
    """Answers to those paths; remembers the WebSockets that are open."""

    def __init__(self) -> None:
        self._sockets: WeakSet[web.WebSocketResponse] = WeakSet()
        self._responders: dict[str, Responder] = {
            "connection": _connection,
            "echo": _echo,
            "status": _status,
            "delay": _delay,
            "bytes": _bytes,
            "stream": _stream,
            "ws": self._websocket,
        }

    def responder(self, path: str) -> tuple[Responder, str] | None:
        """Return who answers a path, and the part behind the name."""
        _, name, *rest = path.split("/", 2) if path.startswith("/") else ("", "")
        responder = self._responders.get(name)
        takes_rest = name in ("status", "delay", "bytes")
        return (responder, rest[0] if rest else "") if responder and takes_rest == bool(rest) else None

    async def close(self) -> None:
        """Say goodbye to those who are connected."""
        for each in list(self._sockets):
            await each.close(code=WSCloseCode.GOING_AWAY)

    async def _websocket(
        self, request: web.BaseRequest, _arrival: Arrival, headers: Headers, _rest: str
    ) -> web.StreamResponse:
        response = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES)
        if not response.can_prepare(request):
            raise BadRequestError("this is a WebSocket: ask for an upgrade")
        response.headers.update(headers)
        await response.prepare(request)
        self._sockets.add(response)
        async for message in response:
            if message.type is WSMsgType.TEXT:
                await response.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await response.send_bytes(message.data)
        return response


async def _connection(
    request: web.BaseRequest, arrival: Arrival, headers: Headers, _rest: str
) -> web.StreamResponse:
    known: dict[str, Any] = {
        "number": arrival.number,
        "peer": arrival.peer,
        "client": arrival.client,
        "requests": arrival.requests,
        "proxy": arrival.proxy,
        "tls": _tls(request.transport),
    }
    return _json(headers, known)


def _tls(transport: asyncio.Transport | None) -> dict[str, Any] | None:
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    if tls is None:
        return None
    certificate = tls.getpeercert()
    names = [value for part in (certificate or {}).get("subject", ()) for _, value in part]
    return {"version": tls.version(), "cipher": tls.cipher()[0], "client_certificate": names or None}


async def _echo(
    request: web.BaseRequest, _arrival: Arrival, headers: Headers, _rest: str
) -> web.StreamResponse:
    shown, count = b"", 0
    async for piece in request.content.iter_any():
        count += len(piece)
        shown += piece[: _SHOWN_BYTES - len(shown)]
    return _json(
        headers,
        {
            "method": request.method,
            "path": request.path,
            "query": request.rel_url.raw_query_string,
            "headers": [[name, value] for name, value in request.headers.items()],
            "body_bytes": count,
            "body": shown.decode("utf-8", errors="replace"),
        },
    )


async def _status(
    _request: web.BaseRequest, _arrival: Arrival, headers: Headers, rest: str
) -> web.StreamResponse:
    status = _number("status", rest, 200, 599)
    return web.Response(status=status, headers=headers, text=None if status in (204, 304) else f"{status}\n")


async def _delay(
    _request: web.BaseRequest, _arrival: Arrival, headers: Headers, rest: str
) -> web.StreamResponse:
    await asyncio.sleep(_number("delay", rest, 0, MAX_DELAY_MS) / 1000)
    return web.Response(headers=headers, text="ok\n")


async def _bytes(
    request: web.BaseRequest, _arrival: Arrival, headers: Headers, rest: str
) -> web.StreamResponse:
    count = _number("bytes", rest, 0, MAX_BYTES)
    response = web.StreamResponse(headers={**headers, "Content-Type": "application/octet-stream"})
    response.content_length = count
    await response.prepare(request)
    if request.method != "HEAD":
        for start in range(0, count, len(_BLOCK)):
            await response.write(_BLOCK[: count - start])
    return response


class _Framed(web.StreamResponse):
    """Its writer frames the chunks itself: aiohttp knows no trailers."""

    _length_check = False


async def _stream(
    request: web.BaseRequest, _arrival: Arrival, headers: Headers, _rest: str
) -> web.StreamResponse:
    query = request.query
    chunks = _number("chunks", query.get("chunks", "5"), 0, MAX_CHUNKS)
    size = _number("bytes", query.get("bytes", "10"), 1, MAX_CHUNK_BYTES)
    pause_s = _number("interval_ms", query.get("interval_ms", "0"), 0, MAX_DELAY_MS) / 1000
    trailer = query.get("trailer")
    if trailer is not None and not _TOKEN.fullmatch(trailer):
        raise BadRequestError(f"trailer={trailer!r} is no name of a header")
    framing = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
    if trailer is not None:
        framing["Trailer"] = trailer
    response = _Framed(headers={**headers, **framing})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    checksum = 0
    for number in range(chunks):
        if number and pause_s:
            await asyncio.sleep(pause_s)
        data = (b"%d\n" % number * size)[:size]
        checksum = zlib.crc32(data, checksum)
        await response.write(b"%x\r\n%b\r\n" % (size, data))
    last = f"{trailer}: {checksum:08x}\r\n" if trailer is not None else ""
    await response.write(f"0\r\n{last}\r\n".encode())
    return response


def _number(name: str, text: str, least: int, greatest: int) -> int:
    if text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= greatest:
        return int(text)
    raise BadRequestError(f"{name} {text!r} is no number from {least} to {greatest}")


def _json(headers: Headers, values: Mapping[str, Any]) -> web.Response:
    body = json.dumps(values, separators=(",", ":")) + "\n"
    return web.Response(headers={**headers, "Content-Type": "application/json"}, body=body.encode())
