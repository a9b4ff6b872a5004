"""``/openapi.json``: the calls of the API, described from the definitions that route and validate them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from edgeproxy.core.controlplane.leases import TTL_HEADER
from edgeproxy.core.geography import Geography
from edgeproxy.inbound.api_routes import Call, Calls
from edgeproxy.inbound.api_shapes import Error

_SCHEMAS: Final = "#/components/schemas/{name}"
_TOKEN: Final = "token"

# What a call may meet besides the refusals of its own.
_ALWAYS: Final = (HTTPStatus.TOO_MANY_REQUESTS,)
_WITH_SCOPE: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE)
_WITH_BODY: Final = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)

_PATH_PARAMETERS: Final = (
    {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "Id of a backend.",
        "schema": {"type": "string", "minLength": 1},
    },
)
_EXPLAIN_PARAMETERS: Final = (
    {
        "name": "client",
        "in": "query",
        "required": True,
        "description": "IP address of the client.",
        "schema": {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
    },
    {
        "name": "app",
        "in": "query",
        "description": "The app it asks for; that of the listener without it.",
        "schema": {"type": "string"},
    },
)

_AFTER_REGISTERING: Final = ("heartbeat", "get_backend", "adjust_backend", "deregister")


def document(calls: Iterable[Call], geography: Geography, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document. What it says of regions and countries is what ``geography`` knows."""
    calls = tuple(calls)  # feature: api.described
    shapes = {Error, *(call.gives for call in calls), *(call.takes for call in calls if call.takes)}
    _, schemas = msgspec.json.schema_components(
        sorted(shapes, key=lambda shape: shape.__name__), ref_template=_SCHEMAS
    )
    _complete(schemas, geography)
    paths: dict[str, Any] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgeproxy",
            "version": version,
            "description": "Backends register themselves, and say again and again that they live.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {_TOKEN: {"type": "http", "scheme": "bearer"}},
        },
    }


def _complete(schemas: dict[str, Any], geography: Geography) -> None:
    """Add what the shapes cannot say, because it depends on the settings or on several members at once."""
    registration = schemas["Registration"]["properties"]
    registration["region"]["enum"] = sorted(geography.regions)
    registration["country"]["anyOf"][0]["enum"] = sorted(geography.region_by_country)
    registration["ip"]["anyOf"] = [{"format": name} for name in ("ipv4", "ipv6", "hostname")]
    schemas["Adjustment"]["minProperties"] = 1
    schemas["Adjustment"]["not"] = {"required": ["healthy", "drain"]}


def _operation(call: Call) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done.", "content": _json(call.gives)}
    if call.answer in (Calls.register, Calls.heartbeat):
        success["headers"] = {
            TTL_HEADER: {
                "description": "Seconds within which the next heartbeat must come.",
                "schema": {"type": "number"},
            }
        }
    if call.answer is Calls.register:
        success["links"] = {
            name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
            for name in _AFTER_REGISTERING
        }
    operation: dict[str, Any] = {
        "operationId": call.answer.__name__,
        "summary": call.answer.__doc__,
        "parameters": _parameters(call),
        "responses": {str(call.status.value): success}
        | {
            str(status.value): {"description": f"{status.phrase}.", "content": _json(Error)}
            for status in sorted(_refusals(call))
        },
        "security": [{_TOKEN: []}] if call.scope is not None else [],
    }
    if call.takes is not None:
        operation["requestBody"] = {"required": True, "content": _json(call.takes)}
    if call.scope is not None:
        operation["description"] = f"Needs a token of scope `{call.scope}` or `admin`."
    return operation


def _refusals(call: Call) -> set[HTTPStatus]:
    statuses = {*_ALWAYS, *call.refusals}
    if call.scope is not None:
        statuses.update(_WITH_SCOPE)
    if call.takes is not None:
        statuses.update(_WITH_BODY)
    return statuses


def _parameters(call: Call) -> Sequence[Mapping[str, Any]]:
    if call.answer is Calls.explain:
        return _EXPLAIN_PARAMETERS
    return _PATH_PARAMETERS if "{id}" in call.path else ()


def _json(shape: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _SCHEMAS.format(name=shape.__name__)}}}
