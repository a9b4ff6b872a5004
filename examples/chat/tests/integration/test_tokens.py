"""Tokens are checked as they should be, over real HTTP, and keys fetched as rarely as they can be."""

from __future__ import annotations

import pytest

from examples.chat.tokens import ProviderError, TokenVerifier, UnauthorizedError
from testkit.clocks import ManualClock
from testkit.issuer import TokenIssuer, token_issuer


async def test_good_token_says_who_it_is(issuer: TokenIssuer) -> None:
    claims = await TokenVerifier(issuer.url, issuer.audience).verify(issuer.token(sub="ada"))
    assert claims["sub"] == "ada"


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_bad_tokens_are_refused(algorithm: str) -> None:
    with token_issuer(algorithm=algorithm) as issuer:
        tokens = TokenVerifier(issuer.url, issuer.audience)
        await tokens.verify(issuer.token())
        for why, token in issuer.bad_tokens("sub").items():
            with pytest.raises(UnauthorizedError):
                pytest.fail(f"{why}: {await tokens.verify(token)}", pytrace=False)


async def test_keys_are_fetched_once(issuer: TokenIssuer) -> None:
    tokens = TokenVerifier(issuer.url, issuer.audience)
    for _ in range(3):
        await tokens.verify(issuer.token())
    assert len(issuer.requests) == 2  # where the keys are, and the keys


async def test_new_key_is_fetched_when_a_token_names_it(clock: ManualClock) -> None:
    with token_issuer(clock=clock) as issuer:
        tokens = TokenVerifier(issuer.url, issuer.audience, clock=clock)
        await tokens.verify(issuer.token())
        issuer.rotate()
        clock.advance(60)
        await tokens.verify(issuer.token())
        assert len(issuer.requests) == 4


async def test_made_up_keys_do_not_make_us_ask_each_time(clock: ManualClock) -> None:
    with token_issuer(clock=clock) as issuer:
        tokens = TokenVerifier(issuer.url, issuer.audience, clock=clock)
        for _ in range(3):
            with pytest.raises(UnauthorizedError):
                await tokens.verify(issuer.token_of_unknown_key())
        assert len(issuer.requests) == 2


async def test_provider_that_fails_is_no_fault_of_the_token(issuer: TokenIssuer) -> None:
    issuer.failing = True
    with pytest.raises(ProviderError, match="503"):
        await TokenVerifier(issuer.url, issuer.audience).verify(issuer.token())
