"""The client against aiohttp's server, which is somebody else's reading of RFC 6455; in virtual time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import WSMsgType, web

from testkit.virtual_time import virtual_time
from testkit.websocket import (
    Frame,
    Opcode,
    UpgradeRefusedError,
    WebSocketClient,
    assert_answers_ping,
    assert_refused,
    assert_silence_is_ended,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/ws", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"ws://{host}:{port}/ws"
    finally:
        await runner.cleanup()


async def echo(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Authorization") == "none":
        raise web.HTTPUnauthorized(text="no token")
    channel = web.WebSocketResponse(heartbeat=90.0 if "heartbeat" in request.query else None)
    await channel.prepare(request)
    async for message in channel:
        if message.type is WSMsgType.TEXT:
            await channel.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await channel.send_bytes(message.data)
    return channel


@virtual_time
async def test_messages_of_every_length_come_back() -> None:
    async with serving(echo) as url, await WebSocketClient.connect(url) as client:
        for length in (0, 1, 125, 126, 127, 65_535, 65_536, 100_000):
            await client.send_frame(Opcode.BINARY, b"x" * length)
            assert await client.receive() == Frame(Opcode.BINARY, b"x" * length)
        await client.send_json({"type": "ping"})
        assert await client.receive_json() == {"type": "ping"}


@virtual_time
async def test_parts_of_a_message_are_put_together() -> None:
    async with serving(echo) as url, await WebSocketClient.connect(url) as client:
        await client.send_frame(Opcode.TEXT, b"in ", final=False)
        await client.send_frame(Opcode.PING, b"between")
        await client.send_frame(Opcode.CONTINUATION, b"parts")
        assert (await client.receive()).opcode is Opcode.PONG
        assert await client.receive() == Frame(Opcode.TEXT, b"in parts")


@virtual_time
async def test_ping_is_answered() -> None:
    async with serving(echo) as url, await WebSocketClient.connect(url) as client:
        await assert_answers_ping(client)
        await client.send_text("no pong")
        with pytest.raises(AssertionError, match="no pong"):
            await assert_answers_ping(client)


@virtual_time
async def test_refused_upgrade_says_its_status() -> None:
    headers = {"Authorization": "none"}
    async with serving(echo) as url:
        await assert_refused(url, 401, headers=headers)
        with pytest.raises(AssertionError, match="401: b'no token'"):
            await assert_refused(url, 403, headers=headers)
        with pytest.raises(AssertionError, match="was accepted"):
            await assert_refused(url, 401)
        with pytest.raises(UpgradeRefusedError) as refused:
            await WebSocketClient.connect(url, headers=headers)
    assert refused.value.body == b"no token"
    assert refused.value.headers["content-length"] == "8"


@virtual_time
async def test_silent_client_is_dropped_after_its_heartbeat() -> None:
    loop = asyncio.get_running_loop()
    async with serving(echo) as url, await WebSocketClient.connect(url + "?heartbeat") as client:
        await assert_silence_is_ended(client, 200, not_before_s=90)
        assert loop.time() >= 90


@virtual_time
async def test_server_that_drops_too_early_or_never_is_found_out() -> None:
    async with serving(echo) as url, await WebSocketClient.connect(url + "?heartbeat") as client:
        with pytest.raises(AssertionError, match="dropped after 1"):
            await assert_silence_is_ended(client, 1000, not_before_s=900)
    async with serving(echo) as url, await WebSocketClient.connect(url) as client:
        with pytest.raises(TimeoutError):
            await assert_silence_is_ended(client, 1000, not_before_s=0)


@pytest.mark.parametrize("wrong", ["unmasked", "opcode", "length"])
@virtual_time
async def test_wrong_frames_are_sent_as_they_are(wrong: str) -> None:
    async with serving(echo) as url, await WebSocketClient.connect(url) as client:
        if wrong == "unmasked":
            await client.send_raw(b"\x81\x81")  # promises a mask, and has none
            return
        if wrong == "opcode":
            await client.send_frame(3, b"x")
        else:
            await client.send_frame(Opcode.PING, b"x" * 126)
        closing = await client.ended()
        assert closing is not None
        assert closing.close_code == 1002


@virtual_time
async def test_closing_handshake() -> None:
    async with serving(echo) as url:
        client = await WebSocketClient.connect(url)
        closing = await client.close(1001)
    assert closing is not None
    assert closing.close_code == 1000
    assert Frame(Opcode.CLOSE, b"").close_code is None
    with pytest.raises(AssertionError, match="expected text"):
        closing.json()


@pytest.mark.parametrize("how", ["cut", "reset"])
@virtual_time
async def test_client_can_go_without_a_word(how: str) -> None:
    gone: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def watch(request: web.Request) -> web.StreamResponse:
        channel = web.WebSocketResponse()
        await channel.prepare(request)
        await channel.receive()
        gone.set_result(channel.close_code)
        return channel

    async with serving(watch) as url:
        client = await WebSocketClient.connect(url)
        getattr(client, how)()
        # 1006: no close frame came.
        assert await gone == 1006


Speaker = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(speak: Speaker) -> AsyncIterator[str]:
    """A server for one connection."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await speak(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"ws://{host}:{port}"
    await over.wait()
    server.close()


async def lies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Sure\r\nSec-WebSocket-Accept: yes\r\n\r\n")
    await reader.read()


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(("server", "error"), [(lies, AssertionError), (says_nothing, TimeoutError)])
@virtual_time
async def test_server_that_does_not_speak_the_protocol_is_found_out(
    server: Speaker, error: type[Exception]
) -> None:
    async with speaking(server) as url:
        with pytest.raises(error):
            await WebSocketClient.connect(url, timeout_s=90)


async def goes_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readuntil(b"\r\n\r\n")
    key = next(line for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: "))[19:]
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(b"HTTP/1.1 101 Ok\r\nSec-WebSocket-Accept: " + proof + b"\r\n\r\n")
    await reader.read(1)


@virtual_time
async def test_server_that_goes_without_a_word_is_seen() -> None:
    async with speaking(goes_away) as url, await WebSocketClient.connect(url) as client:
        assert await client.close() is None
    async with speaking(goes_away) as url, await WebSocketClient.connect(url) as client:
        await client.send_raw(b"x")
        assert await client.ended() is None
