"""Probes against real sockets: who answers, who does not, and who is at fault."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress

import pytest

from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendTls, ProxyVersion
from edgeproxy.core.model import Backend
from edgeproxy.core.wire.proxy_protocol import LOCAL_V2
from edgeproxy.outbound.probe_http import HttpProbe
from edgeproxy.outbound.probe_tcp import TcpProbe
from edgeproxy.outbound.probes import Probes
from edgeproxy.ports import Probe
from mock_backend.threaded import ThreadedMockBackend
from packages.proxy.tests.integration.worker.workers import in_background
from testkit.faults.listeners import refusing_port, unanswering_port
from testkit.pki import Pki

TIMEOUT_S = 10.0
BOTH = pytest.mark.parametrize("probe", [TcpProbe(), HttpProbe("/health")], ids=["tcp", "http"])


@asynccontextmanager
async def answering(answer: bytes, host: str = "127.0.0.1") -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that reads a request, says ``answer`` and closes; its port, and the requests so far."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who only connects sends none.
        with closing(writer), suppress(asyncio.IncompleteReadError):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)

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
    with refusing_port() as port:
        assert await check(probe, port) == "connection refused"


@BOTH
async def test_a_backend_that_never_answers_takes_until_the_check_is_given_up(probe: Probe) -> None:
    with unanswering_port() as port, pytest.raises(TimeoutError):
        await asyncio.wait_for(probe.check("127.0.0.1", "127.0.0.1", port), 0.1)


@BOTH
async def test_ipv6_is_spoken(probe: Probe) -> None:
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n", "::1") as (port, _):
        assert await check(probe, port, "::1") is None
    with refusing_port("::1") as port:
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


async def test_a_reset_instead_of_an_answer_is_told(
    mock_backend_factory: Callable[..., ThreadedMockBackend],
) -> None:
    backend = mock_backend_factory(script="every connection: read 14 bytes, reset")
    assert await check(HttpProbe("/"), backend.port) == "connection reset by peer"


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


# ---- as clients' connections begin ---------------------------------------------------------------

BACKEND = Backend("b", "shop", "eu", "DE", "127.0.0.1", 0, True, 1, 1, 0)
IN_TLS = BackendTls()


@contextmanager
def server(
    tls: ssl.SSLContext | None = None, header: bytes = b"", answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n"
) -> Iterator[int]:
    """One that serves one connection, and wants ``header`` first, then TLS, then a request; its port."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock, suppress(OSError):
            sock.settimeout(TIMEOUT_S)
            if header and sock.recv(len(header), socket.MSG_WAITALL) != header:
                return
            with tls.wrap_socket(sock, server_side=True) if tls is not None else sock as stream:
                if stream.recv(4096):
                    stream.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        with in_background(serve):
            yield listener.getsockname()[1]


@pytest.mark.parametrize("http_path", [None, "/health"])
@pytest.mark.parametrize(
    ("version", "header"),
    [(None, b""), (ProxyVersion.V1, b"PROXY UNKNOWN\r\n"), (ProxyVersion.V2, LOCAL_V2)],
)
async def test_a_check_begins_as_the_rule_says(
    pki: Pki, http_path: str | None, version: ProxyVersion | None, header: bytes
) -> None:
    for tls in (None, IN_TLS):
        if version is None and tls is None:
            continue
        rule = BackendRule(version, match="b", tls=tls)
        probe = Probes(http_path, (rule,), {IN_TLS: pki.client()}).of(BACKEND)
        with server(pki.server("127.0.0.1") if tls is not None else None, header) as port:
            assert await check(probe, port) is None


async def test_a_backend_without_a_rule_is_asked_as_any_other() -> None:
    probes = Probes(None, (BackendRule(ProxyVersion.V1, match="other"),), {})
    async with answering(b"") as (port, _):
        assert await check(probes.of(BACKEND), port) is None


@pytest.mark.parametrize("http_path", [None, "/health"])
async def test_a_certificate_that_is_not_accepted_is_no_health(pki: Pki, http_path: str | None) -> None:
    rule = BackendRule(match="b", tls=BackendTls(server_name="shop.internal"))
    assert rule.tls is not None
    probe = Probes(http_path, (rule,), {rule.tls: pki.client()}).of(BACKEND)
    with server(pki.server("127.0.0.1")) as port:
        why = await check(probe, port)
    assert why is not None
    assert why.startswith("in TLS: its certificate is not accepted: Hostname mismatch")


async def test_a_backend_that_speaks_no_tls_is_not_well(pki: Pki) -> None:
    probe = Probes(None, (BackendRule(match="b", tls=IN_TLS),), {IN_TLS: pki.client()}).of(BACKEND)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 welcome\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        assert await check(probe, listening.sockets[0].getsockname()[1]) == "in TLS: wrong version number"


async def test_the_status_decides_in_tls_too(pki: Pki) -> None:
    probe = Probes("/", (BackendRule(match="b", tls=IN_TLS),), {IN_TLS: pki.client()}).of(BACKEND)
    with server(pki.server("127.0.0.1"), answer=b"HTTP/1.1 503 Overloaded\r\n\r\n") as port:
        assert await check(probe, port) == "answers with status 503"
