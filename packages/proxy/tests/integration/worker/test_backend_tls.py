"""TLS with backends: on which terms, what is said in it, and what becomes of a client when it fails."""

from __future__ import annotations

import gc
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendTls, ProxyVersion
from edgeproxy.core.dataplane.identities import BackendCredentials, KeyPair
from edgeproxy.core.wire.frames import Start, TlsSettings
from edgeproxy.core.wire.proxy_protocol import Header, encode_v1, read_header
from edgeproxy.worker import backend_contexts
from edgeproxy.worker.tls_side import TlsSide
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.tls_clients import (
    NAME,
    TlsServer,
    backend_tls,
    identity,
    key_pair,
    tls_client,
    tls_frame,
)
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    ThreadedPlane,
    in_background,
    is_reset,
    read_exactly,
    read_to_end,
    reset,
    row,
    start_frame,
)
from testkit.pki import Pki
from testkit.wait import wait_until

HOST = "127.0.0.1"

pytestmark = pytest.mark.feature("tls.backends")


@pytest.fixture
def elsewhere() -> Iterator[Backends]:
    """A backend that clients are sent to when the nearer one fails."""
    with closing(Backends()) as backend:
        yield backend


def tls_to(match: str, pki: Pki) -> Start:
    """TLS to the backends whose id matches, and to no other."""
    start = msgspec.structs.replace(start_frame(), backend_rules=(BackendRule(match=match),))
    return backend_tls(start, pki)


def answers(client: socket.socket, server: socket.socket) -> bool:
    client.sendall(b"question")
    assert read_exactly(server, 8) == b"question"
    server.sendall(b"answer")
    return read_exactly(client, 6) == b"answer"


@contextmanager
def failing(backend: Backends, context: ssl.SSLContext) -> Iterator[None]:
    """A backend that does its part of one handshake, which does not come about."""

    def fail() -> None:
        with backend.accept() as sock, pytest.raises((OSError, AssertionError)):
            TlsServer(sock, context).recv(1)

    with in_background(fail):
        yield


def whys(plane: ThreadedPlane) -> list[str]:
    """What the log is told of backends without TLS."""
    return [str(each.fields["why"]) for each in plane.notices if each.event == "no TLS with a backend"]


# ---- terms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_certificate_may_be_for_the_host_of_the_row(
    start_plane: StartPlane, backend: Backends, pki: Pki, version: ssl.TLSVersion
) -> None:
    plane = start_plane(row("b", backend.port), settings=backend_tls(start_frame(), pki))
    context = pki.server(HOST)
    context.maximum_version = version
    with plane.connect() as client, TlsServer(backend.accept(), context) as server:
        assert answers(client, server)
        assert server.tls.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        client.close()
        assert read_to_end(server) == b""
        server.close()
    (session,) = plane.sessions(1)
    assert (session.bytes_received, session.bytes_sent, session.reason) == (8, 6, "complete")


def test_another_name_is_asked_for_and_verified(start_plane: StartPlane, backend: Backends, pki: Pki) -> None:
    settings = backend_tls(start_frame(), pki, server_name="shop.internal")
    plane = start_plane(row("b", backend.port), settings=settings)
    context, asked = pki.server("shop.internal"), list[str | None]()
    context.sni_callback = lambda _tls, name, _context: asked.append(name)
    with plane.connect() as client, TlsServer(backend.accept(), context) as server:
        assert answers(client, server)
    assert asked == ["shop.internal"]


@pytest.mark.parametrize(
    ("names", "is_known", "why"),
    [
        (("other.internal",), True, "IP address mismatch"),
        ((HOST,), False, "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_is_not_accepted_leads_elsewhere(
    start_plane: StartPlane,
    backend: Backends,
    elsewhere: Backends,
    pki: Pki,
    names: tuple[str, ...],
    is_known: bool,
    why: str,
) -> None:
    plane = start_plane(
        row("tls", backend.port), row("plain", elsewhere.port, country="FR"), settings=tls_to("tls", pki)
    )
    with (
        failing(backend, (pki if is_known else Pki()).server(*names)),
        plane.connect() as client,
        elsewhere.accept() as server,
    ):
        assert answers(client, server)
    report = plane.report(1)
    assert [(each.backend, each.tries) for each in report.sessions] == [("plain", 2)]
    assert report.connect_errors == {"tls": 1}
    assert len(whys(plane)) == 1
    assert why in whys(plane)[0]


def test_a_backend_that_speaks_no_tls_is_told_of_once(
    start_plane: StartPlane, backend: Backends, pki: Pki
) -> None:
    plane = start_plane(row("tls", backend.port), settings=tls_to("tls", pki))
    for _ in range(2):
        with plane.connect() as client, backend.accept() as rude:
            rude.sendall(b"220 welcome\r\n")
            assert is_reset(client)
        assert plane.sessions(1)[0].reason == "unreachable"
    assert whys(plane) == ["wrong version number"]


def test_a_handshake_that_takes_too_long_leads_elsewhere(
    start_plane: StartPlane, backend: Backends, elsewhere: Backends, pki: Pki
) -> None:
    settings = tls_to("tls", pki)
    assert settings.tls is not None
    hasty = msgspec.structs.replace(settings.tls, handshake_timeout_s=0.1)
    plane = start_plane(
        row("tls", backend.port),
        row("plain", elsewhere.port, country="FR"),
        settings=msgspec.structs.replace(settings, tls=hasty),
    )
    with plane.connect() as client, backend.accept(), elsewhere.accept() as server:
        assert answers(client, server)
    assert whys(plane) == ["no handshake in time"]


def test_rules_whose_files_cannot_be_used_lead_nowhere(
    start_plane: StartPlane, backend: Backends, pki: Pki
) -> None:
    settings = msgspec.structs.replace(tls_to("tls", pki), tls=TlsSettings())
    plane = start_plane(row("tls", backend.port), settings=settings)
    with plane.connect() as client, backend.accept():
        assert is_reset(client)
    assert whys(plane) == ["the files that its rule names cannot be used"]
    assert plane.sessions(1)[0].reason == "unreachable"


def test_the_system_s_authorities_count_when_a_rule_names_none(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(pki.authority)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    settings = tls_to("*", pki)
    assert settings.tls is not None
    credentials = tuple(msgspec.structs.replace(each, authorities=None) for each in settings.tls.backends)
    plane = start_plane(
        row("tls", backend.port),
        settings=msgspec.structs.replace(
            settings, tls=msgspec.structs.replace(settings.tls, backends=credentials)
        ),
    )
    with plane.connect() as client, TlsServer(backend.accept(), pki.server(HOST)) as server:
        assert answers(client, server)


def test_what_its_files_say_may_change(
    start_plane: StartPlane, backend: Backends, elsewhere: Backends, pki: Pki, tmp_path: Path
) -> None:
    plane = start_plane(row("tls", backend.port), settings=tls_to("tls", Pki()))
    with failing(backend, pki.server(HOST)), plane.connect() as client:
        assert is_reset(client)
    pair = key_pair(pki, tmp_path, "edge.example.com")
    renewed = BackendCredentials(BackendTls(), pki.authority, pair)
    plane.call(lambda: plane.plane.change_tls(TlsSettings(backends=(renewed,))))
    assert plane.plane.tls is not None
    contexts = plane.plane.tls.backends
    wait_until(lambda: not contexts._outdated, reason="the contexts to be made anew")
    context = pki.server(HOST, asks_for_certificates=True)
    with plane.connect() as client, TlsServer(backend.accept(), context) as server:
        assert answers(client, server)
        certificate = server.tls.getpeercert()
        assert certificate is not None
        assert ("DNS", "edge.example.com") in certificate["subjectAltName"]


# ---- sessions ------------------------------------------------------------------------------------


def is_resumed(plane: ThreadedPlane, backend: Backends, context: ssl.SSLContext) -> bool:
    """Whether the handshake of one more connection with ``backend`` is short; returns when that has ended."""
    with plane.connect() as client, TlsServer(backend.accept(), context) as server:
        assert answers(client, server)
        client.close()
        assert read_to_end(server) == b""
        resumed = bool(server.tls.session_reused)
        server.close()
    plane.sessions(1)
    return resumed


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_while_its_certificate_was_verified_lately(
    start_plane: StartPlane,
    backend: Backends,
    pki: Pki,
    version: ssl.TLSVersion,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plane = start_plane(row("b", backend.port), settings=backend_tls(start_frame(), pki))
    context = pki.server(HOST)
    context.maximum_version = version
    assert [is_resumed(plane, backend, context) for _ in range(3)] == [False, True, True]
    contexts = backend_contexts_of(plane)
    ((_, first_s),) = contexts._sessions.values()
    monkeypatch.setattr(backend_contexts, "SESSION_S", -1.0)
    assert not is_resumed(plane, backend, context)
    monkeypatch.undo()
    assert is_resumed(plane, backend, context)
    ((_, verified_s),) = contexts._sessions.values()
    assert verified_s > first_s


def test_a_session_that_is_renewed_is_as_old_as_its_first_one(
    start_plane: StartPlane, backend: Backends, pki: Pki
) -> None:
    plane = start_plane(row("b", backend.port), settings=backend_tls(start_frame(), pki))
    context, contexts = pki.server(HOST), backend_contexts_of(plane)
    seen: list[tuple[ssl.SSLSession, float]] = []
    for _ in range(3):
        is_resumed(plane, backend, context)
        seen += contexts._sessions.values()
    assert len({id(session) for session, _ in seen}) == 3
    assert len({verified_s for _, verified_s in seen}) == 1


def test_no_session_outlives_the_files_that_it_was_begun_with(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path
) -> None:
    plane = start_plane(row("b", backend.port), settings=backend_tls(start_frame(), pki))
    context, contexts = pki.server(HOST), backend_contexts_of(plane)
    renewed = BackendCredentials(BackendTls(), pki.authority, key_pair(pki, tmp_path, "edge.example.com"))
    assert not is_resumed(plane, backend, context)
    with plane.connect() as client, TlsServer(backend.accept(), context) as server:
        assert answers(client, server)
        plane.call(lambda: plane.plane.change_tls(TlsSettings(backends=(renewed,))))
        # Asked within the loop: what is being made is no longer in the list.
        wait_until(lambda: plane.call(lambda: not contexts._outdated), reason="the contexts to be made anew")
        assert contexts._sessions == {}
        client.close()
        assert read_to_end(server) == b""
        server.close()
    plane.sessions(1)
    assert contexts._sessions == {}
    assert not is_resumed(plane, backend, context)


def test_of_sessions_so_many_are_kept(
    start_plane: StartPlane, backend: Backends, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_contexts, "_SESSIONS_KEPT", 0)
    plane = start_plane(row("b", backend.port), settings=backend_tls(start_frame(), pki))
    context = pki.server(HOST)
    assert [is_resumed(plane, backend, context) for _ in range(2)] == [False, False]


def test_no_session_is_kept_of_a_handshake_that_failed(
    start_plane: StartPlane, backend: Backends, elsewhere: Backends, pki: Pki
) -> None:
    plane = start_plane(row("tls", backend.port), settings=tls_to("tls", Pki()))
    with failing(backend, pki.server(HOST)), plane.connect() as client:
        assert is_reset(client)
    assert backend_contexts_of(plane)._sessions == {}


def backend_contexts_of(plane: ThreadedPlane) -> backend_contexts.BackendContexts:
    assert plane.plane.tls is not None
    return plane.plane.tls.backends


# ---- certificates of ours ------------------------------------------------------------------------


def test_a_backend_that_asks_is_shown_the_certificate_of_the_rule(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path
) -> None:
    pair: KeyPair = key_pair(pki, tmp_path, "edge.example.com")
    plane = start_plane(row("b", backend.port), settings=backend_tls(start_frame(), pki, pair))
    context = pki.server(HOST, asks_for_certificates=True)
    with plane.connect() as client, TlsServer(backend.accept(), context) as server:
        assert answers(client, server)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_backend_that_asks_in_vain_leads_elsewhere(
    start_plane: StartPlane, backend: Backends, elsewhere: Backends, pki: Pki, version: ssl.TLSVersion
) -> None:
    """With TLS 1.3 it says so only when the handshake looks complete to us."""
    plane = start_plane(
        row("tls", backend.port), row("plain", elsewhere.port, country="FR"), settings=tls_to("tls", pki)
    )
    context = pki.server(HOST, asks_for_certificates=True)
    context.maximum_version = version
    with failing(backend, context), plane.connect() as client, elsewhere.accept() as server:
        assert answers(client, server)
    assert plane.sessions(1)[0].tries == 2


# ---- what goes over it ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", list(ProxyVersion))
def test_a_proxy_header_stands_before_the_handshake(
    start_plane: StartPlane, backend: Backends, pki: Pki, version: ProxyVersion
) -> None:
    settings = msgspec.structs.replace(start_frame(), backend_rules=(BackendRule(version),))
    plane = start_plane(row("b", backend.port), settings=backend_tls(settings, pki))
    with plane.connect() as client, backend.accept() as sock:
        expected = encode_v1(*client.getsockname(), *client.getpeername())
        header = read_header(sock.recv(4096, socket.MSG_PEEK))
        assert isinstance(header, Header)
        received = read_exactly(sock, header.length)
        assert version is ProxyVersion.V2 or received == expected
        assert header.source_port == client.getsockname()[1]
        with TlsServer(sock, pki.server(HOST)) as server:
            assert answers(client, server)
    assert plane.sessions(1)[0].bytes_received == 8


def test_the_backend_is_asked_for_the_protocol_that_the_client_speaks(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path
) -> None:
    terminating = tls_frame(identity(pki, tmp_path, NAME), alpn=("h2", "http/1.1"))
    plane = start_plane(row("b", backend.port), settings=backend_tls(terminating, pki))
    for offered, agreed in ((["h2"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
        clients, backends = pki.client(), pki.server(HOST)
        clients.set_alpn_protocols(offered)
        backends.set_alpn_protocols(["http/1.1", "h2"])
        with (
            tls_client(plane.address, clients) as client,
            TlsServer(backend.accept(), backends) as server,
        ):
            assert server.tls.selected_alpn_protocol() == agreed
            assert answers(client, server)


def test_an_answer_that_is_cut_off_is_no_whole_one(
    start_plane: StartPlane, backend: Backends, pki: Pki
) -> None:
    plane = start_plane(row("b", backend.port), settings=backend_tls(start_frame(), pki))
    with plane.connect() as client, TlsServer(backend.accept(), pki.server(HOST)) as server:
        assert answers(client, server)
        server.sendall(b"half an")
        socket.socket.shutdown(server, socket.SHUT_WR)
        assert read_exactly(client, 7) == b"half an"
        assert is_reset(client)
    assert plane.sessions(1)[0].reason == "backend_reset"


# ---- handshakes that are given up ----------------------------------------------------------------


def test_a_drain_ends_handshakes_with_backends(start_plane: StartPlane, backend: Backends, pki: Pki) -> None:
    plane = start_plane(row("b", backend.port), settings=backend_tls(start_frame(), pki))
    with plane.connect() as client, backend.accept() as sock:
        assert sock.recv(1)  # of the hello
        plane.call(plane.plane.reset_all)
        assert is_reset(client)
        assert is_reset(sock)
    assert plane.sessions(1)[0].reason == "shutdown"


def test_a_client_that_leaves_ends_the_handshake_with_its_backend(
    start_plane: StartPlane, backend: Backends, pki: Pki
) -> None:
    plane = start_plane(row("b", backend.port), settings=backend_tls(start_frame(), pki))
    client = plane.connect()
    with backend.accept() as sock:
        assert sock.recv(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert is_reset(sock)
    assert plane.sessions(1)[0].reason == "client_reset"


def test_a_client_that_has_gone_is_told_to_nobody(
    start_plane: StartPlane, backend: Backends, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = msgspec.structs.replace(start_frame(), backend_rules=(BackendRule(ProxyVersion.V1),))
    plane = start_plane(row("b", backend.port), settings=backend_tls(settings, pki))
    discard = plane.plane.connects.discard
    clients: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()

    def reset_before_the_header(connection: object) -> None:
        discard(connection)  # type: ignore[arg-type]
        if not is_over.is_set():
            is_over.set()
            reset(clients.get(timeout=5))

    is_over = threading.Event()
    monkeypatch.setattr(plane.plane.connects, "discard", reset_before_the_header)
    clients.put(plane.connect())
    with backend.accept() as sock, pytest.raises(ConnectionResetError):
        sock.recv(1)
    assert plane.report(1).closes == {"client_reset": 1}


@pytest.mark.parametrize("with_backend", [False, True])
def test_what_is_given_up_leaves_nothing_in_memory(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path, with_backend: bool
) -> None:
    """Workers run without a collector, so nothing may hold itself."""
    settings = backend_tls(start_frame(), pki) if with_backend else tls_frame(identity(pki, tmp_path, NAME))
    plane = start_plane(row("b", backend.port), settings=settings)
    assert plane.plane.tls is not None
    handshakes = plane.plane.tls._with_backends if with_backend else plane.plane.tls._with_clients

    def has_begun() -> bool:
        return any(each.side is not None for each in handshakes._under_way.values())

    gc.collect()
    gc.disable()
    try:
        before = sides_in_memory()
        with ExitStack() as at_end:
            client = at_end.enter_context(plane.connect())
            if with_backend:
                at_end.enter_context(backend.accept())
            else:
                client.sendall(b"\x16")
            wait_until(lambda: plane.call(has_begun), reason="the handshake to begin")
            assert sides_in_memory() == before + 1
            plane.call(plane.plane.reset_all)
            wait_until(lambda: sides_in_memory() == before, reason="its memory to be given back")
    finally:
        gc.enable()


def sides_in_memory() -> int:
    return sum(isinstance(each, TlsSide) for each in gc.get_objects())
