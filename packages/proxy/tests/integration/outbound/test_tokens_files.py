"""Tokens in a real folder."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edgeproxy.core.controlplane.tokens import Scope, split_token
from edgeproxy.errors import EdgeproxyError
from edgeproxy.outbound.tokens_files import TokenFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def tokens(folder: Path) -> TokenFiles:
    return TokenFiles(folder)


def test_folder_that_does_not_exist_holds_no_token(tokens: TokenFiles) -> None:
    assert tokens.is_empty()
    assert tokens.all() == []
    assert tokens.get("0123456789ab") is None


def test_created_token_is_found_by_its_id_and_knows_its_secret(tokens: TokenFiles) -> None:
    made, text = tokens.create(Scope.REGISTER, "web", "ci", 12.5)
    parts = split_token(text)
    assert parts is not None
    found = tokens.get(parts[0])
    assert found == made
    assert (made.scope, made.app, made.name, made.created_at_s) == (Scope.REGISTER, "web", "ci", 12.5)
    assert made.has_secret(parts[1])
    assert not tokens.is_empty()


def test_another_process_sees_a_token_at_once_and_its_end(tokens: TokenFiles, folder: Path) -> None:
    running = TokenFiles(folder)
    assert running.is_empty()
    made, _ = tokens.create(Scope.ADMIN, None, "", 1.0)
    assert running.get(made.id) == made
    assert tokens.revoke(made.id)
    assert running.get(made.id) is None
    assert running.is_empty()


def test_secret_is_in_no_file(tokens: TokenFiles, folder: Path) -> None:
    _, text = tokens.create(Scope.READ, None, "", 1.0)
    parts = split_token(text)
    assert parts is not None
    (file,) = folder.iterdir()
    assert parts[1].encode() not in file.read_bytes()


def test_folder_and_files_are_for_their_owner_alone(tokens: TokenFiles, folder: Path) -> None:
    tokens.create(Scope.READ, None, "", 1.0)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_tokens_are_listed_oldest_first(tokens: TokenFiles) -> None:
    made = [tokens.create(Scope.READ, None, name, at_s)[0] for name, at_s in (("b", 2.0), ("a", 1.0))]
    assert tokens.all() == made[::-1]


def test_no_two_tokens_are_alike(tokens: TokenFiles) -> None:
    texts = {tokens.create(Scope.READ, None, "", 1.0)[1] for _ in range(20)}
    assert len(texts) == len(tokens.all()) == 20


def test_token_that_does_not_exist_cannot_be_revoked(tokens: TokenFiles, tmp_path: Path) -> None:
    tokens.create(Scope.READ, None, "", 1.0)
    (tmp_path / "other.json").write_text("{}")
    assert not tokens.revoke("0123456789ab")
    assert not tokens.revoke("../other")
    assert (tmp_path / "other.json").exists()


def test_file_that_is_no_token_is_an_error_that_names_it(tokens: TokenFiles, folder: Path) -> None:
    folder.mkdir()
    (folder / "0123456789ab.json").write_text('{"id": 1}')
    with pytest.raises(EdgeproxyError, match=r"0123456789ab\.json is no token file .*; remove it"):
        tokens.get("0123456789ab")


def test_file_that_cannot_be_read_is_an_error_that_names_it(tokens: TokenFiles, folder: Path) -> None:
    (folder / "0123456789ab.json").mkdir(parents=True)
    with pytest.raises(EdgeproxyError, match=r"0123456789ab\.json cannot be read: Is a directory"):
        tokens.get("0123456789ab")
    with pytest.raises(EdgeproxyError, match=r"0123456789ab\.json cannot be removed"):
        tokens.revoke("0123456789ab")


def test_folder_that_is_none_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tokens = TokenFiles(tmp_path / "file")
    with pytest.raises(
        EdgeproxyError, match=r"file cannot be read: Not a directory; set EDGEPROXY_API_TOKENS_DIR"
    ):
        tokens.is_empty()
    with pytest.raises(EdgeproxyError, match=r"no token can be made in .*; set EDGEPROXY_API_TOKENS_DIR"):
        tokens.create(Scope.READ, None, "", 1.0)


def test_unfinished_file_is_no_token(tokens: TokenFiles, folder: Path) -> None:
    folder.mkdir()
    (folder / "0123456789ab.new").touch()
    assert tokens.is_empty()
    assert tokens.get("0123456789ab") is None
