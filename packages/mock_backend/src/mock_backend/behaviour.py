"""What a mock backend answers. Pure: requests, time and the host's name come in as arguments.

======================= ==================================== =====================
``GET /``               text that tells all there is to tell counted as a request
``GET /api/info``       the same as JSON                     counted as a request
``GET /api/latency``    the least JSON, for measuring        counted as a request
``GET /health``         ``OK - {id} ({region})``             not counted
======================= ==================================== =====================

``HEAD`` is answered, and counted, like ``GET``; the server leaves the body away.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

_HEADER_SAFE = re.compile(r"[!-~]+")
_METHODS = ("GET", "HEAD")
_PATHS = ("/", "/health", "/api/info", "/api/latency")
_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"


def check_label(text: str) -> str:
    """Return ``text`` if it can be a backend's id or region, which travel in response headers.

    Raises:
        ValueError: it is empty, or holds anything but printable ASCII without blanks.
    """
    if not _HEADER_SAFE.fullmatch(text):
        raise ValueError(f"{text!r} is empty or holds blanks, control or non-ASCII characters")
    return text


@dataclass(frozen=True, slots=True)
class Identity:
    """Which backend this is."""

    backend_id: str
    region: str
    hostname: str
    port: int

    @classmethod
    def of(cls, *, backend_id: str | None, region: str, hostname: str, port: int) -> Identity:
        """Complete the identity once the port is known: the id defaults to ``mock-{region}-{port}``."""
        return cls(backend_id or f"mock-{region}-{port}", region, hostname, port)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every answer carries, errors included."""
        return {"X-Backend-ID": self.backend_id, "X-Region": self.region}


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request is answered: nanoseconds since 1970 (UTC) and seconds since the server started."""

    unix_ns: int
    uptime_s: float

    @property
    def rfc3339(self) -> str:
        """The time to the second in UTC, as in ``2025-12-08T00:11:43Z``."""
        return datetime.fromtimestamp(self.unix_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (the identity among them) and body of one response."""

    status: int
    headers: dict[str, str]
    body: bytes


class Backend:
    """One mock backend's state, and its answer to each request."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.request_count = 0

    def answer(self, method: str, path: str, *, client: str, moment: Moment) -> Answer:
        """Answer one request; ``path`` comes without its query, ``client`` as ``address:port``."""
        if path not in _PATHS:
            return self.refuse(HTTPStatus.NOT_FOUND, f"try {', '.join(_PATHS)}")
        if method not in _METHODS:
            refusal = self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, f"try {', '.join(_METHODS)}")
            refusal.headers["Allow"] = ", ".join(_METHODS)
            return refusal
        me = self.identity
        if path == "/health":
            return self._answer(HTTPStatus.OK, _TEXT, f"OK - {me.backend_id} ({me.region})")
        self.request_count += 1
        if path == "/api/latency":
            return self._answer(HTTPStatus.OK, _JSON, _json_line(self._latency(moment)))
        if path == "/api/info":
            return self._answer(HTTPStatus.OK, _JSON, _json_line(self._info(moment)))
        return self._answer(HTTPStatus.OK, _TEXT, self._banner(client, moment))

    def refuse(self, status: int, reason: str) -> Answer:
        """Answer with an error; ``reason`` is one line for whoever reads it."""
        return self._answer(status, _TEXT, f"{status} {HTTPStatus(status).phrase}: {reason}\n")

    def _answer(self, status: int, content_type: str, text: str) -> Answer:
        return Answer(status, {**self.identity.headers, "Content-Type": content_type}, text.encode())

    def _latency(self, moment: Moment) -> dict[str, str | int]:
        me = self.identity
        return {"backend_id": me.backend_id, "region": me.region, "ts": moment.unix_ns}

    def _info(self, moment: Moment) -> dict[str, str | int]:
        me = self.identity
        return {
            "backend_id": me.backend_id,
            "region": me.region,
            "hostname": me.hostname,
            "port": str(me.port),
            "request_count": self.request_count,
            "uptime_secs": int(moment.uptime_s),
            "timestamp": moment.rfc3339,
            "message": "Hello from mock backend!",
        }

    def _banner(self, client: str, moment: Moment) -> str:
        me = self.identity
        return (
            "Mock backend\n"
            f"Backend ID: {me.backend_id}\n"
            f"Region:     {me.region}\n"
            f"Hostname:   {me.hostname}\n"
            f"Port:       {me.port}\n"
            f"Request:    #{self.request_count}\n"
            f"Uptime:     {int(moment.uptime_s)} s\n"
            f"Client:     {client}\n"
            f"Timestamp:  {moment.rfc3339}\n"
        )


def _json_line(fields: dict[str, str | int]) -> str:
    # Without blanks: scripts written for the original grep for '"request_count":[0-9]*'.
    return json.dumps(fields, separators=(",", ":")) + "\n"
