"""The calls of the API: one method each, and the list of them from which routes and document are made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from typing import Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET

from edgeproxy.core.controlplane.explain import Explanation
from edgeproxy.core.controlplane.leases import TTL_HEADER
from edgeproxy.core.controlplane.registry import Refusal, RefusalReason
from edgeproxy.core.controlplane.tokens import Scope
from edgeproxy.errors import StoreError
from edgeproxy.inbound.api_errors import ApiError, invalid, json_response, refused_body
from edgeproxy.inbound.api_registrar import Registrar, StoppingError, Table
from edgeproxy.inbound.api_shapes import (
    AdjustedBackend,
    Adjustment,
    Deregistered,
    Health,
    HeartbeatTaken,
    Ready,
    Registered,
    RegisteredBackend,
    RegisteredBackends,
    Registration,
)
from edgeproxy.ports import NotWritten

BODY_TIMEOUT_S: Final = 10.0

_FIELD_BY_COLUMN: Final = {"wg_ip": "ip"}

S = TypeVar("S", bound=msgspec.Struct)


class Calls:
    """Answers every call. Methods take the request and the app that its sender must keep to."""

    def __init__(
        self,
        registrar: Registrar,
        table: Table,
        explain: Callable[[str, str | None], Explanation],
        workers_ready: Callable[[], bool],
        version: str,
        ttl_s: float,
    ) -> None:
        """``explain`` takes address and app, and raises ``ValueError`` for what is no address."""
        self._registrar = registrar
        self._table = table
        self._explain = explain
        self._workers_ready = workers_ready
        self._version = version
        self.change_ttl(ttl_s)
        self._started_s = monotonic()
        self.draining = False

    def change_ttl(self, ttl_s: float) -> None:
        """Tell backends from now on that they must be heard so often."""
        self._ttl_header = {TTL_HEADER: f"{ttl_s:g}"}

    # ---- backends about themselves -----------------------------------------------------------

    async def register(self, request: web.Request, only_app: str | None) -> web.Response:
        """Register a backend, or register it again."""
        wanted = await _body(request, Registration)  # feature: api.registration
        values = {
            "app": wanted.app,
            "region": wanted.region,
            "country": wanted.country,
            "wg_ip": wanted.ip,
            "port": wanted.port,
            **_given(wanted, "weight", "soft_limit", "hard_limit"),
        }
        with _refusals(wanted.id) as check:
            check(await self._registrar.register(wanted.id, values, only_app))
        return json_response(Registered(wanted.id), HTTPStatus.CREATED, self._ttl_header)

    async def heartbeat(self, request: web.Request, only_app: str | None) -> web.Response:
        """Say that a registered backend is alive."""
        backend_id = request.match_info["id"]
        with _refusals(backend_id) as check:
            check(await self._registrar.beat(backend_id, only_app))
        return json_response(HeartbeatTaken(backend_id), headers=self._ttl_header)

    async def deregister(self, request: web.Request, only_app: str | None) -> web.Response:
        """Take a registered backend out of the routing table."""
        backend_id = request.match_info["id"]
        with _refusals(backend_id) as check:
            check(await self._registrar.deregister(backend_id, only_app))
        return json_response(Deregistered(backend_id))

    # ---- others about backends ---------------------------------------------------------------

    async def list_backends(self, _request: web.Request, _only_app: str | None) -> web.Response:
        """List the backends that registered themselves."""
        backends = self._registrar.backends()
        return json_response(RegisteredBackends(backends, len(backends)))

    async def get_backend(self, request: web.Request, _only_app: str | None) -> web.Response:
        """Show a backend that registered itself."""
        backend_id = request.match_info["id"]
        backend = self._registrar.backend(backend_id)
        if backend is None:
            raise _unknown(backend_id, "backend not registered")
        return json_response(backend)

    async def adjust_backend(self, request: web.Request, _only_app: str | None) -> web.Response:
        """Change weight or limits of any backend in the routing table, drain it, or take it back."""
        backend_id = request.match_info["id"]  # feature: api.operators
        wanted = await _body(request, Adjustment)
        values = _given(wanted, "weight", "soft_limit", "hard_limit", "healthy")
        if wanted.drain is not UNSET:
            if "healthy" in values:
                raise invalid("drain", "drain is the opposite of healthy; give one of them")
            values["healthy"] = not wanted.drain
        if not values:
            raise invalid(None, "nothing to change; give weight, soft_limit, hard_limit, healthy or drain")
        with _refusals(backend_id) as check:
            check(await self._registrar.adjust(backend_id, values))
        placed = self._table.table.get(backend_id)
        if placed is None:
            raise _unknown(backend_id, "the backend was removed meanwhile")
        backend = placed.backend
        return json_response(
            AdjustedBackend(
                id=backend.id,
                app=backend.app,
                region=backend.region,
                country=backend.country,
                ip=backend.host,
                port=backend.port,
                healthy=backend.healthy,
                weight=backend.weight,
                soft_limit=backend.soft_limit,
                hard_limit=backend.hard_limit,
            )
        )

    async def explain(self, request: web.Request, _only_app: str | None) -> web.Response:
        """Show which backend a client gets, and why."""
        client, app = request.query.get("client"), request.query.get("app")
        if client is None:
            raise invalid("client", "client is missing; give the IP address of a client")
        try:
            return json_response(self._explain(client, app))
        except ValueError as error:
            raise invalid("client", str(error)) from error

    # ---- this process ------------------------------------------------------------------------

    async def health(self, _request: web.Request, _only_app: str | None) -> web.Response:
        """Tell that this process answers."""
        return json_response(
            Health(
                status="ok",
                version=self._version,
                registered_backends=len(self._registrar),
                backends=len(self._table.table.snapshot()),
                uptime_secs=int(monotonic() - self._started_s),
            )
        )

    async def ready(self, _request: web.Request, _only_app: str | None) -> web.Response:
        """Tell whether clients are accepted."""
        if self.draining:
            raise _unavailable("draining", "this proxy drains and takes no more clients")
        if not self._workers_ready():
            raise _unavailable("not_ready", "no worker is up")
        return json_response(Ready())


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as it is routed and documented."""

    method: str
    path: str
    answer: Callable[[Calls, web.Request, str | None], Awaitable[web.Response]]
    gives: type[msgspec.Struct]
    status: HTTPStatus = HTTPStatus.OK
    takes: type[msgspec.Struct] | None = None
    """The body."""
    scope: Scope | None = None
    """What the caller must be allowed; ``None`` for everybody."""
    refusals: tuple[HTTPStatus, ...] = ()
    """Besides those that every call may meet."""


_UNKNOWN, _CONFLICT, _INVALID = HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY

# fmt: off
CALLS: Final = (
    Call("POST", "/api/v1/register", Calls.register, Registered, HTTPStatus.CREATED,
         takes=Registration, scope=Scope.REGISTER, refusals=(_CONFLICT, _INVALID)),
    Call("POST", "/api/v1/heartbeat/{id}", Calls.heartbeat, HeartbeatTaken,
         scope=Scope.REGISTER, refusals=(_UNKNOWN, _CONFLICT)),
    Call("GET", "/api/v1/backends", Calls.list_backends, RegisteredBackends, scope=Scope.READ),
    Call("GET", "/api/v1/backends/{id}", Calls.get_backend, RegisteredBackend,
         scope=Scope.READ, refusals=(_UNKNOWN,)),
    Call("PATCH", "/api/v1/backends/{id}", Calls.adjust_backend, AdjustedBackend,
         takes=Adjustment, scope=Scope.ADMIN, refusals=(_UNKNOWN, _CONFLICT, _INVALID)),
    Call("DELETE", "/api/v1/backends/{id}", Calls.deregister, Deregistered,
         scope=Scope.REGISTER, refusals=(_UNKNOWN, _CONFLICT)),
    Call("GET", "/api/v1/explain", Calls.explain, Explanation, scope=Scope.READ, refusals=(_INVALID,)),
    Call("GET", "/health", Calls.health, Health),
    Call("GET", "/ready", Calls.ready, Ready),
)
# fmt: on


async def _body(request: web.Request, shape: type[S]) -> S:
    if request.content_type != "application/json":
        # Also keeps web pages from calling: a browser sends this type elsewhere only when allowed to.
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_json", "send JSON with Content-Type: application/json"
        )
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
    except TimeoutError:
        raise ApiError(
            HTTPStatus.REQUEST_TIMEOUT, "body_too_slow", f"the body took longer than {BODY_TIMEOUT_S:g} s"
        ) from None
    try:
        return read_body(body, shape)
    except msgspec.ValidationError as error:
        raise refused_body(error) from None
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 are a ValueError too
        raise ApiError(HTTPStatus.BAD_REQUEST, "malformed_json", str(error)) from None


def read_body(body: bytes, shape: type[S]) -> S:
    """Read what a request says.

    Raises:
        msgspec.ValidationError: it is JSON of another shape.
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    document = msgspec.json.decode(body)
    if isinstance(document, dict):
        document = {name: _whole(value) for name, value in document.items()}
    return msgspec.convert(document, shape)


def _whole(value: object) -> object:
    """JSON knows one kind of number: 80.0 is the whole number 80, in the table of backends as well."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _given(wanted: msgspec.Struct, *fields: str) -> dict[str, object]:
    values = {field: getattr(wanted, field) for field in fields}
    return {field: value for field, value in values.items() if value is not UNSET}


@contextmanager
def _refusals(backend_id: str) -> Iterator[Callable[[object], None]]:
    """Raise what keeps an operation from being done, in or after the block, as an :class:`ApiError`."""

    def check(outcome: object) -> None:
        match outcome:
            case Refusal():
                raise _refused(backend_id, outcome)
            case NotWritten(why):
                raise ApiError(HTTPStatus.CONFLICT, "not_writable", why, backend_id=backend_id)

    try:
        yield check
    except StoreError as error:
        raise _unavailable("store_unavailable", "the routing database cannot be written now") from error
    except StoppingError as error:
        raise _unavailable("draining", str(error)) from None


def _refused(backend_id: str, refusal: Refusal) -> ApiError:
    problem = "; ".join(refusal.problems)
    match refusal.reason:
        case RefusalReason.INVALID:
            issue = refusal.issues[0]
            field = _FIELD_BY_COLUMN.get(issue.column, issue.column)
            why = "; ".join(f"{each.value} {each.problem}" for each in refusal.issues)
            return invalid(field, why)
        case RefusalReason.FORBIDDEN:
            return ApiError(HTTPStatus.FORBIDDEN, "forbidden", problem, backend_id=backend_id)
    return _unknown(backend_id, problem)


def _unknown(backend_id: str, why: str) -> ApiError:
    return ApiError(HTTPStatus.NOT_FOUND, "unknown_backend", why, backend_id=backend_id)


def _unavailable(code: str, why: str) -> ApiError:
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, code, why)
