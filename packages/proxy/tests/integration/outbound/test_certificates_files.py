"""Certificates and keys in real files, in every state that files can be in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edgeproxy.outbound.certificates_files import SELF_SIGNED_NAMES, CertificateFiles, self_signed
from testkit.pki import Pki


def test_without_certificates_one_is_made_and_kept() -> None:
    files = CertificateFiles(None, None, None)
    loaded = files.load()
    assert loaded.identities[0].names == tuple(sorted(SELF_SIGNED_NAMES))
    assert "EDGEPROXY_TLS_CERT" in loaded.warnings[0]
    assert files.load().identities == loaded.identities


def test_no_two_self_signed_certificates_share_a_key() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert self_signed(now).pairs[0].key != self_signed(now).pairs[0].key


def test_the_named_pair_comes_first_and_those_of_the_folder_by_name(pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README").write_text("no certificate")
    pki.issue(tmp_path / "main.pem", tmp_path / "main.key", "Main.example.com")
    pki.issue(folder / "b.crt", folder / "b.key", "*.b.example.com", "127.0.0.1")
    pki.issue(folder / "a.pem", folder / "a.key", "a.example.com", rsa=True)
    loaded = CertificateFiles(tmp_path / "main.pem", tmp_path / "main.key", folder).load()
    assert [each.names for each in loaded.identities] == [
        ("main.example.com",),
        ("a.example.com",),
        ("*.b.example.com", "127.0.0.1"),
    ]
    assert [each.pairs[0].kind for each in loaded.identities] == ["ec", "rsa", "ec"]
    assert not loaded.problems
    assert not loaded.warnings


def test_two_kinds_of_key_for_the_same_names_are_one_identity(pki: Pki, tmp_path: Path) -> None:
    pki.issue(tmp_path / "a.crt", tmp_path / "a.key", "a.example.com")
    pki.issue(tmp_path / "b.crt", tmp_path / "b.key", "a.example.com", rsa=True)
    (identity,) = CertificateFiles(None, None, tmp_path).load().identities
    assert identity.kinds == {"ec", "rsa"}


def test_a_pair_that_breaks_goes_on_as_it_was(pki: Pki, tmp_path: Path) -> None:
    pki.issue(tmp_path / "a.crt", tmp_path / "a.key", "a.example.com")
    files = CertificateFiles(None, None, tmp_path)
    good, signature = files.load(), files.signature()
    pki.issue(tmp_path / "other.crt", tmp_path / "a.key", "a.example.com")
    (tmp_path / "other.crt").unlink()
    broken = files.load()
    assert files.signature() != signature
    assert broken.identities == good.identities
    assert "a.crt" in broken.problems[0]
    assert "PRIVATE" not in broken.problems[0]


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_pair_that_was_never_usable_is_left_out(pki: Pki, tmp_path: Path, content: bytes | None) -> None:
    pki.issue(tmp_path / "a.crt", tmp_path / "a.key", "a.example.com")
    if content is None:
        (tmp_path / "a.key").unlink()
    else:
        (tmp_path / "a.key").write_bytes(content)
    loaded = CertificateFiles(None, None, tmp_path).load()
    assert not loaded.identities
    assert "a.key" in loaded.problems[0]
    assert CertificateFiles(None, None, tmp_path).signature()


def test_a_key_with_a_pass_phrase_is_refused_without_asking(pki: Pki, tmp_path: Path) -> None:
    pki.issue(tmp_path / "a.crt", tmp_path / "a.key", "a.example.com")
    key = serialization.load_pem_private_key((tmp_path / "a.key").read_bytes(), None)
    (tmp_path / "a.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"phrase"),
        )
    )
    assert "pass phrase" in CertificateFiles(None, None, tmp_path).load().problems[0]


def test_a_key_that_stalls_workers_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.outbound.certificates_files._STALLING_RSA_BITS", 2048)
    Pki().issue(tmp_path / "a.crt", tmp_path / "a.key", "a.example.com", rsa=True)
    assert isinstance(
        serialization.load_pem_private_key((tmp_path / "a.key").read_bytes(), None), rsa.RSAPrivateKey
    )
    assert "RSA key of 2048 bits" in CertificateFiles(None, None, tmp_path).load().warnings[0]


def test_authorities_of_clients_are_loaded_with_them(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "clients.pem"
    path.write_bytes(pki.authority + Pki().authority)
    files = CertificateFiles(None, None, None, path)
    loaded, seen = files.load(), files.signature()
    assert loaded.is_usable
    assert loaded.client_authorities is not None
    assert loaded.client_authorities.count(b"BEGIN CERTIFICATE") == 2
    path.write_text("nonsense")
    assert files.signature() != seen
    again = files.load()
    assert again.is_usable
    assert again.client_authorities == loaded.client_authorities
    assert str(path) in again.problems[0]


def test_without_usable_authorities_clients_cannot_be_served(tmp_path: Path) -> None:
    loaded = CertificateFiles(None, None, None, tmp_path / "missing.pem").load()
    assert not loaded.is_usable
    assert "missing.pem" in loaded.problems[0]
