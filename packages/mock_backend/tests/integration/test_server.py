from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest

from mock_backend.behaviour import Backend
from mock_backend.journal import select
from mock_backend.server import ListenError, MockBackend


@pytest.fixture
async def backend() -> AsyncIterator[MockBackend]:
    async with MockBackend(region="eu", id="mock-eu-1") as running:
        yield running


@pytest.fixture
async def http(backend: MockBackend) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{backend.address}:{backend.port}") as session:
        yield session


async def exchange(backend: MockBackend, request: bytes) -> bytes:
    """Send ``request`` and return all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection(backend.address, backend.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_info_tells_the_port_it_got_and_the_time(
    backend: MockBackend, http: aiohttp.ClientSession
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    async with http.get("/api/info?ignored=1") as response:
        info = await response.json()
    assert info["port"] == str(backend.port)
    assert info["hostname"] == socket.gethostname()
    assert info["uptime_secs"] < 60
    assert before <= datetime.fromisoformat(info["timestamp"]) <= datetime.now(UTC)


async def test_banner_names_the_client(http: aiohttp.ClientSession) -> None:
    async with http.get("/") as response:
        text = await response.text()
    assert "Client:     127.0.0.1:" in text


async def test_ipv6_client_is_written_in_brackets() -> None:
    async with MockBackend(host="::1") as backend:
        answer = await exchange(backend, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"Client:     [::1]:" in answer


@pytest.mark.feature("testing.mock_backend")
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("HEAD", "/api/info", 200),
        ("GET", "/nothing", 404),
        ("POST", "/", 405),
        ("OPTIONS", "/health", 405),
    ],
)
async def test_every_answer_carries_the_identity(
    http: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with http.request(method, path) as response:
        assert response.status == status
        assert response.headers["X-Backend-ID"] == "mock-eu-1"
        assert response.headers["X-Region"] == "eu"


async def test_head_has_the_length_but_not_the_body(backend: MockBackend) -> None:
    answer = await exchange(backend, b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: 19" in head
    assert body == b""


async def test_connection_is_kept_for_further_requests(backend: MockBackend) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert (await exchange(backend, request + request + last)).count(b"OK - mock-eu-1 (eu)") == 3


async def test_malformed_request_is_refused_with_the_identity(
    backend: MockBackend, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await exchange(backend, b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 Bad Request\r\n" in head
    assert b"X-Backend-ID: mock-eu-1\r\n" in head
    assert body.startswith(b"400 Bad Request: ")
    assert body.count(b"\n") == 1
    assert caplog.records == []


async def test_failure_of_its_own_is_logged_and_answered_with_the_identity(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(Backend, "_banner")
    async with http.get("/") as response:
        assert response.status == 500
        assert response.headers["X-Backend-ID"] == "mock-eu-1"
        assert await response.text() == "500 Internal Server Error: the mock backend failed\n"
    assert "cannot answer GET /" in caplog.text


async def test_id_defaults_to_the_port_it_got() -> None:
    async with MockBackend(region="ap") as backend:
        assert backend.id == f"mock-ap-{backend.port}"
        assert backend.port > 0


async def test_counts_requests(backend: MockBackend, http: aiohttp.ClientSession) -> None:
    for path in ("/", "/api/latency", "/health"):
        async with http.get(path) as response:
            assert response.status == 200
    assert backend.request_count == 2


async def test_taken_port_is_named(backend: MockBackend) -> None:
    with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{backend.port}: Address already in use; stop what"):
        await MockBackend(port=backend.port).start()


async def test_address_of_another_machine_is_named() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:0: .*not one of this machine's"):
        await MockBackend(host="192.0.2.1").start()


@pytest.mark.parametrize("label", ["", "a b"])
def test_bad_label_is_refused_at_construction(label: str) -> None:
    with pytest.raises(ValueError, match="is empty or holds"):
        MockBackend(region=label)
    with pytest.raises(ValueError, match="is empty or holds"):
        MockBackend(id=label)


async def test_stop_closes_idle_connections_and_refuses_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_backend.server._DRAIN_TIMEOUT_S", 600)
    async with MockBackend() as backend:
        _, never_used = await asyncio.open_connection(backend.address, backend.port)
        reader, used = await asyncio.open_connection(backend.address, backend.port)
        used.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"OK - ")
        async with asyncio.timeout(10):
            await backend.stop()
            await reader.read()
    never_used.close()
    used.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(backend.address, backend.port)


async def test_request_that_arrived_before_the_stop_is_answered() -> None:
    backend = MockBackend()
    await backend.start()
    with socket.create_connection((backend.address, backend.port)) as client:
        # Neither accepted nor read yet: the loop has not run since.
        client.sendall(b"GET /api/info HTTP/1.1\r\nHost: x\r\n\r\n")
        await backend.stop()
        client.settimeout(10)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["request_count"] == 1


async def test_upload_that_never_ends_does_not_hold_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mock_backend.server._DRAIN_TIMEOUT_S", 0.1)
    async with MockBackend() as backend:
        reader, writer = await asyncio.open_connection(backend.address, backend.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun")
        await reader.readuntil(b"405 Method Not Allowed: ")
        async with asyncio.timeout(5):
            await backend.stop()
    writer.close()


async def test_client_that_left_before_its_answer_is_cut_off_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with MockBackend(faults="every request: delay 50 ms, reset") as backend:
        _, writer = await asyncio.open_connection(backend.address, backend.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.close()
        async with asyncio.timeout(10):
            while not select(backend.instrument.journal.entries(), event="answer"):
                await backend.instrument.entries_after(backend.instrument.journal.last_number, 10)
    assert caplog.records == []
