"""What is different about some backends: whether they are told who the client is, and spoken to in TLS."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec

from edgeproxy.core.dataplane.client_tls import ClientTls
from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.model import Backend, Client
from edgeproxy.core.wire.proxy_protocol import Tlv, TlvType, encode_v1, encode_v2, tls_tlv

_BACKENDS_REMEMBERED = 16_384
_MAX_TLV_BYTES = 255
"""A longer app, server name or common name is not sent, so that all of them fit into a header."""


class ProxyVersion(StrEnum):
    """Of the PROXY header that goes ahead of the client's bytes."""

    V1 = "v1"
    V2 = "v2"


class BackendTls(msgspec.Struct, frozen=True):
    """On which terms backends are spoken to in TLS. Their certificates are always verified."""

    server_name: str = ""
    """Whom the certificate must be for; empty: the host that the row names."""
    ca: str = ""
    """Path of the authorities, PEM; empty: those that the system trusts."""
    certificate: str = ""
    """Path of the chain that is shown to backends that ask for one."""
    key: str = ""


class BackendRule(msgspec.Struct, frozen=True):
    """Applies to backends of whom both ``match`` and ``app`` are true."""

    proxy_protocol: ProxyVersion | None = None
    """Of the header that they expect; ``None`` for no header."""
    match: str = "*"
    """Pattern of the id: ``*``, ``?`` and ``[seq]`` as in file names, case counts."""
    app: str = ANY_APP
    tls: BackendTls | None = None
    """``None``: they get the client's bytes as they are."""

    def applies_to(self, backend_id: str, app: str) -> bool:
        return self.app in (ANY_APP, app) and fnmatchcase(backend_id, self.match)


class BackendRules:
    """Of several rules that apply to a backend, the first counts."""

    def __init__(self, rules: tuple[BackendRule, ...]) -> None:
        self._rules = rules
        # Each new connection asks, and patterns take their time. Bounded, since backends that register
        # themselves may take a new id each time.
        self._found = lru_cache(_BACKENDS_REMEMBERED)(self._find)

    def of(self, backend: Backend) -> BackendRule | None:
        """The rule for ``backend``, ``None`` when nothing is different about it."""
        return self._found(backend.id, backend.app)

    def _find(self, backend_id: str, app: str) -> BackendRule | None:
        return next((rule for rule in self._rules if rule.applies_to(backend_id, app)), None)


def proxy_header(
    version: ProxyVersion,
    client: Client,
    client_port: int,
    destination: str,
    destination_port: int,
    app: str,
    server_name: str | None = None,
    tls: ClientTls | None = None,
) -> bytes:
    """What is sent to a backend ahead of the client's bytes.

    ``destination`` is the numeric address that the client connected to. Version 2 also tells ``app``, the
    client's country, if it is known, the ``server_name`` that it asked for, and ``tls`` if that ended here.
    """
    if version is ProxyVersion.V1:
        return encode_v1(client.address, client_port, destination, destination_port)
    tlvs: list[Tlv] = []
    if tls is not None and tls.protocol is not None:
        tlvs.append((TlvType.ALPN, tls.protocol.encode()))
    if server_name is not None and len(name := server_name.encode()) <= _MAX_TLV_BYTES:
        tlvs.append((TlvType.AUTHORITY, name))
    if tls is not None:
        tlvs.append(_tls_tlv(tls))
    if len(name := app.encode()) <= _MAX_TLV_BYTES:
        tlvs.append((TlvType.APP, name))
    if client.country:
        tlvs.append((TlvType.COUNTRY, client.country.encode("ascii")))
    return encode_v2(client.address, client_port, destination, destination_port, tlvs)


def _tls_tlv(tls: ClientTls) -> Tlv:
    common_name = tls.subject.common_name if tls.subject is not None else None
    if common_name is not None and len(common_name.encode()) > _MAX_TLV_BYTES:
        common_name = None
    return tls_tlv(
        tls.version,
        tls.cipher,
        client_certificate=tls.subject is not None,
        common_name=common_name,
        resumed=tls.is_resumed,
    )
