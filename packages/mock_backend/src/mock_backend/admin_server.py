"""The admin API on a port of its own; `admin` says what a call does."""

from __future__ import annotations

import json
from typing import Self

from aiohttp import web

from mock_backend.admin import MAX_BODY_BYTES, Admin, RefusedError, Wait
from mock_backend.gate import listen_error


class AdminServer:
    """Serves from `start` to `stop`."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._runner = web.ServerRunner(web.Server(self._respond, access_log=None), shutdown_timeout=0)
        self.port = 0

    @classmethod
    async def start(cls, admin: Admin, host: str, port: int) -> Self:
        """Listen and serve.

        Raises:
            ListenError: the address is taken, not allowed or not ours.
        """
        server = cls(admin)
        await server._runner.setup()
        try:
            await web.TCPSite(server._runner, host, port).start()
        except OSError as error:
            await server._runner.cleanup()
            raise listen_error(host, port, error) from error
        server.port = server._runner.addresses[0][1]
        return server

    async def stop(self) -> None:
        """Close the port and its connections; calls that wait for an entry end without one."""
        await self._runner.cleanup()

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        try:
            body = await _read(request)
            done = self._admin.call(
                request.method, request.path, request.query, body, request.headers.get("Authorization")
            )
            return _json(200, await self._admin.entries(done) if isinstance(done, Wait) else done)
        except RefusedError as error:
            response = _json(error.status, {"error": str(error)})
            # What is left of a body that is too long is not read.
            response.force_close()
            return response


async def _read(request: web.BaseRequest) -> bytes:
    body = b""
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    return body


def _json(status: int, values: dict[str, object]) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(values).encode() + b"\n", headers={"Content-Type": "application/json"}
    )
