from __future__ import annotations

import pytest

from edgeproxy.core.controlplane.tokens import Scope, Token, digest, split_token, written_token

ID = "0123456789ab"
SECRET = "s" * 40 + "-_9"
TOKEN = Token(ID, "ci", Scope.REGISTER, "web", digest(SECRET), 1.0)


def test_written_token_is_split_again() -> None:
    assert split_token(written_token(ID, SECRET)) == (ID, SECRET)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "edgeproxy",
        f"edgeproxy_{ID}_",
        f"edgeproxy_{ID}_{SECRET}x",
        f"edgeproxy_{ID}_{SECRET[:-1]}",
        f"edgeproxy_{ID.upper()}_{SECRET}",
        f"edgeproxy_../../etc/x_{SECRET}",
        f" edgeproxy_{ID}_{SECRET}",
        f"edgeproxy_{ID}_{SECRET}\n",
        f"other_{ID}_{SECRET}",
    ],
)
def test_what_is_no_token_is_not_split(text: str) -> None:
    assert split_token(text) is None


def test_token_knows_its_secret_and_no_other() -> None:
    assert TOKEN.has_secret(SECRET)
    assert not TOKEN.has_secret(SECRET[:-1] + "8")
    assert not TOKEN.has_secret("")


def test_what_is_kept_of_a_secret_is_its_sha_256() -> None:
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert SECRET not in repr(TOKEN)


@pytest.mark.parametrize(
    ("held", "permitted"),
    [
        (Scope.READ, {Scope.READ}),
        (Scope.REGISTER, {Scope.REGISTER}),
        (Scope.ADMIN, {Scope.READ, Scope.REGISTER, Scope.ADMIN}),
    ],
)
def test_scope_permits_itself_and_admin_permits_all(held: Scope, permitted: set[Scope]) -> None:
    token = Token(ID, "", held, None, digest(SECRET), 1.0)
    assert {scope for scope in Scope if token.permits(scope)} == permitted
