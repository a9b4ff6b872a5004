"""Certificates and keys of the proxy: read from files, tried out, and turned into what workers are given.

Every pair is loaded by OpenSSL into a context that serves nobody before a worker gets it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeproxy.core.dataplane.identities import Identity, KeyPair

SELF_SIGNED_NAMES = ("edgeproxy.internal", "localhost", "127.0.0.1")
_SELF_SIGNED_LIFE = timedelta(days=365)
_CHAIN_SUFFIXES = (".crt", ".pem")
_STALLING_RSA_BITS = 4096


class Loaded(msgspec.Struct, frozen=True):
    """What the files hold."""

    identities: tuple[Identity, ...]
    """The first is for clients that ask for no name, or an unknown one."""
    problems: tuple[str, ...]
    """One line for each pair that cannot be used."""
    warnings: tuple[str, ...]
    client_authorities: bytes | None = None
    """PEM of whom clients' certificates may be issued by; ``None`` when clients are not asked for any."""
    is_usable: bool = True
    """Whether clients can be served by it."""


class UnusableError(Exception):
    """A file or pair cannot be used; the text says why and never shows the key."""


class CertificateFiles:
    """One pair that is named, those of a folder (``NAME.crt`` or ``NAME.pem`` with ``NAME.key``), and the
    authorities of clients' certificates."""

    def __init__(
        self,
        certificate: Path | None,
        key: Path | None,
        folder: Path | None,
        client_authorities: Path | None = None,
    ) -> None:
        self._client_authorities = client_authorities
        self._last_good_authorities: bytes | None = None
        self._named = (certificate, key) if certificate is not None and key is not None else None
        self._folder = folder
        self._last_good: dict[Path, tuple[tuple[str, ...], KeyPair]] = {}
        self._self_signed: Identity | None = None

    def signature(self) -> object:
        """Changes whenever a file does."""
        paths = [path for pair in self._pairs() for path in pair]
        if self._client_authorities is not None:
            paths.append(self._client_authorities)
        return [(path, file_state(path)) for path in paths]

    def load(self) -> Loaded:
        """Read all pairs. In place of one that cannot be used any more its last usable state goes on."""
        found: dict[tuple[str, ...], dict[str, KeyPair]] = {}
        problems: list[str] = []
        warnings: list[str] = []
        for certificate, key in self._pairs():
            try:
                names, pair, warning = read_pair(certificate, key)
            except UnusableError as error:
                problems.append(str(error))
                if certificate not in self._last_good:
                    continue
                names, pair = self._last_good[certificate]
            else:
                self._last_good[certificate] = names, pair
                warnings += [warning] if warning else []
            found.setdefault(names, {}).setdefault(pair.kind, pair)
        identities = [Identity(names, tuple(pairs.values())) for names, pairs in found.items()]
        if not identities and not problems:
            self._self_signed = self._self_signed or self_signed(datetime.now(UTC))
            identities.append(self._self_signed)
            warnings.append(
                f"no certificate is set, using a self-signed one for {', '.join(SELF_SIGNED_NAMES)}; "
                "set EDGEPROXY_TLS_CERT and EDGEPROXY_TLS_KEY, or EDGEPROXY_TLS_CERT_DIR"
            )
        if self._client_authorities is not None:
            try:
                self._last_good_authorities = read_authorities(self._client_authorities)
            except UnusableError as error:
                problems.append(str(error))
        authorities = self._last_good_authorities
        is_usable = bool(identities) and (authorities is not None or self._client_authorities is None)
        return Loaded(tuple(identities), tuple(problems), tuple(warnings), authorities, is_usable)

    def _pairs(self) -> Iterator[tuple[Path, Path]]:
        if self._named is not None:
            yield self._named
        if self._folder is not None and self._folder.is_dir():
            for path in sorted(self._folder.iterdir()):
                if path.suffix in _CHAIN_SUFFIXES:
                    yield path, path.with_suffix(".key")


def self_signed(now: datetime) -> Identity:
    """A new certificate that nobody trusts, for trying things out. It exists in memory only."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = x509.SubjectAlternativeName([_general_name(each) for each in SELF_SIGNED_NAMES])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SELF_SIGNED_NAMES[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _SELF_SIGNED_LIFE)
        .add_extension(alternatives, False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(key, hashes.SHA256())
    )
    pair = KeyPair(
        "ec",
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    return Identity(tuple(sorted(SELF_SIGNED_NAMES)), (pair,))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def read_authorities(path: Path) -> bytes:
    """The certificates in the file at ``path``, as PEM without anything between them.

    Raises:
        UnusableError: missing, unreadable or malformed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        found = x509.load_pem_x509_certificates(content)
        pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in found)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise UnusableError(f"{path}: cannot be used; it must hold certificates in PEM") from error
    return pem


def read_pair(certificate: Path, key: Path) -> tuple[tuple[str, ...], KeyPair, str | None]:
    """Names, pair and warning of two files.

    Raises:
        UnusableError: missing, unreadable, malformed, or not made for each other.
    """
    try:
        chain_pem, key_pem = certificate.read_bytes(), key.read_bytes()
    except OSError as error:
        raise UnusableError(f"{error.filename}: cannot be read: {error.strerror}") from error
    remedy = "both must be PEM and belong together, the key without a pass phrase"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty pass phrase keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
        private = serialization.load_pem_private_key(key_pem, password=None)
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "reason", None) or "not PEM"
        raise UnusableError(f"{certificate} and {key} cannot be used ({why}); {remedy}") from None
    if private.public_key() != leaf.public_key():  # replaced between the two looks
        raise UnusableError(f"{certificate} and {key} cannot be used (they do not match); {remedy}")
    warning = None
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= _STALLING_RSA_BITS:
        warning = (
            f"{key}: each handshake with an RSA key of {private.key_size} bits stops a worker for "
            "milliseconds; use an EC key (P-256), or RSA with 2048 bits"
        )
    kind = "other"
    if isinstance(private, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        kind = "rsa" if isinstance(private, rsa.RSAPrivateKey) else "ec"
    return _names(leaf), KeyPair(kind, chain_pem, key_pem), warning


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    names: Sequence[object] = [
        *alternatives.get_values_for_type(x509.DNSName),
        *alternatives.get_values_for_type(x509.IPAddress),
    ]
    return tuple(sorted(str(name).lower() for name in names))


def file_state(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file does; ``None`` when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
