"""What rules for backends name for TLS, in files in every state that files can be in."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendTls, ProxyVersion
from edgeproxy.outbound.backend_credentials_files import BackendCredentialFiles
from testkit.pki import Pki


def files_of(*terms: BackendTls) -> BackendCredentialFiles:
    rules = [BackendRule(match="*", tls=each) for each in terms]
    return BackendCredentialFiles([*rules, BackendRule(ProxyVersion.V1)])


def test_rules_without_tls_need_none() -> None:
    files = files_of()
    assert files.signature() == []
    loaded = files.load()
    assert loaded.is_usable
    assert loaded.credentials == ()


def test_everything_that_is_named_is_read_once(pki: Pki, tmp_path: Path) -> None:
    pki.issue(tmp_path / "us.pem", tmp_path / "us.key", "edge.example.com")
    (tmp_path / "ca.pem").write_bytes(b"not for machines: \xff\n" + pki.authority)
    full = BackendTls("", str(tmp_path / "ca.pem"), str(tmp_path / "us.pem"), str(tmp_path / "us.key"))
    bare = BackendTls("shop.internal")
    files = files_of(full, bare, full)
    loaded = files.load()
    assert loaded.is_usable
    assert loaded.problems == loaded.warnings == ()
    assert [each.terms for each in loaded.credentials] == [full, bare]
    assert loaded.credentials[0].authorities == pki.authority
    assert loaded.credentials[0].pair is not None
    assert (loaded.credentials[1].authorities, loaded.credentials[1].pair) == (None, None)
    assert set(files.contexts) == {full, bare}


@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_authorities_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    loaded = files_of(BackendTls(ca=str(path))).load()
    assert not loaded.is_usable
    assert len(loaded.problems) == 1
    assert str(path) in loaded.problems[0]


def test_a_certificate_without_its_key_is_named(pki: Pki, tmp_path: Path) -> None:
    pki.issue(tmp_path / "us.pem", tmp_path / "us.key", "edge.example.com")
    (tmp_path / "us.key").write_text("nonsense")
    loaded = files_of(BackendTls("", "", str(tmp_path / "us.pem"), str(tmp_path / "us.key"))).load()
    assert not loaded.is_usable
    assert "us.key" in loaded.problems[0]


def test_what_was_good_last_goes_on(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(pki.authority)
    files = files_of(BackendTls(ca=str(path)))
    good, seen = files.load(), files.signature()
    path.write_text("nonsense")
    assert files.signature() != seen
    loaded = files.load()
    assert loaded.is_usable
    assert loaded.credentials == good.credentials
    assert len(loaded.problems) == 1
