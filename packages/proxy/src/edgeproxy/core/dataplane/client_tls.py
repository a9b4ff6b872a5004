"""What is known of a client from the TLS that ended here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Subject(msgspec.Struct, frozen=True):
    """Whom a client's certificate, which was verified, is for."""

    common_name: str | None
    name: str
    """For people: the common name, else the first alternative name, else ``?``."""


class ClientTls(msgspec.Struct, frozen=True):
    """The client's TLS, once the handshake is complete."""

    version: str
    """As the ``ssl`` module names it: ``TLSv1.3``."""
    cipher: str
    """OpenSSL's name of the cipher suite."""
    server_name: str | None = None
    """The name that the client asked for, in lower case."""
    protocol: str | None = None
    """What ALPN agreed on: ``h2``."""
    subject: Subject | None = None
    """``None``: the client has shown no certificate."""
    is_resumed: bool = False
    """The certificate was shown when the session began, not on this connection."""


def subject_of(certificate: Mapping[str, Any]) -> Subject:
    """Read what ``ssl.SSLObject.getpeercert`` returned."""
    parts: Sequence[Sequence[tuple[str, str]]] = certificate.get("subject", ())
    names: Sequence[tuple[str, str]] = certificate.get("subjectAltName", ())
    common_name = next((value for part in parts for key, value in part if key == "commonName"), None)
    return Subject(common_name, common_name or next((value for _, value in names), "?"))
