"""The HTTP server of what can only be looked at: metrics, and the status page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from edgeproxy.inbound.metrics_port import MetricsPort

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SHUTDOWN_TIMEOUT_S: Final = 0.5
"""How long requests that are being answered may take when the server stops; status pages never end."""


class MetricsServer:
    """Answers GET (and HEAD) for exact paths, from :meth:`start` to :meth:`stop`."""

    def __init__(self, port: MetricsPort, routes: Mapping[str, Handler]) -> None:
        self._port = port
        self.routes = routes
        """May be replaced."""
        application = web.Application()
        application.on_response_prepare.append(_protect)
        # aiohttp gives braces in a path a meaning; the path of the metrics is the user's, to the letter.
        application.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)

    async def start(self) -> None:
        """Listen from now on."""
        await self._runner.setup()
        await web.SockSite(self._runner, self._port.socket).start()

    async def stop(self) -> None:
        """Answer no more, and give the port back."""
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        handler = self.routes.get(request.raw_path) or self.routes.get(request.path)
        if handler is None:
            served = "\n".join(sorted(self.routes))
            return web.Response(status=404, text=f"404: nothing is here; there are:\n{served}\n")
        return await handler(request)


async def _protect(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "edgeproxy"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
