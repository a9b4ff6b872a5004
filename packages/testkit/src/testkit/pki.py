"""Certificates for tests, from an authority that exists for one test run and nowhere else.

Needs the extra ``edgeproxy-testkit[pki]``.
"""

from __future__ import annotations

import ssl
from pathlib import Path

try:
    import trustme
except ImportError as error:
    raise ImportError("testkit.pki needs trustme: install edgeproxy-testkit[pki]") from error


class Pki:
    """A certificate authority, and clients that trust it."""

    def __init__(self) -> None:
        self._authority = trustme.CA(key_type=trustme.KeyType.ECDSA)

    def issue(self, certificate: Path, key: Path, *names: str, rsa: bool = False) -> None:
        """Write a certificate chain for ``names`` (DNS names, wildcards, IP addresses) and its key, both PEM.

        Both files are replaced as a whole, as careful programs do, the certificate last.
        """
        kind = trustme.KeyType.RSA if rsa else trustme.KeyType.ECDSA
        issued = self._authority.issue_cert(*names, key_type=kind)
        _replace(key, issued.private_key_pem.bytes())
        _replace(certificate, b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    @property
    def authority(self) -> bytes:
        """The authority's own certificate, PEM."""
        return self._authority.cert_pem.bytes()

    def client(
        self, *, version: ssl.TLSVersion | None = None, certificate_for: str | None = None
    ) -> ssl.SSLContext:
        """A client's context that trusts this authority alone; with ``version`` it speaks no other.

        ``certificate_for``: whom the certificate is for that it shows to servers that ask.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if certificate_for is not None:
            name = f"{certificate_for}.clients.example"
            self._authority.issue_cert(name, common_name=certificate_for).configure_cert(context)
        return context

    def server(self, *names: str, asks_for_certificates: bool = False) -> ssl.SSLContext:
        """A server's context for ``names``; with ``asks_for_certificates`` clients must show one of ours."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names, key_type=trustme.KeyType.ECDSA).configure_cert(context)
        if asks_for_certificates:
            self._authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.replace(path)
