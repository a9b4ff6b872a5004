"""TLS that ends in the worker: who is shown what, what is refused, and that nobody suffers for others."""

from __future__ import annotations

import itertools
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from random import Random
from shutil import which
from typing import cast

import pytest

from edgeproxy.core.dataplane.identities import Identity, KeyPair
from edgeproxy.core.dataplane.listening import NO_APP, Listening
from edgeproxy.core.wire.proxy_protocol import encode_v1
from edgeproxy.worker.tls_farewell import Farewells
from edgeproxy.worker.tls_side import TlsSide
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.tls_clients import (
    NAME,
    TlsClient,
    identity,
    tls_client,
    tls_frame,
)
from packages.proxy.tests.integration.worker.workers import (
    TIMEOUT_S,
    Backends,
    ThreadedPlane,
    connected,
    in_background,
    is_reset,
    read_exactly,
    read_to_end,
    reset,
    row,
)
from testkit.pki import Pki
from testkit.wait import wait_until

MIB = 1 << 20


@pytest.fixture
def web(pki: Pki, tmp_path: Path) -> Identity:
    return identity(pki, tmp_path, NAME)


@pytest.fixture
def plane(start_plane: StartPlane, backend: Backends, web: Identity) -> ThreadedPlane:
    """A plane with one certificate."""
    return start_plane(row("web-1", backend.port), settings=tls_frame(web))


def names_of(client: TlsClient) -> set[str]:
    """What the certificate that the client was shown is for."""
    certificate = client.tls.getpeercert()
    assert certificate is not None
    entries = cast(tuple[tuple[str, str], ...], certificate["subjectAltName"])
    return {name for _, name in entries}


# ---- handshakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("rsa", [False, True])
def test_the_backend_gets_what_was_in_it(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path, version: ssl.TLSVersion, rsa: bool
) -> None:
    plane = start_plane(
        row("web-1", backend.port), settings=tls_frame(identity(pki, tmp_path, NAME, rsa=rsa))
    )
    with tls_client(plane.address, pki.client(version=version)) as client, backend.accept() as server:
        client.sendall(b"question")
        assert read_exactly(server, 8) == b"question"
        server.sendall(b"answer")
        assert read_exactly(client, 6) == b"answer"
        client.close()
        assert read_to_end(server) == b""
    (session,) = plane.sessions(1)
    assert (session.bytes_received, session.bytes_sent, session.reason) == (8, 6, "complete")


def test_older_versions_are_refused(plane: ThreadedPlane, pki: Pki) -> None:
    context = pki.client()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        TlsClient(plane.connect(), context)
    assert plane.sessions(1)[0].reason == "tls_failed"


@pytest.mark.parametrize(
    "greeting", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff" + bytes(600)]
)
def test_garbage_instead_of_a_hello_is_refused(plane: ThreadedPlane, greeting: bytes) -> None:
    with plane.connect() as client:
        client.sendall(greeting)
        assert is_reset(client)
    assert plane.sessions(1)[0].reason == "tls_failed"


def test_a_client_that_leaves_during_the_handshake_is_counted(plane: ThreadedPlane) -> None:
    with plane.connect() as client:
        client.sendall(b"\x16\x03\x01")
    assert plane.sessions(1)[0].reason == "tls_failed"


@pytest.mark.parametrize("greeting", [b"", b"\x16\x03\x01"])
def test_a_client_that_does_not_go_on_is_reset(
    start_plane: StartPlane, backend: Backends, web: Identity, greeting: bytes
) -> None:
    plane = start_plane(row("web-1", backend.port), settings=tls_frame(web, handshake_timeout_s=0.1))
    with plane.connect() as client:
        client.sendall(greeting)
        assert is_reset(client)
    assert plane.sessions(1)[0].reason == "tls_timeout"


def test_a_hello_may_come_byte_by_byte(plane: ThreadedPlane, backend: Backends, pki: Pki) -> None:
    class Trickle(socket.socket):
        def sendall(self, data: bytes, _flags: int = 0) -> None:  # type: ignore[override]
            for at in range(len(data)):
                super().sendall(data[at : at + 1])

    class SlowClient(TlsClient, Trickle):
        pass

    with closing(SlowClient(plane.connect(), pki.client())) as client, backend.accept() as server:
        client.sendall(b"slow")
        assert read_exactly(server, 4) == b"slow"


@pytest.mark.feature("tls.terminated")
def test_more_handshakes_than_allowed_are_refused(
    start_plane: StartPlane, backend: Backends, web: Identity, pki: Pki
) -> None:
    plane = start_plane(row("web-1", backend.port), settings=tls_frame(web, max_handshakes=2))
    with plane.connect() as one, plane.connect() as two:
        with plane.connect() as third:
            assert is_reset(third)
        assert plane.sessions(1)[0].reason == "tls_busy"
        one.close()
        assert plane.sessions(1)[0].reason == "tls_failed"
        with tls_client(plane.address, pki.client()), backend.accept():
            pass
        two.close()


def test_a_drain_ends_handshakes(plane: ThreadedPlane) -> None:
    with plane.connect() as client:
        client.sendall(b"\x16")
        wait_until(
            lambda: plane.call(lambda: plane.plane.open_connections), reason="the client to be taken in"
        )
        plane.call(plane.plane.reset_all)
        assert is_reset(client)
    assert plane.sessions(1)[0].reason == "shutdown"


def test_a_storm_of_handshakes_leaves_established_connections_their_turn(
    plane: ThreadedPlane, backend: Backends, pki: Pki
) -> None:
    """While a crowd shakes hands, each question of an established one waits for a few of them at most."""
    context = pki.client()
    with tls_client(plane.address, context) as client, backend.accept() as server, ExitStack() as at_end:
        hello = _client_hello(context)
        crowd = [at_end.enter_context(plane.connect()) for _ in range(300)]
        steps: list[int] = []
        tls = plane.plane.tls
        assert tls is not None
        handshakes = tls._with_clients
        step = handshakes._step
        answered = 0

        def counted(handshake: object) -> None:
            steps.append(answered)
            step(handshake)  # type: ignore[arg-type]

        handshakes._step = counted  # type: ignore[method-assign]
        # In one call of the loop, so that all are readable in the turn that follows.
        plane.call(partial(send_to_all, crowd, hello))
        while len(steps) < len(crowd):
            client.sendall(b"?")
            server.sendall(read_exactly(server, 1))
            read_exactly(client, 1)
            answered += 1
        assert answered > 10, "the crowd was served before the connection that was there first"


def send_to_all(clients: list[socket.socket], data: bytes) -> None:
    for client in clients:
        client.sendall(data)


def _client_hello(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=NAME).do_handshake()
    return outgoing.read()


# ---- what a client may ask for -------------------------------------------------------------------


@pytest.mark.feature("tls.certificates")
def test_the_certificate_is_chosen_by_name(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path
) -> None:
    identities = [identity(pki, tmp_path, name) for name in (NAME, "blog.example.com", "*.blog.example.com")]
    plane = start_plane(row("web-1", backend.port), settings=tls_frame(*identities))
    context = pki.client()
    for asked, shown in {
        "BLOG.example.com": "blog.example.com",
        "my.blog.example.com": "*.blog.example.com",
        NAME: NAME,
    }.items():
        with tls_client(plane.address, context, asked) as client:
            assert names_of(client) == {shown}
    context.check_hostname = False
    for asked_in_vain in (None, "elsewhere.example.org"):
        with tls_client(plane.address, context, asked_in_vain) as client:
            assert names_of(client) == {NAME}


def test_the_name_chooses_the_app(
    start_plane: StartPlane, backend: Backends, web: Identity, pki: Pki
) -> None:
    plane = start_plane(
        row("shop-1", backend.port, app="shop"),
        settings=tls_frame(
            web,
            listening=Listening(app=NO_APP, app_from_sni=True, terminates_tls=True),
            app_by_server_name={NAME: "shop"},
        ),
    )
    context = pki.client()
    with tls_client(plane.address, context) as client, backend.accept() as server:
        client.sendall(b"?")
        assert read_exactly(server, 1) == b"?"
    context.check_hostname = False
    with (
        tls_client(plane.address, context, "elsewhere.example.org") as client,
        pytest.raises(ConnectionResetError),
    ):
        client.recv(1)
    assert "unknown_name" in {each.reason for each in plane.sessions(2)}


def test_a_proxy_header_stands_before_the_handshake(
    start_plane: StartPlane, backend: Backends, web: Identity, pki: Pki
) -> None:
    plane = start_plane(
        row("web-1", backend.port),
        settings=tls_frame(
            web,
            listening=Listening(proxy_protocol=True, terminates_tls=True),
            proxy_protocol_trusted=("127.0.0.0/8",),
        ),
    )
    sock = connected(plane.address)
    sock.sendall(encode_v1("203.0.113.7", 4711, "198.51.100.1", 443))
    with closing(TlsClient(sock, pki.client())) as client, backend.accept() as server:
        client.sendall(b"?")
        assert read_exactly(server, 1) == b"?"
    assert plane.sessions(1)[0].client == "203.0.113.7"


def test_the_servers_favourite_protocol_is_agreed_on(
    start_plane: StartPlane, backend: Backends, web: Identity, pki: Pki
) -> None:
    plane = start_plane(row("web-1", backend.port), settings=tls_frame(web, alpn=("h2", "http/1.1")))
    context = pki.client()
    context.set_alpn_protocols(["http/1.1", "h2"])
    with tls_client(plane.address, context) as client:
        assert client.tls.selected_alpn_protocol() == "h2"


# ---- resumption and renewal ----------------------------------------------------------------------


def connect_again(
    plane: ThreadedPlane, context: ssl.SSLContext, earlier: ssl.SSLSession | None
) -> ssl.SSLSocket:
    """A client that resumes ``earlier``."""
    client = context.wrap_socket(plane.connect(), server_hostname=NAME, session=earlier)
    client.settimeout(TIMEOUT_S)
    return client


def echo(client: socket.socket, backend: Backends) -> None:
    with backend.accept() as server:
        client.sendall(b"?")
        server.sendall(read_exactly(server, 1))
        assert client.recv(1) == b"?"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_also_after_a_renewal(
    plane: ThreadedPlane, backend: Backends, pki: Pki, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = pki.client(version=version)
    with connect_again(plane, context, None) as client:
        echo(client, backend)
        session = client.session
    renewed = identity(pki, tmp_path, NAME)
    tls = plane.plane.tls
    assert tls is not None
    plane.call(lambda: tls.certificates.change([renewed]))
    with connect_again(plane, context, session) as client:
        echo(client, backend)
        assert client.session_reused


def shown_certificate(plane: ThreadedPlane, pki: Pki) -> bytes | None:
    with tls_client(plane.address, pki.client()) as client:
        return client.tls.getpeercert(binary_form=True)


@pytest.mark.feature("tls.certificates")
@pytest.mark.parametrize("rsa", [False, True])
def test_certificates_are_renewed_without_a_failed_handshake(
    plane: ThreadedPlane, pki: Pki, tmp_path: Path, rsa: bool
) -> None:
    """Also when the kind of key changes: the old certificate must not stay beside the new one."""
    tls = plane.plane.tls
    assert tls is not None
    seen = set[bytes | None]()
    stop = threading.Event()

    def is_shown(wanted: Identity) -> bool:
        leaf = wanted.pairs[0].chain.decode().partition("-----END")[0] + "-----END CERTIFICATE-----"
        return shown_certificate(plane, pki) == ssl.PEM_cert_to_DER_cert(leaf)

    def connect_on() -> None:
        while not stop.is_set():
            seen.add(shown_certificate(plane, pki))

    with in_background(connect_on):
        try:
            for number in range(3):
                renewed = identity(pki, tmp_path, NAME, rsa=rsa and number % 2 == 0)
                plane.call(partial(tls.certificates.change, [renewed]))
                wait_until(partial(is_shown, renewed), reason="the new certificate")
        finally:
            stop.set()
    assert len(seen) >= 2


def test_names_come_and_go(plane: ThreadedPlane, web: Identity, pki: Pki, tmp_path: Path) -> None:
    tls = plane.plane.tls
    assert tls is not None
    blog = identity(pki, tmp_path, "blog.example.com")
    context = pki.client()
    plane.call(lambda: tls.certificates.change([web, blog]))

    def is_shown() -> bool:
        with suppress(ssl.SSLCertVerificationError), tls_client(plane.address, context, "blog.example.com"):
            return True
        return False

    wait_until(is_shown, reason="the new name")
    plane.call(lambda: tls.certificates.change([web]))
    wait_until(lambda: not is_shown(), reason="the name to be gone")


def test_no_text_shows_a_key(web: Identity) -> None:
    assert "PRIVATE" not in f"{web} {web!r} {tls_frame(web)!r}"
    assert isinstance(web.pairs[0], KeyPair)


# ---- the relay -----------------------------------------------------------------------------------


def test_nothing_of_one_connection_reaches_another(
    plane: ThreadedPlane, backend: Backends, pki: Pki, rng: Random
) -> None:
    """Records in pieces, connections broken in the middle of one, all mixed: buffers are shared."""
    context = pki.client()
    with ExitStack() as at_end:
        pairs = []
        for _ in range(40):
            client = at_end.enter_context(tls_client(plane.address, context))
            pairs.append((client, at_end.enter_context(backend.accept())))
        streams = []
        for number, (client, _) in enumerate(pairs):
            records = client._encrypt(bytes([number]) * rng.randrange(2_000, 50_000))
            cuts = sorted(rng.sample(range(1, len(records)), 6))
            streams.append([records[a:b] for a, b in itertools.pairwise([0, *cuts, len(records)])])
        broken = set(rng.sample(range(len(pairs)), 10))
        order = [number for number, stream in enumerate(streams) for _ in stream]
        rng.shuffle(order)
        for number in order:
            piece = streams[number].pop(0)
            if number in broken and len(streams[number]) < 3:
                piece = bytes(len(piece))
            with suppress(OSError):
                socket.socket.sendall(pairs[number][0], piece)
        for number, (client, server) in enumerate(pairs):
            if number not in broken:
                client.shutdown(socket.SHUT_WR)
                assert set(read_to_end(server)) == {number}
            else:
                with suppress(ConnectionResetError):
                    while data := server.recv(1 << 16):
                        assert set(data) == {number}


def test_32_mib_both_ways_past_a_slow_reader_stay_whole_and_bounded(
    plane: ThreadedPlane, backend: Backends, pki: Pki, rng: Random
) -> None:
    data = rng.randbytes(32 * MIB)
    client = TlsClient(plane.connect(receive_bytes=32 << 10), pki.client())
    with closing(client), backend.accept() as server:
        most = 0
        received: dict[str, bytes] = {}

        def download() -> None:
            nonlocal most
            parts = []
            while part := client.recv(16 << 10):
                parts.append(part)
                if len(parts) % 64 == 0:
                    most = max(most, plane.call(lambda: plane.plane.relay._kept_bytes))
            received["down"] = b"".join(parts)

        def upload() -> None:
            for at in range(0, len(data), MIB):
                client.sendall(data[at : at + MIB])
            client.shutdown(socket.SHUT_WR)

        def answer() -> None:
            server.sendall(data)
            server.shutdown(socket.SHUT_WR)

        with in_background(download), in_background(upload), in_background(answer):
            received["up"] = read_to_end(server)
    assert received["up"] == data
    assert received["down"] == data
    assert most <= 512 << 10
    (session,) = plane.sessions(1)
    assert (session.bytes_received, session.bytes_sent) == (len(data), len(data))


def test_an_end_that_comes_with_the_last_words_is_passed_on(
    plane: ThreadedPlane, backend: Backends, pki: Pki
) -> None:
    with tls_client(plane.address, pki.client()) as client, backend.accept() as server:
        client.sendall(b"first")
        assert read_exactly(server, 5) == b"first"
        # The socket stays open, so no event will tell of it.
        client.send_last(b"and last")
        assert read_to_end(server) == b"and last"
        server.sendall(b"answer")
        assert read_exactly(client, 6) == b"answer"


def test_a_client_is_read_once_for_what_it_sent_at_once(
    plane: ThreadedPlane, backend: Backends, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_client(plane.address, pki.client()) as client, backend.accept() as server:
        reads = []
        read = TlsSide.recv_into

        def counted(side: TlsSide, buffer: memoryview, size: int, flags: int) -> int:
            reads.append(side)
            return read(side, buffer, size, flags)

        client.sendall(b"?")
        assert read_exactly(server, 1) == b"?"
        monkeypatch.setattr(TlsSide, "recv_into", counted)
        for _ in range(10):
            client.sendall(b"?")
            assert read_exactly(server, 1) == b"?"
            server.sendall(b"!")
            assert read_exactly(client, 1) == b"!"
    assert len(reads) <= 12  # with what the handshake had left, and the end


def test_a_stream_that_is_cut_off_is_no_orderly_end(
    plane: ThreadedPlane, backend: Backends, pki: Pki
) -> None:
    with tls_client(plane.address, pki.client()) as client, backend.accept() as server:
        client.sendall(b"half a")
        assert read_exactly(server, 6) == b"half a"
        socket.socket.shutdown(client, socket.SHUT_WR)
        assert is_reset(server)
    assert plane.sessions(1)[0].reason == "client_reset"


def test_a_client_that_was_told_the_end_may_leave_without_a_word(
    plane: ThreadedPlane, backend: Backends, pki: Pki
) -> None:
    with tls_client(plane.address, pki.client()) as client, backend.accept() as server:
        server.sendall(b"all")
        server.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"all"
        socket.socket.shutdown(client, socket.SHUT_WR)
        assert read_to_end(server) == b""
    assert plane.sessions(1)[0].reason == "complete"


def test_a_damaged_record_ends_the_connection(plane: ThreadedPlane, backend: Backends, pki: Pki) -> None:
    with tls_client(plane.address, pki.client()) as client, backend.accept() as server:
        record = bytearray(client._encrypt(b"question"))
        record[-1] ^= 1
        socket.socket.sendall(client, record)
        assert is_reset(server)
    assert plane.sessions(1)[0].reason == "client_reset"


@pytest.fixture
def stuck(
    plane: ThreadedPlane, backend: Backends, pki: Pki
) -> Iterator[tuple[TlsClient, socket.socket, int]]:
    """A client that has ended and reads nothing, what the backend has of it, and how many bytes are on their
    way to it: so many that its socket takes none more, not even an end."""
    client = TlsClient(plane.connect(receive_bytes=4 << 10), pki.client())
    with closing(client), backend.accept() as server:
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == b""
        yield client, server, plane.call(lambda: fill(plane))


def fill(plane: ThreadedPlane) -> int:
    """Send bytes to the only client until its socket takes no more; return how many."""
    (connection,) = plane.plane._connections
    side = connection._client
    assert isinstance(side, TlsSide)
    count = 0
    while side._unsent is None:
        side._tls.write(b"x" * 100)
        side._take_back()
        count += 100
    return count


def test_the_last_words_wait_for_a_client_that_reads_late(
    plane: ThreadedPlane, stuck: tuple[TlsClient, socket.socket, int]
) -> None:
    client, server, count = stuck
    server.close()
    assert plane.sessions(1)[0].reason == "complete"
    assert len(read_to_end(client)) == count


def test_the_last_words_wait_for_no_client_that_is_gone(
    plane: ThreadedPlane, stuck: tuple[TlsClient, socket.socket, int]
) -> None:
    client, server, _ = stuck
    farewells = farewells_of(plane)
    server.close()
    wait_until(lambda: farewells._deadlines.next_at() is not None, reason="the farewell")
    reset(client)
    wait_until(lambda: farewells._deadlines.next_at() is None, reason="the end of the farewell")


def test_the_last_words_do_not_wait_for_ever(
    plane: ThreadedPlane, stuck: tuple[TlsClient, socket.socket, int]
) -> None:
    client, server, count = stuck
    plane.call(lambda: setattr(farewells_of(plane)._deadlines, "duration_s", 0.01))
    server.close()
    assert plane.sessions(1)[0].reason == "complete"
    wait_until(lambda: farewells_of(plane)._deadlines.next_at() is None, reason="the end of the farewell")
    with pytest.raises(AssertionError, match="cut off"):
        assert len(read_to_end(client)) <= count


def test_a_drain_waits_for_the_last_words(
    plane: ThreadedPlane, stuck: tuple[TlsClient, socket.socket, int]
) -> None:
    client, server, count = stuck
    server.close()
    assert plane.sessions(1)[0].reason == "complete"
    plane.call(lambda: plane.plane.drain(plane.loop.stop))
    assert len(read_to_end(client)) == count
    plane.wait_for_loop_end()


def test_a_drain_that_is_over_cuts_the_last_words_short(
    plane: ThreadedPlane, stuck: tuple[TlsClient, socket.socket, int]
) -> None:
    _, server, _ = stuck
    server.close()
    assert plane.sessions(1)[0].reason == "complete"
    plane.call(lambda: plane.plane.drain(plane.loop.stop))
    plane.call(plane.plane.reset_all)
    plane.wait_for_loop_end()


def farewells_of(plane: ThreadedPlane) -> Farewells:
    assert plane.plane.tls is not None
    return plane.plane.tls.farewells


@pytest.mark.feature("tls.terminated")
@pytest.mark.skipif(which("openssl") is None, reason="needs the openssl program")
def test_openssl_is_served(plane: ThreadedPlane, backend: Backends) -> None:
    host, port = plane.address
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"{host}:{port}",
        "-servername",
        NAME,
        "-quiet",
        "-no_ign_eof",
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with backend.accept() as server:
        assert process.stdin is not None
        process.stdin.write(b"question\n")
        process.stdin.flush()
        assert read_exactly(server, 9) == b"question\n"
        server.sendall(b"answer\n")
        assert process.stdout is not None
        assert process.stdout.readline() == b"answer\n"
    process.communicate(timeout=TIMEOUT_S)
