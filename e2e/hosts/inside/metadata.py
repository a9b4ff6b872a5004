"""The instance-metadata service of a host (IMDSv2), as EC2 has it: no token, no answer.

``INSTANCE`` in the environment is JSON, what the host is told: a tree of names that ends in text, with
``meta-data`` and ``user-data`` on top.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from typing import Any

from aiohttp import web

_ADDRESS = "169.254.169.254"
"""Nowhere else, for the host has a network of its own to serve."""
_MAX_TTL_S = 21_600
_HEADER = "X-aws-ec2-metadata-token"

_instance: dict[str, Any] = json.loads(os.environ.get("INSTANCE", "{}"))
_tokens: dict[str, float] = {}
"""Until when each holds."""


async def give_token(request: web.Request) -> web.Response:
    ttl_s = request.headers.get(f"{_HEADER}-ttl-seconds", "")
    # What came through a proxy is not from this host: that is what the second version is for.
    if "X-Forwarded-For" in request.headers:
        raise web.HTTPForbidden
    if not ttl_s.isdigit() or not 1 <= int(ttl_s) <= _MAX_TTL_S:
        raise web.HTTPBadRequest
    token = secrets.token_urlsafe(40)
    _tokens[token] = time.monotonic() + int(ttl_s)
    return web.Response(text=token, headers={f"{_HEADER}-ttl-seconds": ttl_s})


async def tell(request: web.Request) -> web.Response:
    if time.monotonic() > _tokens.get(request.headers.get(_HEADER, ""), 0.0):
        raise web.HTTPUnauthorized
    told: Any = _instance
    for name in request.match_info["path"].strip("/").split("/"):
        told = told.get(name) if isinstance(told, dict) else None
    if told is None:
        raise web.HTTPNotFound
    if isinstance(told, dict):
        told = "\n".join(f"{name}/" if isinstance(value, dict) else name for name, value in told.items())
    return web.Response(text=told)


def application() -> web.Application:
    app = web.Application()
    app.router.add_put("/latest/api/token", give_token)
    app.router.add_get("/latest/{path:.+}", tell)
    return app


if __name__ == "__main__":
    web.run_app(application(), host=_ADDRESS, port=80, print=None)
