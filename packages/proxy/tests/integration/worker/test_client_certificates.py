"""Clients that show certificates, and what backends are told of their TLS."""

from __future__ import annotations

import socket
import ssl
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edgeproxy.core.dataplane.backend_rules import BackendRule, ProxyVersion
from edgeproxy.core.dataplane.identities import ClientCertificates
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.wire.frames import Start
from edgeproxy.core.wire.proxy_protocol import Header, TlvType, read_header, tls_tlv
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.test_tls import connect_again, echo
from packages.proxy.tests.integration.worker.tls_clients import (
    NAME,
    TlsClient,
    identity,
    tls_client,
    tls_frame,
)
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    ThreadedPlane,
    in_background,
    read_exactly,
    row,
    start_frame,
)
from testkit.pki import Pki
from testkit.wait import wait_until

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
TOLD = (BackendRule(ProxyVersion.V2),)

pytestmark = pytest.mark.feature("tls.client_certificates")


def asking(pki: Pki, folder: Path, *, required: bool, alpn: tuple[str, ...] = ()) -> Start:
    """Settings of a plane that asks for certificates of ``pki``, and tells its backends."""
    settings = tls_frame(
        identity(pki, folder, NAME),
        alpn=alpn,
        client_certificates=ClientCertificates(pki.authority, required),
    )
    return msgspec.structs.replace(settings, backend_rules=TOLD)


def is_refused(plane: ThreadedPlane, context: ssl.SSLContext) -> bool:
    """Whether the client is told so, at the end of the handshake or, with TLS 1.3, by the first read."""
    try:
        with closing(TlsClient(plane.connect(), context)) as client:
            client.recv(1)
    except (ssl.SSLError, ConnectionResetError):
        return True
    return False


def received_header(server: socket.socket) -> Header:
    """The header that ``server`` gets first, taken from its stream."""
    header = read_header(server.recv(4096, socket.MSG_PEEK))
    assert isinstance(header, Header)
    read_exactly(server, header.length)
    return header


# ---- who is let in -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("required", [False, True])
def test_a_certificate_names_its_client(
    start_plane: StartPlane,
    backend: Backends,
    pki: Pki,
    tmp_path: Path,
    version: ssl.TLSVersion,
    required: bool,
) -> None:
    plane = start_plane(row("b", backend.port), settings=asking(pki, tmp_path, required=required))
    context = pki.client(version=version, certificate_for="alice")
    with tls_client(plane.address, context) as client, backend.accept() as server:
        tlvs = dict(received_header(server).tlvs)
        cipher, name = client.tls.cipher(), client.tls.version()
        assert cipher is not None
        assert name is not None
        expected = tls_tlv(name, cipher[0], client_certificate=True, common_name="alice")
        assert (TlvType.SSL, tlvs[TlvType.SSL]) == expected
        assert tlvs[TlvType.AUTHORITY] == NAME.encode()
    assert plane.sessions(1)[0].certificate == "alice"


@pytest.mark.parametrize("version", VERSIONS)
def test_who_shows_none_is_refused_where_one_is_required(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    plane = start_plane(row("b", backend.port), settings=asking(pki, tmp_path, required=True))
    assert is_refused(plane, pki.client(version=version))
    assert plane.report(1).closes == {"tls_certificate": 1}


@pytest.mark.parametrize("version", VERSIONS)
def test_who_shows_none_is_served_where_it_is_optional(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    plane = start_plane(row("b", backend.port), settings=asking(pki, tmp_path, required=False))
    with tls_client(plane.address, pki.client(version=version)) as client, backend.accept() as server:
        cipher, name = client.tls.cipher(), client.tls.version()
        assert cipher is not None
        assert name is not None
        assert tls_tlv(name, cipher[0]) in received_header(server).tlvs
    assert plane.sessions(1)[0].certificate == ""


@pytest.mark.parametrize("required", [False, True])
def test_a_certificate_of_somebody_else_s_is_refused(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path, required: bool
) -> None:
    plane = start_plane(row("b", backend.port), settings=asking(pki, tmp_path, required=required))
    context = Pki().client(certificate_for="mallory")
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    assert is_refused(plane, context)
    assert plane.report(1).closes == {"tls_certificate": 1}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_still_has_its_certificate(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    settings = msgspec.structs.replace(asking(pki, tmp_path, required=True), backend_rules=())
    plane = start_plane(row("b", backend.port), settings=settings)
    context = pki.client(version=version, certificate_for="alice")
    with connect_again(plane, context, None) as client:
        echo(client, backend)
        session = client.session
    with connect_again(plane, context, session) as client:
        echo(client, backend)
        assert client.session_reused
    assert {each.certificate for each in plane.sessions(2)} == {"alice"}


def test_no_session_outlives_its_authority(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path
) -> None:
    settings = msgspec.structs.replace(asking(pki, tmp_path, required=True), backend_rules=())
    plane = start_plane(row("b", backend.port), settings=settings)
    context = pki.client(certificate_for="alice")
    with connect_again(plane, context, None) as client:
        echo(client, backend)
        session = client.session
    assert settings.tls is not None
    others = ClientCertificates(Pki().authority, required=True)
    changed = msgspec.structs.replace(settings.tls, client_certificates=others)
    plane.call(lambda: plane.plane.change_tls(changed))
    assert plane.plane.tls is not None
    certificates = plane.plane.tls.certificates
    wait_until(lambda: not certificates._wanted, reason="the contexts to be made anew")

    def is_turned_away() -> bool:
        with connect_again(plane, context, session) as client:
            try:
                client.sendall(b"?")
                return not client.recv(1)
            except (ssl.SSLError, ConnectionResetError):
                return True

    assert is_turned_away()
    assert plane.sessions(2)[-1].reason == "tls_certificate"


# ---- what backends are told ----------------------------------------------------------------------


def test_backends_are_told_the_protocol_that_was_agreed_on(
    start_plane: StartPlane, backend: Backends, pki: Pki, tmp_path: Path
) -> None:
    settings = asking(pki, tmp_path, required=False, alpn=("h2", "http/1.1"))
    plane = start_plane(row("b", backend.port), settings=settings)
    context = pki.client()
    context.set_alpn_protocols(["http/1.1"])
    with tls_client(plane.address, context), backend.accept() as server:
        assert (TlvType.ALPN, b"http/1.1") in received_header(server).tlvs


def test_backends_are_told_the_name_in_tls_that_goes_on_to_them(
    start_plane: StartPlane, backend: Backends, pki: Pki
) -> None:
    listening = Listening(app_from_sni=True, app="web")
    settings = msgspec.structs.replace(
        start_frame(listening=listening, app_by_server_name={NAME: "web"}), backend_rules=TOLD
    )
    plane = start_plane(row("b", backend.port), settings=settings)

    def shake_hands() -> None:
        with pytest.raises((ssl.SSLError, OSError)):
            TlsClient(plane.connect(), pki.client())

    with in_background(shake_hands), backend.accept() as server:
        tlvs = dict(received_header(server).tlvs)
    assert tlvs[TlvType.AUTHORITY] == NAME.encode()
    assert TlvType.SSL not in tlvs
