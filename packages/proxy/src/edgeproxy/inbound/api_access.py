"""Who may call: the flood limit, bearer tokens, and without tokens this machine alone."""

from __future__ import annotations

import math
from http import HTTPStatus
from ipaddress import ip_address
from time import monotonic
from typing import Final

from aiohttp import web

from edgeproxy.core.controlplane.flood import FloodLimit
from edgeproxy.core.controlplane.tokens import Scope, Token, split_token
from edgeproxy.core.dataplane.client import affinity_network, normalise
from edgeproxy.errors import EdgeproxyError
from edgeproxy.inbound.api_errors import ApiError
from edgeproxy.ports import TokenStore

_SCHEME: Final = "bearer"


class Access:
    """Judges each request before it does anything."""

    def __init__(self, tokens: TokenStore, limit: FloodLimit) -> None:
        self._tokens = tokens
        self._limit = limit

    def admit(self, request: web.Request) -> None:
        """Count the request.

        Raises:
            ApiError: its client makes too many.
        """
        # feature: api.bounded
        wait_s = self._limit.wait_s(affinity_network(peer_address(request)), monotonic())
        if wait_s:
            raise ApiError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_many_requests",
                "this client makes too many requests",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )

    def authorise(self, request: web.Request, scope: Scope) -> str | None:
        """Return the app that the caller must keep to, ``None`` when it need not.

        Raises:
            ApiError: it may not do what needs ``scope``.
        """
        try:  # feature: api.tokens
            if self._tokens.is_empty():
                _require_loopback(request)
                return None
            token = self._token(request)
        except EdgeproxyError as error:
            # What is wrong with which file is for the log of the operator, not for callers.
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE, "tokens_unavailable", "tokens cannot be checked now"
            ) from error
        if not token.permits(scope):
            raise ApiError(
                HTTPStatus.FORBIDDEN, "forbidden", f"this needs a token of scope {scope}, not {token.scope}"
            )
        return token.app

    def _token(self, request: web.Request) -> Token:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        parts = split_token(text.strip()) if scheme.lower() == _SCHEME else None
        if parts is None:
            raise _unauthorised("missing_token", "this needs the header: Authorization: Bearer TOKEN")
        token_id, secret = parts
        token = self._tokens.get(token_id)
        if token is None or not token.has_secret(secret):
            raise _unauthorised("bad_token", "this token is unknown or was revoked")
        return token


def peer_address(request: web.Request) -> str:
    """The numeric address of whoever connected; that of nobody when it is gone already."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return normalise(peer[0]) if peer else "0.0.0.0"


def _require_loopback(request: web.Request) -> None:
    if not ip_address(peer_address(request)).is_loopback:
        raise ApiError(
            HTTPStatus.FORBIDDEN,
            "loopback_only",
            "without a token only this machine may call; make one with: edgeproxy token create",
        )


def _unauthorised(code: str, why: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, code, why, headers={"WWW-Authenticate": "Bearer"})
