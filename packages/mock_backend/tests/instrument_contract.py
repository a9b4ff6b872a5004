"""What a mock backend does as an instrument, in this process, as a process and in a container alike."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mock_backend.driver import DriverError
from mock_backend.plugin import RunningMockBackend
from testkit.pki import Pki
from testkit.proxy_protocol import encode_v1, encode_v2
from testkit.wait import wait_until

Start = Callable[..., RunningMockBackend]
TIMEOUT_S = 10.0
REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CLIENT, SERVER = ("203.0.113.9", 40000), ("198.51.100.1", 443)


@contextmanager
def connected(backend: RunningMockBackend, port_name: str = "http") -> Iterator[socket.socket]:
    where = (backend.address, backend.ports[port_name])
    with closing(socket.create_connection(where, timeout=TIMEOUT_S)) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def ask(
    backend: RunningMockBackend, path: str, method: str = "GET", body: bytes | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send one request on a connection of its own; return status, headers and body."""
    with closing(http.client.HTTPConnection(backend.address, backend.port, timeout=TIMEOUT_S)) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def statuses(backend: RunningMockBackend, count: int) -> list[int]:
    return [ask(backend, "/api/latency")[0] for _ in range(count)]


def as_it_began(backend: RunningMockBackend) -> RunningMockBackend:
    """Have a shared backend forget the test before, to the last connection of it."""
    backend.driver.reset()
    wait_until(
        lambda: backend.driver.status()["open_connections"] == 0,
        reason="the connections of another test to end",
    )
    backend.driver.forget()
    return backend


class InstrumentContract:
    """Subclass it and define the fixtures ``plain`` and ``secured``, of class scope."""

    @pytest.fixture
    def backend(self, plain: RunningMockBackend) -> RunningMockBackend:
        """A backend with TCP and UDP echo, as it began."""
        return as_it_began(plain)

    # ---- identity and answers --------------------------------------------------------------------------

    def test_status_tells_identity_ports_and_counts(self, backend: RunningMockBackend) -> None:
        assert ask(backend, "/api/info")[0] == 200
        status = backend.driver.status()
        assert (status["id"], status["region"]) == (backend.id, backend.region)
        assert set(status["ports"]) == {"http", "tcp-echo", "udp-echo", "admin"}
        assert (status["state"], status["script"], status["faults"], status["seed"]) == ("ready", "", "", 0)
        assert sum(status["clients"].values()) == 1

    def test_echo_returns_the_request_as_it_came(self, backend: RunningMockBackend) -> None:
        status, headers, body = ask(backend, "/echo?a=1&b=%20", "POST", b"payload")
        told = json.loads(body)
        assert (status, headers["X-Backend-ID"]) == (200, backend.id)
        assert (told["method"], told["path"], told["query"]) == ("POST", "/echo", "a=1&b=%20")
        assert (told["body_bytes"], told["body"]) == (7, "payload")
        assert ["Content-Length", "7"] in told["headers"]

    def test_echo_shows_only_the_beginning_of_a_long_body(self, backend: RunningMockBackend) -> None:
        told = json.loads(ask(backend, "/echo", "PUT", b"x" * 3_000_000)[2])
        assert told["body_bytes"] == 3_000_000
        assert told["body"] == "x" * 65536

    @pytest.mark.parametrize("code", [200, 204, 302, 404, 503, 599])
    def test_status_is_the_one_asked_for(self, backend: RunningMockBackend, code: int) -> None:
        status, headers, _ = ask(backend, f"/status/{code}")
        assert (status, headers["X-Region"]) == (code, backend.region)

    def test_delay_answers_after_its_time(self, backend: RunningMockBackend) -> None:
        assert ask(backend, "/delay/30")[2] == b"ok\n"
        asked, answered = backend.driver.journal(path="/delay/30")
        assert answered.at_s - asked.at_s >= 0.03

    @pytest.mark.parametrize("count", [0, 1, 65536, 200_001])
    def test_bytes_have_their_length_told_before(self, backend: RunningMockBackend, count: int) -> None:
        _, headers, body = ask(backend, f"/bytes/{count}")
        assert headers["Content-Length"] == str(count)
        assert body == bytes(count)

    def test_head_of_streams_has_no_body(self, backend: RunningMockBackend) -> None:
        assert ask(backend, "/bytes/1000", "HEAD")[2] == b""
        assert ask(backend, "/stream", "HEAD")[2] == b""

    def test_stream_is_chunked_and_has_its_trailer(self, backend: RunningMockBackend) -> None:
        request = b"GET /stream?chunks=2&bytes=3&interval_ms=1&trailer=X-Sum HTTP/1.1\r\nHost: x\r\n"
        with connected(backend) as client:
            client.sendall(request + b"Connection: close\r\n\r\n")
            head, _, body = read_all(client).partition(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert b"Trailer: X-Sum" in head
        checksum = b"%08x" % zlib.crc32(b"0\n01\n1")
        assert body == b"3\r\n0\n0\r\n3\r\n1\n1\r\n0\r\nX-Sum: " + checksum + b"\r\n\r\n"

    def test_connection_serves_on_after_a_stream(self, backend: RunningMockBackend) -> None:
        with closing(http.client.HTTPConnection(backend.address, backend.port, timeout=TIMEOUT_S)) as kept:
            for path, length in (("/stream?chunks=3", 30), ("/bytes/5", 5), ("/stream?chunks=0", 0)):
                kept.request("GET", path)
                assert len(kept.getresponse().read()) == length
        assert len({entry.connection for entry in backend.driver.journal(event="answer")}) == 1

    @pytest.mark.parametrize(
        "path",
        [
            *("/status/600", "/status/x", "/delay/60001", "/bytes/-1", "/bytes/99999999999", "/ws"),
            *("/stream?chunks=100001", "/stream?bytes=0", "/stream?trailer=a%0d%0ab"),
        ],
    )
    def test_what_is_not_possible_is_refused_with_the_reason(
        self, backend: RunningMockBackend, path: str
    ) -> None:
        status, headers, body = ask(backend, path)
        assert (status, headers["X-Backend-ID"]) == (400, backend.id)
        assert body.count(b"\n") == 1

    @pytest.mark.parametrize("path", ["/status", "/status/", "/stream/1", "/echo/", "/nothing"])
    def test_other_paths_are_not_found(self, backend: RunningMockBackend, path: str) -> None:
        assert ask(backend, path)[0] in (400, 404)

    def test_websocket_echoes_text_and_binary(self, backend: RunningMockBackend) -> None:
        async def talk() -> None:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"ws://{backend.address}:{backend.port}/ws") as ws,
            ):
                await ws.send_str("grüße")
                assert await ws.receive_str(timeout=TIMEOUT_S) == "grüße"
                await ws.send_bytes(b"\0\xff")
                assert await ws.receive_bytes(timeout=TIMEOUT_S) == b"\0\xff"

        asyncio.run(talk())
        (closed,) = backend.driver.wait_for(event="close")
        assert closed.detail == "closed"

    # ---- raw echo --------------------------------------------------------------------------------------

    def test_tcp_echo_returns_everything_after_a_half_close(self, backend: RunningMockBackend) -> None:
        with connected(backend, "tcp-echo") as client:
            client.sendall(b"x" * 100_000)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"x" * 100_000
        (opened,) = backend.driver.journal(event="open")
        assert opened.detail == "tcp-echo"

    def test_udp_echo_returns_datagrams_unless_the_state_is_against_it(
        self, backend: RunningMockBackend
    ) -> None:
        where = (backend.address, backend.ports["udp-echo"])
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.settimeout(TIMEOUT_S)
            backend.driver.set_state("hung")
            client.sendto(b"lost", where)
            backend.driver.wait_for(event="datagram")
            backend.driver.set_state("ready")
            client.sendto(b"kept", where)
            assert client.recv(100) == b"kept"
        assert [entry.detail for entry in backend.driver.journal(event="datagram")] == ["4 bytes"] * 2

    # ---- scripts ---------------------------------------------------------------------------------------

    @pytest.mark.feature("testing.mock_backend.scripts")
    def test_third_connection_reads_ten_bytes_and_is_reset(self, backend: RunningMockBackend) -> None:
        backend.driver.set_script("connection 3: accept, read 10 bytes, reset")
        assert statuses(backend, 2) == [200, 200]
        with connected(backend) as third:
            # No more than is read: what is left unread would make a reset of an orderly end.
            third.sendall(b"0123456789")
            with pytest.raises(ConnectionResetError):
                read_all(third)
        assert statuses(backend, 1) == [200]
        (read,) = backend.driver.journal(event="read")
        assert read.detail == "10 bytes"
        (closed,) = backend.driver.journal(event="close", connection=read.connection)
        assert closed.detail == "reset"

    def test_script_talks_another_protocol(self, backend: RunningMockBackend) -> None:
        backend.driver.set_script(
            'every connection: send "220 hi\\u00ff\\r\\n", half-close, read to the end, close'
        )
        with connected(backend) as client:
            assert read_all(client) == b"220 hi\xff\r\n"
            client.sendall(b"QUIT\r\n")
            client.shutdown(socket.SHUT_WR)
            (read,) = backend.driver.wait_for(event="read")
        assert read.detail == "6 bytes"

    def test_script_waits_and_then_serves_all_that_came(self, backend: RunningMockBackend) -> None:
        backend.driver.set_script("connections 1-: wait 20 ms, serve")
        assert statuses(backend, 1) == [200]
        opened, asked, *_ = backend.driver.journal()[1:]
        assert asked.at_s - opened.at_s >= 0.02

    def test_script_echoes(self, backend: RunningMockBackend) -> None:
        backend.driver.set_script("connection 1: read 2 bytes, echo")
        with connected(backend) as client:
            client.sendall(b"01234")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"234"

    def test_every_second_connection_is_closed(self, backend: RunningMockBackend) -> None:
        backend.driver.set_script("every 2nd connection: close")
        outcomes = []
        for _ in range(4):
            with connected(backend) as client:
                client.sendall(REQUEST)
                try:
                    outcomes.append(bool(read_all(client)))
                except ConnectionResetError:
                    # Closed with the request unread.
                    outcomes.append(False)
        assert outcomes == [True, False, True, False]

    def test_hanging_connection_gets_nothing_while_others_are_served(
        self, backend: RunningMockBackend
    ) -> None:
        backend.driver.set_script("connection 1: hang")
        with connected(backend) as hanging:
            hanging.sendall(REQUEST)
            assert statuses(backend, 1) == [200]
            hanging.setblocking(False)
            with pytest.raises(BlockingIOError):
                hanging.recv(1)
            hanging.settimeout(TIMEOUT_S)
            backend.driver.reset()
            # With the request unread, the end is a reset.
            with suppress(ConnectionResetError):
                assert read_all(hanging) == b""

    def test_client_that_leaves_too_early_is_told_in_the_journal(self, backend: RunningMockBackend) -> None:
        backend.driver.set_script("connection 1: read 10 bytes, serve")
        with connected(backend) as client:
            client.sendall(b"012")
        (closed,) = backend.driver.wait_for(event="close")
        assert closed.detail == "failed: ConnectionLostError: ended after 3 of 10 bytes"

    def test_wrong_script_is_refused_and_the_old_one_stays(self, backend: RunningMockBackend) -> None:
        backend.driver.set_script("connection 9: reset")
        with pytest.raises(DriverError, match="statement 1: 'explode' is none of: accept, read to the end"):
            backend.driver.set_script("connection 3: explode")
        assert backend.driver.status()["script"] == "connection 9: reset"

    # ---- states ----------------------------------------------------------------------------------------

    @pytest.mark.feature("testing.mock_backend.states")
    def test_unready_fails_health_and_serves(self, backend: RunningMockBackend) -> None:
        backend.driver.set_state("unready")
        status, _, body = ask(backend, "/health")
        assert (status, body) == (503, b"503 Service Unavailable: unready\n")
        assert statuses(backend, 1) == [200]

    def test_draining_fails_health_and_closes_after_each_answer(self, backend: RunningMockBackend) -> None:
        backend.driver.set_state("draining")
        assert ask(backend, "/health")[0] == 503
        status, headers, _ = ask(backend, "/api/info")
        assert (status, headers["Connection"]) == (200, "close")

    def test_hung_answers_when_it_recovers(self, backend: RunningMockBackend) -> None:
        with connected(backend) as kept, connected(backend) as new:
            kept.sendall(b"GET /api/latency HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(65536).startswith(b"HTTP/1.1 200")
            backend.driver.set_state("hung")
            kept.sendall(REQUEST)
            backend.driver.wait_for(event="request", path="/health")
            new.sendall(REQUEST)
            with connected(backend) as last:
                last.sendall(REQUEST)
                backend.driver.wait_for(3, event="open")
                last.setblocking(False)
                with pytest.raises(BlockingIOError):
                    last.recv(1)
                last.settimeout(TIMEOUT_S)
                backend.driver.set_state("ready")
                assert [read_all(each).count(b"OK - ") for each in (kept, new, last)] == [1, 1, 1]

    def test_refusing_resets(self, backend: RunningMockBackend) -> None:
        backend.driver.set_state("refusing")
        how = "in order"
        try:
            with connected(backend) as client:
                assert read_all(client) == b""
        except ConnectionResetError:
            # So soon, perhaps, that it is connecting which fails.
            how = "reset"
        assert how == "reset"
        (closed,) = backend.driver.wait_for(event="close")
        assert closed.detail == "reset: refusing"

    def test_not_listening_refuses_and_keeps_its_ports(self, backend: RunningMockBackend) -> None:
        with closing(http.client.HTTPConnection(backend.address, backend.port, timeout=TIMEOUT_S)) as kept:
            kept.request("GET", "/health")
            kept.getresponse().read()
            backend.driver.set_state("not-listening")
            for name in ("http", "tcp-echo"):
                with pytest.raises(ConnectionRefusedError), connected(backend, name):
                    pass
            kept.request("GET", "/health")
            assert kept.getresponse().status == 200
        backend.driver.set_state("ready")
        assert statuses(backend, 1) == [200]

    def test_unknown_state_is_refused(self, backend: RunningMockBackend) -> None:
        with pytest.raises(DriverError, match="'asleep' is none of ready, unready, draining"):
            backend.driver.set_state("asleep")

    # ---- faults ----------------------------------------------------------------------------------------

    @pytest.mark.feature("testing.mock_backend.faults")
    def test_share_of_requests_fails_and_the_seed_says_which(self, backend: RunningMockBackend) -> None:
        runs = []
        for seed in (7, 7, 8):
            backend.driver.set_faults("50 % of requests to /api/*: status 503", seed)
            runs.append(statuses(backend, 24))
        assert runs[0] == runs[1] != runs[2]
        assert set(runs[0]) == {200, 503}
        assert ask(backend, "/health")[0] == 200

    def test_injected_error_carries_the_identity(self, backend: RunningMockBackend) -> None:
        backend.driver.set_faults("requests to /api/info: status 500")
        status, headers, body = ask(backend, "/api/info")
        assert (status, headers["X-Backend-ID"]) == (500, backend.id)
        assert body == b"500 Internal Server Error: injected\n"

    def test_injected_delay_holds_the_answer_back(self, backend: RunningMockBackend) -> None:
        backend.driver.set_faults("every request: delay 10-20 ms; requests to /api/*: delay 10 ms")
        ask(backend, "/api/latency")
        asked, answered = backend.driver.journal(path="/api/latency")
        assert answered.at_s - asked.at_s >= 0.02

    @pytest.mark.parametrize("cut", ["reset", "close"])
    def test_request_is_cut_off(self, backend: RunningMockBackend, cut: str) -> None:
        backend.driver.set_faults(f"every request: {cut}")
        with connected(backend) as client:
            client.sendall(REQUEST)
            if cut == "reset":
                with pytest.raises(ConnectionResetError):
                    read_all(client)
            else:
                assert read_all(client) == b""
        (answered,) = backend.driver.journal(event="answer")
        assert (answered.status, answered.detail) == (0, cut)

    # ---- journal ---------------------------------------------------------------------------------------

    @pytest.mark.feature("testing.mock_backend.journal")
    def test_journal_tells_a_connection_in_order(self, backend: RunningMockBackend) -> None:
        ask(backend, "/api/info")
        backend.driver.wait_for(event="close")
        entries = backend.driver.journal()
        assert [entry.event for entry in entries] == ["open", "request", "answer", "close"]
        assert len({entry.connection for entry in entries}) == 1
        assert entries[2].status == 200
        assert [entry.number for entry in entries] == sorted(entry.number for entry in entries)
        assert backend.driver.journal(after=entries[-1].number) == []

    def test_what_is_no_http_is_told(self, backend: RunningMockBackend) -> None:
        with connected(backend) as client:
            client.sendall(b"\x16\x03\x01\x02\x00\r\n\r\n")
            assert b" 400 " in read_all(client)
        (malformed,) = backend.driver.journal(event="malformed")
        assert malformed.status == 400

    def test_waiting_in_vain_tells_what_there_was(self, backend: RunningMockBackend) -> None:
        ask(backend, "/api/info")
        with pytest.raises(TimeoutError, match=r"0 of 2 entries with .*'/nothing'.*api/info"):
            backend.driver.wait_for(2, path="/nothing", timeout_s=0.05)

    def test_forgotten_entries_are_gone_and_numbers_go_on(self, backend: RunningMockBackend) -> None:
        ask(backend, "/api/info")
        last = backend.driver.wait_for(event="close")[0].number
        backend.driver.forget()
        assert backend.driver.journal() == []
        ask(backend, "/api/info")
        assert backend.driver.journal()[0].number > last

    # ---- who came, and how -----------------------------------------------------------------------------

    @pytest.mark.feature("testing.mock_backend.proxy_protocol")
    @pytest.mark.parametrize(
        ("header", "version"),
        [(encode_v1(CLIENT, SERVER), 1), (encode_v2(CLIENT, SERVER, ((0xE0, b"tag"),)), 2)],
    )
    def test_proxy_header_tls_and_certificate_are_read_out(
        self, secured: RunningMockBackend, pki: Pki, header: bytes, version: int
    ) -> None:
        as_it_began(secured)
        request = b"GET /connection HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with connected(secured) as raw:
            raw.sendall(header)
            context = pki.client(certificate_for="alice")
            with context.wrap_socket(raw, server_hostname="mock.example") as client:
                client.sendall(request)
                told = json.loads(read_all_tls(client).partition(b"\r\n\r\n")[2])
        assert told["client"] == "203.0.113.9:40000"
        assert told["proxy"]["version"] == version
        assert told["proxy"]["source"] == list(CLIENT)
        assert told["proxy"]["tlvs"] == ([[0xE0, b"tag".hex()]] if version == 2 else [])
        assert told["tls"]["version"] == "TLSv1.3"
        assert "alice" in told["tls"]["client_certificate"]
        assert secured.driver.status()["clients"] == {"203.0.113.9": 1}
        assert secured.driver.journal(event="proxy")[0].client == "203.0.113.9:40000"

    def test_connection_of_the_proxys_own_keeps_its_address(
        self, secured: RunningMockBackend, pki: Pki
    ) -> None:
        as_it_began(secured)
        with connected(secured) as raw:
            raw.sendall(encode_v2())
            context = pki.client(certificate_for="probe")
            with context.wrap_socket(raw, server_hostname="mock.example") as client:
                client.sendall(REQUEST)
                assert b"OK - " in read_all_tls(client)
        opened, proxied = secured.driver.journal(event="open") + secured.driver.journal(event="proxy")
        assert opened.client == proxied.client

    def test_client_without_a_certificate_is_turned_away(self, secured: RunningMockBackend, pki: Pki) -> None:
        as_it_began(secured)
        with connected(secured) as raw:
            raw.sendall(encode_v1())
            # In TLS 1.3 a client hears of it when it reads, as an alert, a reset or an end.
            with (
                suppress(ssl.SSLError, ConnectionError),
                pki.client().wrap_socket(raw, server_hostname="mock.example") as client,
            ):
                client.sendall(REQUEST)
                assert client.recv(1) == b""
        (closed,) = secured.driver.wait_for(event="close")
        assert "SSL" in closed.detail
        assert secured.driver.status()["open_connections"] == 0

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", "neither version's signature"),
            (b"PROXY TCP4 1.2.3.4 1.2.3.5 1 99999\r\n", "is no port"),
            (b"PROXY UNK", "ended before its PROXY header did"),
        ],
    )
    def test_connection_without_a_good_proxy_header_is_closed_and_told(
        self, secured: RunningMockBackend, sent: bytes, reason: str
    ) -> None:
        as_it_began(secured)
        received = b""
        # What is left unread when it is closed becomes a reset.
        with suppress(OSError), connected(secured) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            received = read_all(client)
        assert received == b""
        (closed,) = secured.driver.wait_for(event="close")
        assert reason in closed.detail

    # ---- the admin API ---------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [
            ("GET", "/nothing", b"", 404),
            ("GET", "/state", b"", 405),
            ("PUT", "/state", b"", 400),
            ("PUT", "/state", b"[" * 100_000, 400),
            ("PUT", "/state", b'{"state": "ready", "more": 1}', 400),
            ("PUT", "/faults", b'{"faults": "", "seed": true}', 400),
            ("PUT", "/script", b'{"script": "' + b"x" * 300_000 + b'"}', 413),
            ("GET", "/journal?after=x", b"", 400),
        ],
    )
    def test_wrong_call_is_refused_in_one_line(
        self, plain: RunningMockBackend, method: str, path: str, body: bytes, status: int
    ) -> None:
        where = (plain.driver.host, plain.driver.port)
        with closing(http.client.HTTPConnection(*where, timeout=TIMEOUT_S)) as connection:
            connection.request(method, path, body or None, plain.driver.headers)
            answer = connection.getresponse()
            assert answer.status == status
            assert set(json.loads(answer.read())) == {"error"}

    def test_admin_api_demands_its_token(self, secured: RunningMockBackend) -> None:
        where = (secured.driver.host, secured.driver.port)
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with closing(http.client.HTTPConnection(*where, timeout=TIMEOUT_S)) as connection:
                connection.request("GET", "/status", headers=headers)
                assert connection.getresponse().status == 401


def read_all_tls(client: ssl.SSLSocket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def secured_options(folder: Path, pki: Pki) -> dict[str, Any]:
    """What ``secured`` is started with: PROXY header, then TLS that asks for clients' certificates."""
    pki.issue(folder / "cert.pem", folder / "key.pem", "mock.example")
    (folder / "ca.pem").write_bytes(pki.authority)
    return {
        "tls_cert": str(folder / "cert.pem"),
        "tls_key": str(folder / "key.pem"),
        "tls_client_ca": str(folder / "ca.pem"),
        "proxy_protocol": True,
        "admin_token": "secret-of-the-test",
    }
