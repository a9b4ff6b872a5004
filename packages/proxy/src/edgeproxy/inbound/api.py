"""The API server: backends register themselves, operators look and adjust.

``docs/api.md`` describes the calls. The other ``api_*`` modules hold one part each: ``api_routes`` the
calls, ``api_registrar`` what becomes of registrations, ``api_access`` who may call, ``api_errors`` how it is
refused, ``api_shapes`` what travels, ``api_openapi`` the document, ``api_port`` where it listens, ``api_tls``
its certificate.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web

from edgeproxy.config import Config
from edgeproxy.core.controlplane.control_view import ApiCounts
from edgeproxy.core.controlplane.explain import Explanation
from edgeproxy.core.controlplane.flood import FloodLimit
from edgeproxy.errors import ListenError
from edgeproxy.inbound.api_access import Access
from edgeproxy.inbound.api_errors import ApiError, Handler, continue_only, from_aiohttp
from edgeproxy.inbound.api_openapi import document
from edgeproxy.inbound.api_port import ApiPort
from edgeproxy.inbound.api_registrar import Registrar, Table
from edgeproxy.inbound.api_routes import CALLS, Call, Calls
from edgeproxy.inbound.api_tls import ApiTls, check_certificate
from edgeproxy.ports import LeaseStore

BACKLOG: Final = 1024

_OTHER: Final = "other"
"""Stands for methods and paths that are none of ours, in the counts of requests."""

KEEPALIVE_S: Final = 75.0
"""How long a connection may be silent between two requests."""

SHUTDOWN_TIMEOUT_S: Final = 2.0
"""How long requests that are being answered may take when the server stops."""

TOKENS_INTERVAL_S: Final = 0.5
"""How often it is looked whether tokens came or went."""


# What aiohttp would tell is what clients send that is no HTTP; our own faults are told by us.
_SILENT: Final = logging.getLogger("edgeproxy.api")
_SILENT.disabled = True


class Log(Protocol):
    """Where the server says what happens."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def warning(self, event: str, **fields: Any) -> Any: ...

    def error(self, event: str, **fields: Any) -> Any: ...


class ApiServer:
    """Serves the API from :meth:`start` to :meth:`stop`, and meanwhile needs :meth:`run` to be running."""

    def __init__(
        self,
        port: ApiPort,
        config: Config,
        table: Table,
        leases: LeaseStore,
        explain: Callable[[str, str | None], Explanation],
        workers_ready: Callable[[], bool],
        version: str,
        log: Log,
        registry_log: Log | None = None,
        is_elsewhere: Callable[[str], bool] = lambda _owner: False,
    ) -> None:
        """See :class:`~edgeproxy.inbound.api_routes.Calls` for ``explain``, and for ``is_elsewhere``
        :class:`~edgeproxy.core.controlplane.lease_book.LeaseBook`.

        ``registry_log`` is told what becomes of registrations, in the place of ``log``.

        Raises:
            ConfigError: certificate or key cannot be used.
        """
        self._port = port
        self._log = log
        self._tls: ApiTls | None = None
        if config.api_tls_cert is not None and config.api_tls_key is not None:
            self._tls = ApiTls(config.api_tls_cert, config.api_tls_key)
        ttl_s = config.heartbeat_ttl_secs
        self._registrar = Registrar(
            leases,
            table,
            config.geography,
            ttl_s,
            config.replication_node_id,
            registry_log or log,
            is_elsewhere,
        )
        self._calls = Calls(self._registrar, table, explain, workers_ready, version, ttl_s)
        self._limit = FloodLimit(config.api_rate_limit_per_sec, config.api_rate_limit_burst)
        self._access = Access(port.tokens, self._limit)
        self._max_body_bytes = config.api_max_body_bytes
        openapi = document(CALLS, config.geography, version)
        self._runner = web.AppRunner(
            self._application(openapi),
            access_log=None,
            logger=_SILENT,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        )
        self._site: web.SockSite | None = None
        self._requests: Counter[tuple[str, str, int]] = Counter()

    def check_settings(self, config: Config) -> None:
        """See whether :meth:`change_settings` can succeed.

        Raises:
            ConfigError: certificate or key cannot be used.
        """
        if self._tls is not None and config.api_tls_cert is not None and config.api_tls_key is not None:
            check_certificate(config.api_tls_cert, config.api_tls_key)

    def change_settings(self, config: Config) -> None:
        """Go by these from now on, but for what is bound to sockets and files."""
        self._limit.change(config.api_rate_limit_per_sec, config.api_rate_limit_burst)
        self._max_body_bytes = config.api_max_body_bytes
        self._registrar.change_ttl(config.heartbeat_ttl_secs)
        self._calls.change_ttl(config.heartbeat_ttl_secs)
        if self._tls is not None and config.api_tls_cert is not None and config.api_tls_key is not None:
            self._tls.change_files(config.api_tls_cert, config.api_tls_key)

    async def start(self) -> None:
        """Take up the registrations of former runs, and listen."""
        await self._registrar.load()
        await self._runner.setup()
        self._site = await self._serve_port()

    async def run(self) -> None:
        """Keep registrations, until cancelled; from then on nothing can be changed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._registrar.run())
            group.create_task(self._follow_tokens())
            if self._tls is not None:
                group.create_task(self._tls.watch(self._log))

    def leases_changed(self) -> None:
        """See :meth:`edgeproxy.inbound.api_registrar.Registrar.leases_changed`."""
        self._registrar.leases_changed()

    def counts(self) -> ApiCounts:
        """What was done since the start."""
        return ApiCounts(self._requests, self._registrar.changes, len(self._registrar))

    def drain(self) -> None:
        """Be not ready any more, and go on answering."""
        self._calls.draining = True

    async def stop(self) -> None:
        """Answer no more. The port is the caller's to close."""
        await self._runner.cleanup()

    async def _serve_port(self) -> web.SockSite:
        context = self._tls.context if self._tls is not None else None
        site = web.SockSite(self._runner, self._port.socket, ssl_context=context, backlog=BACKLOG)
        await site.start()
        return site

    async def _follow_tokens(self) -> None:
        """Move the port when the first token comes or the last one goes; connections that are open stay."""
        while True:
            await asyncio.sleep(TOKENS_INTERVAL_S)
            host = self._port.place_to_move_to()
            if host is None:
                continue
            if self._site is not None:
                await self._site.stop()
                self._site = None
            try:
                self._port.move(host)
            except ListenError as error:
                self._log.error("the API cannot move, though tokens came or went", why=str(error))
            else:
                self._log.info("the API moved, since tokens came or went", api=self._port.address)
            if self._port.is_bound:
                self._site = await self._serve_port()

    # ---- serving -----------------------------------------------------------------------------

    def _application(self, openapi: dict[str, Any]) -> web.Application:
        application = web.Application(middlewares=[self._count, self._refuse_in_json])
        application.on_response_prepare.append(_name_no_versions)
        for call in CALLS:
            handler = self._handler(call)
            if call.method == "GET":
                application.router.add_get(call.path, handler, expect_handler=continue_only)  # and HEAD
            else:
                application.router.add_route(call.method, call.path, handler, expect_handler=continue_only)
        text = msgspec.json.encode(openapi)

        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=text, content_type="application/json")

        application.router.add_get("/openapi.json", answer)
        return application

    def _handler(self, call: Call) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            only_app = self._access.authorise(request, call.scope) if call.scope is not None else None
            return await call.answer(self._calls, request, only_app)

        return handle

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        resource = request.match_info.route.resource
        if resource is None:
            self._requests[_OTHER, _OTHER, response.status] += 1
        else:
            self._requests[request.method, resource.canonical, response.status] += 1
        return response

    @web.middleware
    async def _refuse_in_json(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._access.admit(request)
            return await handler(request.clone(client_max_size=self._max_body_bytes))
        except ApiError as refusal:
            if refusal.status is HTTPStatus.SERVICE_UNAVAILABLE and refusal.__cause__ is not None:
                self._log.warning("an API request failed", path=request.path, why=str(refusal.__cause__))
            return refusal.response()
        except web.HTTPException as refusal:
            return from_aiohttp(refusal)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets JSON and the log the reason
            self._log.error("an API request failed", path=request.path, exc_info=error)
            fault = "this is a fault of the proxy; its log says more"
            return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", fault).response()


async def _name_no_versions(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "edgeproxy"
