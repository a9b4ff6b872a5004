"""Tokens, and a service that checks them as it should, over HTTP."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from testkit.clocks import ManualClock
from testkit.issuer import LIFETIME_S, TokenIssuer, token_issuer


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def verifier(
    issuer: TokenIssuer, clock: Callable[[], float] | None = None
) -> Callable[[str], dict[str, Any]]:
    """What a service does with a token: discovery, keys, signature, claims."""

    def verify(token: str) -> dict[str, Any]:
        found = fetch(issuer.discovery_url)
        keys = KeySet.import_key_set(fetch(found["jwks_uri"]))
        decoded = jwt.decode(token, keys, algorithms=found["id_token_signing_alg_values_supported"])
        required = jwt.JWTClaimsRegistry(
            now=(lambda: int(clock())) if clock else None,
            iss={"essential": True, "value": found["issuer"]},
            aud={"essential": True, "value": issuer.audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        required.validate(decoded.claims)
        return decoded.claims

    return verify


def test_good_token_says_who_it_is(issuer: TokenIssuer) -> None:
    claims = verifier(issuer)(issuer.token(sub="alice", email="alice@example.com"))
    assert (claims["sub"], claims["email"]) == ("alice", "alice@example.com")
    assert claims["exp"] - claims["iat"] == LIFETIME_S


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_bad_tokens_are_rejected_by_who_checks_all(algorithm: str) -> None:
    with token_issuer(algorithm=algorithm) as issuer:
        verify = verifier(issuer)
        verify(issuer.token())
        bad = issuer.bad_tokens("sub")
        assert len(bad) >= 18
        for why, token in bad.items():
            with pytest.raises((JoseError, ValueError)):
                pytest.fail(f"{why}: {verify(token)}", pytrace=False)


def test_claims_can_be_left_out(issuer: TokenIssuer) -> None:
    claims = verifier(issuer)(issuer.token(without=("email", "picture")))
    assert {"email", "picture"}.isdisjoint(claims)


def test_tokens_stay_good_over_a_rotation_and_end_with_their_key(issuer: TokenIssuer) -> None:
    verify = verifier(issuer)
    old = issuer.token()
    issuer.rotate()
    new = issuer.token()
    verify(old)
    verify(new)
    issuer.rotate(withdraw_old=True)
    for withdrawn in (old, new):
        with pytest.raises(JoseError, match="No key"):
            verify(withdrawn)
    verify(issuer.token())


def test_token_ends_when_the_clock_says_so(clock: ManualClock) -> None:
    with token_issuer(clock=clock) as issuer:
        verify = verifier(issuer, clock)
        token = issuer.token()
        verify(token)
        clock.advance(LIFETIME_S + 1)
        with pytest.raises(JoseError):
            verify(token)


def test_what_is_asked_for_is_counted_and_failures_can_be_had(issuer: TokenIssuer) -> None:
    verifier(issuer)(issuer.token())
    assert issuer.requests == ["/.well-known/openid-configuration", "/.well-known/jwks.json"]
    with pytest.raises(HTTPError, match="404"):
        fetch(issuer.url + "/else")
    issuer.failing = True
    with pytest.raises(HTTPError, match="503"):
        fetch(issuer.keys_url)
