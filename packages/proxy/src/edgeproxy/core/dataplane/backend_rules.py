"""What is different about some backends: so far, whether they are told who the client is."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec

from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.model import Backend, Client
from edgeproxy.core.wire.proxy_protocol import Tlv, TlvType, encode_v1, encode_v2

_BACKENDS_REMEMBERED = 16_384
_MAX_APP_BYTES = 255
"""A longer app is not sent: it names nothing that a listener or server name could mean."""


class ProxyVersion(StrEnum):
    """Of the PROXY header that goes ahead of the client's bytes."""

    V1 = "v1"
    V2 = "v2"


class BackendRule(msgspec.Struct, frozen=True):
    """Applies to backends of whom both are true."""

    proxy_protocol: ProxyVersion
    match: str = "*"
    """Pattern of the id: ``*``, ``?`` and ``[seq]`` as in file names, case counts."""
    app: str = ANY_APP

    def applies_to(self, backend_id: str, app: str) -> bool:
        return self.app in (ANY_APP, app) and fnmatchcase(backend_id, self.match)


class BackendRules:
    """Of several rules that apply to a backend, the first counts."""

    def __init__(self, rules: tuple[BackendRule, ...]) -> None:
        self._rules = rules
        # Each new connection asks, and patterns take their time. Bounded, since backends that register
        # themselves may take a new id each time.
        self._found = lru_cache(_BACKENDS_REMEMBERED)(self._find)

    def proxy_protocol(self, backend: Backend) -> ProxyVersion | None:
        """The version of the header that ``backend`` expects, ``None`` for no header."""
        return self._found(backend.id, backend.app)

    def _find(self, backend_id: str, app: str) -> ProxyVersion | None:
        rules = (rule for rule in self._rules if rule.applies_to(backend_id, app))
        return next((rule.proxy_protocol for rule in rules), None)


def proxy_header(
    version: ProxyVersion,
    client: Client,
    client_port: int,
    destination: str,
    destination_port: int,
    app: str,
) -> bytes:
    """What is sent to a backend ahead of the client's bytes.

    ``destination`` is the numeric address that the client connected to. Version 2 also tells ``app`` and the
    client's country, if it is known.
    """
    if version is ProxyVersion.V1:
        return encode_v1(client.address, client_port, destination, destination_port)
    tlvs: list[Tlv] = []
    if len(name := app.encode()) <= _MAX_APP_BYTES:
        tlvs.append((TlvType.APP, name))
    if client.country:
        tlvs.append((TlvType.COUNTRY, client.country.encode("ascii")))
    return encode_v2(client.address, client_port, destination, destination_port, tlvs)
