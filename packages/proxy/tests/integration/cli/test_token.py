"""``edgeproxy token``, run in this process on a real folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeproxy.core.controlplane.tokens import Scope, split_token
from edgeproxy.outbound.tokens_files import TokenFiles
from packages.proxy.tests.integration.cli.commands import Run


def test_created_token_is_printed_alone_and_kept_beside_the_database(run: Run) -> None:
    done = run("token", "create", "--scope", "register", "--app", "web", "--name", "ci of web")
    assert (done.code, done.errors) == (0, [])
    parts = split_token(done.out.rstrip("\n"))
    assert parts is not None
    (token,) = TokenFiles(Path("routing.db.tokens")).all()
    assert token.has_secret(parts[1])
    assert (token.id, token.scope, token.app, token.name) == (parts[0], Scope.REGISTER, "web", "ci of web")


def test_tokens_are_kept_in_the_state_folder_when_there_is_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("state").mkdir()
    monkeypatch.setenv("EDGEPROXY_STATE_DIR", "state")
    run("token", "create", "--scope", "admin")
    assert len(list(Path("state/tokens").iterdir())) == 1


def test_folder_of_the_settings_is_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_API_TOKENS_DIR", "mine")
    run("token", "create", "--scope", "read")
    assert len(list(Path("mine").iterdir())) == 1


def test_tokens_are_listed_without_their_secrets(run: Run) -> None:
    texts = [
        run("token", "create", "--scope", "register", "--app", "web", "--name", "ci").out,
        run("token", "create", "--scope", "admin").out,
    ]
    done = run("token", "list")
    heading, first, second = done.out.splitlines()
    assert heading.split() == ["id", "scope", "app", "created", "name"]
    assert re.fullmatch(r"[0-9a-f]{12}  register  web  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  ci", first)
    assert re.fullmatch(r"[0-9a-f]{12}  admin          \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", second)
    for text in texts:
        assert text.strip().rpartition("_")[2] not in done.out


def test_empty_list_says_what_that_means(run: Run) -> None:
    assert run("token", "list") == (0, "there is no token: only this machine may call the API\n", [])


def test_revoked_token_is_gone(run: Run) -> None:
    token_id = run("token", "create", "--scope", "admin").out.split("_")[1]
    assert run("token", "revoke", token_id) == (0, f"token {token_id} revoked\n", [])
    assert list(Path("routing.db.tokens").iterdir()) == []


def test_unknown_token_cannot_be_revoked(run: Run) -> None:
    done = run("token", "revoke", "nobody")
    assert (done.code, done.out) == (2, "")
    assert done.errors == ["there is no token 'nobody'; `edgeproxy token list` shows those there are"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--scope", "register"), "--scope register needs --app APP, the app whose backends may register"),
        (("--scope", "register", "--app", ""), "--scope register needs --app APP"),
        (
            ("--scope", "read", "--app", "web"),
            "--app goes with --scope register only; scope read is for all apps",
        ),
        (("--scope", "admin", "--name", "a\nb"), "--name: holds characters that cannot be printed"),
    ],
)
def test_wrong_use_is_explained(run: Run, arguments: tuple[str, ...], problem: str) -> None:
    done = run("token", "create", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.errors[0].startswith(problem)
    assert not Path("routing.db.tokens").exists()


def test_scope_is_one_of_three(run: Run) -> None:
    assert run("token", "create", "--scope", "everything").code == 2


def test_folder_that_cannot_be_made_exits_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_API_TOKENS_DIR", "missing/tokens")
    done = run("token", "create", "--scope", "admin")
    assert done.code == 1
    assert done.errors == [
        "no token can be made in missing/tokens: No such file or directory; set EDGEPROXY_API_TOKENS_DIR"
    ]
