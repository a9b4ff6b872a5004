"""The status page: the POP in a browser, live. Nothing is loaded from anywhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.resources import files
from time import monotonic
from typing import Any, Final

import msgspec
from aiohttp import web

from edgeproxy.core.controlplane.overview import BackendState, BackendView, Overview
from edgeproxy.inbound.metrics_server import Handler

INTERVAL_S: Final = 1.0
MAX_VIEWERS: Final = 32
MAX_BACKENDS: Final = 200
"""Shown are those with most connections: nobody reads more, and each viewer is sent them every second."""
MAX_COUNTRIES: Final = 12

_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CONTENT_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class StatusPage:
    """Serves the page and what it shows."""

    def __init__(self, look: Callable[[], Overview], interval_s: float = INTERVAL_S) -> None:
        """``look`` gives the present state, which is sent each ``interval_s``."""
        self._look = look
        self._interval_s = interval_s
        self._viewers = 0
        self._event = b""
        self._event_at_s = 0.0

    def routes(self) -> Mapping[str, Handler]:
        """Handlers by path."""
        return {
            "/": _static("status.html"),
            "/status.css": _static("status.css"),
            "/status.js": _static("status.js"),
            "/status/events": self._stream,
        }

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events until the viewer goes."""
        if self._viewers >= MAX_VIEWERS:
            return web.Response(status=503, text=f"{MAX_VIEWERS} viewers are here already\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self._viewers += 1
        try:
            await response.prepare(request)
            while True:
                await response.write(self._current_event())
                await asyncio.sleep(self._interval_s)
        except ConnectionError:
            return response  # the viewer has gone
        finally:
            self._viewers -= 1

    def _current_event(self) -> bytes:
        """The state as an event; made once in an interval, however many look."""
        now_s = monotonic()
        if not self._event or now_s - self._event_at_s >= self._interval_s / 2:
            self._event = b"data: " + msgspec.json.encode(status(self._look())) + b"\n\n"
            self._event_at_s = now_s
        return self._event


def status(overview: Overview) -> dict[str, Any]:
    """What the page shows of ``overview``."""
    backends = overview.backends  # feature: metrics.status_page
    shown = sorted(backends, key=lambda view: (view.state is BackendState.GONE, -view.connections))
    states = [view.state for view in backends]
    return {
        **{name: getattr(overview, name) for name in _AS_THEY_ARE},
        "refused": overview.refused,
        "active": sum(view.active for view in backends),
        "bytes_sent": sum(view.bytes_sent for view in backends),
        "bytes_received": sum(view.bytes_received for view in backends),
        "states": {state: states.count(state) for state in BackendState if state in states},
        "backends": [_shown(view) for view in sorted(shown[:MAX_BACKENDS], key=lambda view: view.id)],
        "backends_total": len(backends),
        "countries": overview.countries[:MAX_COUNTRIES],
    }


_AS_THEY_ARE: Final = (
    *("version", "node", "region", "uptime_s", "workers", "worker_restarts"),
    *("table_version", "table_age_s", "bad_rows", "clients"),
)


def _shown(view: BackendView) -> dict[str, Any]:
    shown = msgspec.structs.asdict(view)
    connects = shown.pop("connects")
    return {**shown, "connect_ms": 1000 * connects.seconds_sum / connects.count if connects.count else None}


def _static(name: str) -> Handler:
    body = (files("edgeproxy.inbound") / "static" / name).read_bytes()
    content_type = _CONTENT_TYPES[name.rpartition(".")[2]]

    async def answer(_request: web.Request) -> web.StreamResponse:
        response = web.Response(body=body, content_type=content_type, charset="utf-8")
        response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
        return response

    return answer
