"""The mock backend on a socket, in the event loop of whoever starts it.

aiohttp's low-level server, not its application framework: requests that cannot be parsed are answered
with the identity headers too, and nothing stands between the socket and `behaviour`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from http import HTTPStatus
from types import TracebackType
from typing import Self

from aiohttp import web

from mock_backend.behaviour import Answer, Backend, Identity, Moment, check_label

_BACKLOG = 4096
"""Room for the bursts of a load test; the kernel caps it at ``net.core.somaxconn``."""

_DRAIN_TIMEOUT_S = 5.0
"""How long a request in flight may take to end once the server stops."""

_SETTLE_S = 0.01
"""Several turns of the loop: enough for what the kernel has completed to be accepted, read and begun."""

_REMEDIES = {
    errno.EADDRINUSE: "stop what listens there or choose another port (0 takes any free one)",
    errno.EACCES: "ports below 1024 need a privilege: choose another",
    errno.EADDRNOTAVAIL: "the address is not one of this machine's: choose another",
}


class ListenError(Exception):
    """The address cannot be listened on; the text names it and the remedy in one line."""


class MockBackend:
    """A mock backend in the running event loop, usable as an async context manager.

    ``id`` defaults to ``mock-{region}-{port}`` with the port that it got. The properties may be read from
    `start` on, and still after `stop`.

    Raises:
        ValueError: ``id`` or ``region`` cannot stand in a header.
    """

    def __init__(
        self,
        *,
        region: str = "eu",
        id: str | None = None,  # noqa: A002  the word that flags, headers and the routing table use
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._region = check_label(region)
        self._id = None if id is None else check_label(id)
        self._host = host
        self._requested_port = port
        self._backend: Backend | None = None

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ListenError: the address is taken, not allowed or not ours.
        """
        self._listener = _listen(self._host, self._requested_port)
        identity = Identity.of(
            backend_id=self._id,
            region=self._region,
            hostname=socket.gethostname(),
            port=self._listener.getsockname()[1],
        )
        self._backend = Backend(identity)
        self._connections = _Connections(self._backend)
        self._server = await asyncio.get_running_loop().create_server(
            self._connections, sock=self._listener, backlog=_BACKLOG
        )

    async def stop(self) -> None:
        """Stop accepting, close idle connections, let requests in flight end."""
        # Closing the listener at once would reset the connections that wait in its queue, and a connection
        # told to close before its task has begun waits for a first request until the drain times out.
        await asyncio.sleep(_SETTLE_S)
        self._server.close()
        await asyncio.sleep(_SETTLE_S)
        self._connections.pre_shutdown()
        await self._connections.shutdown(_DRAIN_TIMEOUT_S)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def id(self) -> str:
        return self._started.identity.backend_id

    @property
    def region(self) -> str:
        return self._region

    @property
    def address(self) -> str:
        """The IP address it listens on."""
        return self._host

    @property
    def port(self) -> int:
        """The port it listens on, never 0."""
        return self._started.identity.port

    @property
    def request_count(self) -> int:
        """Requests answered so far, health checks and errors not among them."""
        return self._started.request_count

    @property
    def _started(self) -> Backend:
        assert self._backend is not None, "the mock backend was never started"
        return self._backend


class _Connections(web.Server):
    """Makes the protocol of each accepted connection, and closes them all at the end."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(self._respond)
        self._backend = backend
        self._started_s = time.monotonic()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._backend)

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        moment = Moment(unix_ns=time.time_ns(), uptime_s=time.monotonic() - self._started_s)
        address, port, *_ = request.get_extra_info("peername", ("gone", 0))
        client = endpoint(address, port)
        return _response(self._backend.answer(request.method, request.path, client=client, moment=moment))


class _Connection(web.RequestHandler):
    """One client's connection. What aiohttp refuses by itself is answered as `behaviour` answers."""

    __slots__ = ("_backend",)

    def __init__(self, connections: _Connections, backend: Backend) -> None:
        super().__init__(connections, loop=asyncio.get_running_loop())
        self._backend = backend

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # Malformed requests are the client's fault and no news; an exception in the answer is ours.
        if exc is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log_exception("cannot answer %s %s", request.method, request.path, exc_info=exc)
        reason = (message or "the mock backend failed").partition("\n")[0].rstrip(":")
        response = _response(self._backend.refuse(status, reason))
        response.force_close()
        return response


def _response(answer: Answer) -> web.Response:
    # feature: testing.mock_backend
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        remedy = _REMEDIES.get(error.errno or 0, "check the address")
        raise ListenError(f"cannot listen on {endpoint(host, port)}: {error.strerror}; {remedy}") from error
    return listener


def endpoint(host: str, port: int) -> str:
    """Write an address and a port as one word, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
