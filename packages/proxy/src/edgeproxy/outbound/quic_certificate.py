"""The certificate with which a node encrypts its QUIC connections: made at its start, kept nowhere.

Nobody signs it and nobody checks when it expires, because it says nothing about who shows it; that is
proven afterwards, bound to its fingerprint (see :mod:`edgeproxy.core.replication.handshake`). So none can be
forgotten on a disk, and none can expire in the middle of the night.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFETIME: Final = timedelta(days=36_500)


def certify(configuration: QuicConfiguration) -> bytes:
    """Give ``configuration`` a new certificate; return its fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgeproxy")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIFETIME)
        .sign(key, hashes.SHA256())
    )
    configuration.certificate, configuration.private_key = certificate, key
    return certificate.fingerprint(hashes.SHA256())


def fingerprint_shown(quic: QuicConnection) -> bytes:
    """The fingerprint of the certificate that a dialled server showed, and has proven to hold the key of.

    The handshake must be complete. aioquic gives no public access to it; should a later version keep it
    elsewhere, this fails, and with it every connection.
    """
    certificate = quic.tls._peer_certificate  # noqa: SLF001
    assert certificate is not None
    return certificate.fingerprint(hashes.SHA256())
