"""Who a token says its bearer is, by the keys that the identity provider publishes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

Fetch = Callable[[str], Awaitable[Mapping[str, Any]]]

ALGORITHMS = ["ES256", "RS256"]
# Whoever sends tokens with made-up keys must not make us ask the provider each time.
_REFETCH_AFTER_S = 30.0


class UnauthorizedError(Exception):
    """The token is not good."""


class ProviderError(Exception):
    """The identity provider cannot be asked."""


async def fetch_json(url: str) -> Mapping[str, Any]:
    """GET a document.

    Raises:
        ProviderError: there is none.
    """
    try:
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            answer.raise_for_status()
            document: Mapping[str, Any] = await answer.json()
            return document
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ProviderError(f"{url}: {error}") from error


class TokenVerifier:
    """Checks tokens of one issuer for one audience; keys are fetched when a token names one not known."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        fetch: Fetch = fetch_json,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._clock = clock
        self._keys = KeySet([])
        self._fetched_at_s = float("-inf")
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    async def verify(self, token: str) -> Mapping[str, Any]:
        """Return the claims.

        Raises:
            UnauthorizedError: the token is not good.
            ProviderError: its key is not known, and the provider cannot be asked.
        """
        try:
            key_id = jws.extract_compact(token.encode()).headers().get("kid")
            if all(key.kid != key_id for key in self._keys.keys):
                await self._fetch_keys()
            claims = jwt.decode(token, self._keys, algorithms=ALGORITHMS).claims
            self._claims.validate(claims)
        except (JoseError, ValueError) as error:
            raise UnauthorizedError(str(error)) from error
        return claims

    async def _fetch_keys(self) -> None:
        if self._clock() - self._fetched_at_s < _REFETCH_AFTER_S:
            return
        found = await self._fetch(self._issuer + "/.well-known/openid-configuration")
        published = await self._fetch(found["jwks_uri"])
        self._keys = KeySet.import_key_set({"keys": published["keys"]})
        self._fetched_at_s = self._clock()
