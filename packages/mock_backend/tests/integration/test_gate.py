from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

import pytest

from mock_backend.driver import DriverError
from mock_backend.server import MockBackend
from mock_backend.threaded import ThreadedMockBackend


def test_port_that_somebody_else_took_meanwhile_is_refused_and_named(
    mock_backend_factory: Callable[..., ThreadedMockBackend],
) -> None:
    away = mock_backend_factory(state="not-listening")
    mock_backend_factory(port=away.port)
    with pytest.raises(DriverError, match=rf"409: cannot listen on 127\.0\.0\.1:{away.port}: .*; stop what"):
        away.driver.set_state("ready")


async def test_without_descriptors_clients_wait_and_are_served_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_backend.gate._PAUSE_S", 0.001)
    accept = socket.socket.accept
    refusals = [errno.EMFILE, errno.ENFILE]

    def scarce(listener: socket.socket) -> tuple[socket.socket, object]:
        if refusals:
            raise OSError(refusals.pop(), "no descriptors")
        return accept(listener)

    async with MockBackend() as backend:
        monkeypatch.setattr(socket.socket, "accept", scarce)
        reader, writer = await asyncio.open_connection(backend.address, backend.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"(eu)")
        writer.close()
    assert refusals == []


async def test_port_that_closes_during_the_pause_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(listener: socket.socket) -> tuple[socket.socket, object]:
        raise OSError(errno.EMFILE, "no descriptors")

    async with MockBackend() as backend:
        monkeypatch.setattr(socket.socket, "accept", never)
        _, writer = await asyncio.open_connection(backend.address, backend.port)
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(backend.address, backend.port)


async def test_stop_ends_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_backend.server._DRAIN_TIMEOUT_S", 600)
    async with MockBackend(script="connection 1: hang") as backend:
        hanging, first = await asyncio.open_connection(backend.address, backend.port)
        answered, second = await asyncio.open_connection(backend.address, backend.port)
        second.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await answered.readuntil(b"(eu)")
        backend.instrument.set_state(type(backend.instrument.state).HUNG)
        second.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        while len([entry for entry in backend.instrument.journal.entries() if entry.event == "request"]) < 2:
            await backend.instrument.entries_after(backend.instrument.journal.last_number, 10)
        async with asyncio.timeout(10):
            await backend.stop()
            assert await hanging.read() == b""
            await answered.read()
    assert backend.instrument.open_connections == 0
    first.close()
    second.close()


async def test_open_websocket_is_told_when_the_backend_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    import aiohttp

    monkeypatch.setattr("mock_backend.server._DRAIN_TIMEOUT_S", 600)
    async with aiohttp.ClientSession() as session, MockBackend() as backend:
        websocket = await session.ws_connect(f"ws://{backend.address}:{backend.port}/ws")
        async with asyncio.timeout(10):
            stopping = asyncio.create_task(backend.stop())
            message = await websocket.receive()
            await stopping
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
