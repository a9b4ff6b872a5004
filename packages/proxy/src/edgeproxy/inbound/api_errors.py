"""Every refusal of the API, as JSON with a code, whoever decides on it: we or aiohttp."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from edgeproxy.inbound.api_shapes import Error

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CODES: Final = {
    HTTPStatus.NOT_FOUND: "no_such_route",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
}

# msgspec says where in words: "… - at `$.port`", "Object missing required field `id`".
_PATH: Final = re.compile(r" - at `\$\.(\w+)[^`]*`$")
_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`$", re.DOTALL)


class ApiError(Exception):
    """A request that is refused."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        error: str,
        *,
        field: str | None = None,
        backend_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.body = Error(code, error, field, backend_id)
        self.headers = headers

    def response(self) -> web.Response:
        return json_response(self.body, self.status, self.headers)


def json_response(
    body: msgspec.Struct, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The answer that holds ``body``."""
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json"
    )


def refused_body(error: msgspec.ValidationError) -> ApiError:
    """JSON that does not have the shape that the request needs."""
    text = str(error)
    if (path := _PATH.search(text)) is not None:
        return invalid(path[1], text[: path.start()])
    field = _FIELD.search(text)
    return invalid(field[1] if field else None, text)


def invalid(field: str | None, why: str) -> ApiError:
    """A value that the request must not have."""
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", why, field=field)


async def continue_only(request: web.Request) -> None:
    """Meet the one expectation that HTTP defines. Runs before everything else, so that it answers itself."""
    if request.headers["Expect"].lower() != "100-continue":
        refusal = Error("expectation_failed", "only 100-continue can be expected")
        raise web.HTTPExpectationFailed(
            text=msgspec.json.encode(refusal).decode(), content_type="application/json"
        )
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0


def from_aiohttp(refusal: web.HTTPException) -> web.Response:
    """What the framework refuses by itself, in our form, with its own headers: ``Allow`` for one."""
    status = HTTPStatus(refusal.status)
    headers = {name: value for name, value in refusal.headers.items() if name.lower() != "content-type"}
    code = _CODES.get(status, status.phrase.lower().replace(" ", "_"))
    return json_response(Error(code, status.description or status.phrase), status, headers)
