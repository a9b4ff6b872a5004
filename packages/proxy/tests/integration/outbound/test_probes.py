"""Probes against real sockets: who answers, who does not, and who is at fault."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from edgeproxy.outbound.probe_http import HttpProbe
from edgeproxy.outbound.probe_tcp import TcpProbe
from edgeproxy.ports import Probe
from mock_backend.threaded import ThreadedMockBackend

TIMEOUT_S = 10.0
BOTH = pytest.mark.parametrize("probe", [TcpProbe(), HttpProbe("/health")], ids=["tcp", "http"])


@contextmanager
def refusing(family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


@asynccontextmanager
async def answering(answer: bytes, host: str = "127.0.0.1") -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that reads a request, says ``answer`` and closes; its port, and the requests so far."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


async def check(probe: Probe, port: int, address: str = "127.0.0.1", host: str | None = None) -> str | None:
    async with asyncio.timeout(TIMEOUT_S):
        return await probe.check(host or address, address, port)


@BOTH
async def test_a_backend_that_answers_is_well(
    probe: Probe, mock_backend_factory: Callable[..., ThreadedMockBackend]
) -> None:
    backend = mock_backend_factory()
    assert await check(probe, backend.port) is None


@BOTH
async def test_a_backend_that_refuses_is_not(probe: Probe) -> None:
    with refusing() as port:
        assert await check(probe, port) == "connection refused"


@BOTH
async def test_a_backend_that_never_answers_takes_until_the_check_is_given_up(probe: Probe) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(2)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(probe.check("127.0.0.1", "127.0.0.1", port), 0.1)
        for filler in fillers:
            filler.close()


@BOTH
async def test_ipv6_is_spoken(probe: Probe) -> None:
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n", "::1") as (port, _):
        assert await check(probe, port, "::1") is None
    with refusing(socket.AF_INET6, "::1") as port:
        assert await check(probe, port, "::1") == "connection refused"


@BOTH
async def test_a_machine_without_descriptors_blames_nobody_else(probe: Probe) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as newest:
        used = newest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            await probe.check("127.0.0.1", "127.0.0.1", 9)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@BOTH
async def test_a_machine_without_ports_blames_nobody_else(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_port_left(_sock: socket.socket, _address: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "no port is left")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", no_port_left)
    with pytest.raises(OSError, match="no port is left"):
        await probe.check("127.0.0.1", "127.0.0.1", 9)


async def test_a_hung_process_still_has_a_kernel_that_accepts() -> None:
    """Why TCP checks do not notice a stopped process, and HTTP checks do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert await check(TcpProbe(), port) is None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(HttpProbe("/").check("127.0.0.1", "127.0.0.1", port), 0.1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
        (b"HTTP/1.0 299 Fine\r\n\r\n", None),
        (b"HTTP/1.1 204\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\n\n", None),
        (b"HTTP/1.1 199 Almost\r\n\r\n", "answers with status 199"),
        (b"HTTP/1.1 301 Moved\r\n\r\n", "answers with status 301"),
        (b"HTTP/1.1 503 Overloaded\r\n\r\n", "answers with status 503"),
        (b"HTTP/2 200 OK\r\n\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "does not answer in HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "does not answer in HTTP"),
        (b"x" * 100_000, "does not answer in HTTP"),
        (b"HTTP/1.1 200", "closed the connection without an answer"),
        (b"", "closed the connection without an answer"),
    ],
)
async def test_the_status_line_decides(answer: bytes, expected: str | None) -> None:
    async with answering(answer) as (port, _):
        assert await check(HttpProbe("/"), port) == expected


async def test_a_status_line_may_come_byte_by_byte() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        assert await check(HttpProbe("/"), server.sockets[0].getsockname()[1]) is None


async def test_a_reset_instead_of_an_answer_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        why = await check(HttpProbe("/"), server.sockets[0].getsockname()[1])
    assert why == "connection reset by peer"


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", b"127.0.0.1"),
        ("web.example", "127.0.0.1", b"web.example"),
        ("::1", "::1", b"[::1]"),
        ("fe80::1%eth0", "::1", b"[fe80::1]"),
    ],
)
async def test_the_host_is_named_as_http_wants_it(host: str, address: str, expected: bytes) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", address) as (port, requests):
        assert await check(HttpProbe("/is?well=1"), port, address, host) is None
    (request,) = requests
    lines = request.split(b"\r\n")
    assert lines[0] == b"GET /is?well=1 HTTP/1.1"
    assert b"Host: " + expected + b":%d" % port in lines
    assert b"Connection: close" in lines
