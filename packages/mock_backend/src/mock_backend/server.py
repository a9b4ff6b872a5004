"""The mock backend on its sockets, in the event loop of whoever starts it.

aiohttp's low-level server, not its application framework: requests that cannot be parsed are answered
with the identity headers too, and nothing stands between the socket and `behaviour`.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

from aiohttp import web

from mock_backend.admin import Admin
from mock_backend.admin_server import AdminServer
from mock_backend.behaviour import Answer, Backend, Identity, Moment
from mock_backend.exchange import BadRequestError, Exchange
from mock_backend.gate import RESET, Gate, ListenError, echo, endpoint, listen_error
from mock_backend.instrument import Arrival, Instrument, State
from mock_backend.settings import Options, Settings

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["ListenError", "MockBackend", "endpoint"]

_DRAIN_TIMEOUT_S = 5.0
"""How long a request in flight may take to end once the server stops."""

_SETTLE_S = 0.01
"""Several turns of the loop: enough for what the kernel has completed to be accepted, read and begun."""

_FIRST_BYTES_TIMEOUT_S = 10.0
"""For a PROXY header, and for a TLS handshake."""


class MissingTestkitError(Exception):
    """PROXY headers are read by testkit's codec, and it is not installed."""


class MockBackend:
    """A mock backend in the running event loop, usable as an async context manager.

    Takes the fields of `Settings`. ``id`` defaults to ``mock-{region}-{port}`` with the port that it got. The
    properties may be read from `start` on, and still after `stop`.

    Raises:
        ValueError: a setting is wrong.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        self._settings = Settings(**options)
        self._backend: Backend | None = None

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ListenError: an address is taken, not allowed or not ours.
            MissingTestkitError: PROXY headers are wanted and `testkit` is not installed.
            OSError: a certificate or key cannot be read (``ssl.SSLError`` is one, too).
        """
        settings = self._settings
        self.instrument = Instrument(
            state=State(settings.state), script=settings.script, faults=settings.faults, seed=settings.seed
        )
        self._read_proxy = _proxy_reader() if settings.proxy_protocol else None
        self._tls = _tls_context(settings) if settings.tls_cert else None
        self._gates: list[Gate] = []
        self._udp: asyncio.DatagramTransport | None = None
        self._admin: AdminServer | None = None
        try:
            await self._open()
        except BaseException:
            await self._close_ports()
            raise
        self.instrument.on_state = self._follow_state

    async def _open(self) -> None:
        settings, instrument = self._settings, self.instrument
        self._gates.append(Gate("http", settings.host, settings.port, instrument, self._serve))
        identity = Identity.of(
            backend_id=settings.id,
            region=settings.region,
            hostname=socket.gethostname(),
            port=self._gates[0].port,
        )
        self._backend = Backend(identity)
        self._connections = _Connections(self._backend, instrument)
        if settings.tcp_echo is not None:
            self._gates.append(Gate("tcp-echo", settings.host, settings.tcp_echo, instrument, self._echo))
        if settings.udp_echo is not None:
            self._udp = await _open_udp(settings.host, settings.udp_echo, instrument)
        if settings.admin_port is not None:
            admin = Admin(instrument, self._describe, settings.admin_token)
            self._admin = await AdminServer.start(admin, settings.admin_host, settings.admin_port)

    async def stop(self) -> None:
        """Stop accepting, close idle connections, let requests in flight end."""
        # Closing the listener at once would reset the connections that wait in its queue, and a connection
        # told to close before its task has begun waits for a first request until the drain times out.
        await asyncio.sleep(_SETTLE_S)
        for gate in self._gates:
            gate.stop_accepting()
        await asyncio.sleep(_SETTLE_S)
        await self._connections.exchange.close()
        self._connections.pre_shutdown()
        # What hangs would hang for ever. To aiohttp 0 is no limit.
        hung = self.instrument.state is State.HUNG
        await self._connections.shutdown(_SETTLE_S if hung else _DRAIN_TIMEOUT_S)
        await self._close_ports()

    async def _close_ports(self) -> None:
        for gate in self._gates:
            await gate.close()
        if self._udp is not None:
            self._udp.close()
        if self._admin is not None:
            await self._admin.stop()

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
        return self._settings.region

    @property
    def address(self) -> str:
        """The IP address it listens on."""
        return self._settings.host

    @property
    def port(self) -> int:
        """The port it listens on, never 0."""
        return self._started.identity.port

    @property
    def request_count(self) -> int:
        """Requests answered so far, health checks and errors not among them."""
        return self._started.request_count

    @property
    def ports(self) -> dict[str, int]:
        """All ports that are open by name: http, tcp-echo, udp-echo, admin."""
        ports = {"http": self.port}
        for gate in self._gates[1:]:
            ports["tcp-echo"] = gate.port
        if self._udp is not None:
            ports["udp-echo"] = self._udp.get_extra_info("sockname")[1]
        if self._admin is not None:
            ports["admin"] = self._admin.port
        return ports

    @property
    def admin_address(self) -> str:
        """The IP address that the admin API listens on."""
        return self._settings.admin_host

    @property
    def _started(self) -> Backend:
        assert self._backend is not None, "the mock backend was never started"
        return self._backend

    def _describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "region": self.region,
            "ports": self.ports,
            "request_count": self.request_count,
        }

    def _follow_state(self) -> None:
        for gate in self._gates:
            gate.follow_state()

    async def _serve(self, accepted: socket.socket, arrival: Arrival) -> None:
        """Hand a connection to HTTP, behind its PROXY header and TLS where those are wanted."""
        await self._read_header(accepted, arrival)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._connections.connection(arrival),
            accepted,
            ssl=self._tls,
            ssl_handshake_timeout=_FIRST_BYTES_TIMEOUT_S if self._tls else None,
        )

    async def _echo(self, accepted: socket.socket, arrival: Arrival) -> None:
        await self._read_header(accepted, arrival)
        await echo(accepted)
        accepted.close()
        self.instrument.leave(arrival, "closed")

    async def _read_header(self, accepted: socket.socket, arrival: Arrival) -> None:
        if self._read_proxy is None:
            return
        async with asyncio.timeout(_FIRST_BYTES_TIMEOUT_S):
            arrival.proxy = await self._read_proxy(accepted)  # feature: testing.mock_backend.proxy_protocol
        if arrival.proxy["source"]:
            arrival.client = endpoint(*arrival.proxy["source"])
        self.instrument.note(
            "proxy",
            connection=arrival.number,
            client=arrival.client,
            detail=f"version {arrival.proxy['version']}",
        )


class _Connections(web.Server):
    """Makes the protocol of each accepted connection, and closes them all at the end."""

    def __init__(self, backend: Backend, instrument: Instrument) -> None:
        super().__init__(self._respond)
        self.exchange = Exchange()
        self._backend = backend
        self._instrument = instrument
        self._started_s = time.monotonic()

    def connection(self, arrival: Arrival) -> web.RequestHandler:
        return _Connection(self, self._backend, self._instrument, arrival)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        instrument, arrival = self._instrument, connection.arrival
        fault = instrument.request(arrival, request.method, request.path)
        if instrument.state is State.HUNG:
            await instrument.running()
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.cut is not None:
            instrument.answered(arrival, request.method, request.path, 0, fault.cut)
            connection.cut(with_reset=fault.cut == "reset")
            return web.Response()
        if fault.status is not None:
            response: web.StreamResponse = _response(self._backend.refuse(fault.status, "injected"))
        else:
            response = await self._answer(request, arrival)
        instrument.answered(arrival, request.method, request.path, response.status)
        if instrument.state is State.DRAINING:
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest, arrival: Arrival) -> web.StreamResponse:
        found = self.exchange.responder(request.path)
        if found is not None:
            responder, rest = found
            try:
                return await responder(request, arrival, self._backend.identity.headers, rest)
            except BadRequestError as error:
                return _response(self._backend.refuse(HTTPStatus.BAD_REQUEST, str(error)))
        moment = Moment(unix_ns=time.time_ns(), uptime_s=time.monotonic() - self._started_s)
        state = self._instrument.state
        if request.path == "/health" and state in (State.UNREADY, State.DRAINING):
            return _response(self._backend.refuse(HTTPStatus.SERVICE_UNAVAILABLE, state.value))
        return _response(
            self._backend.answer(request.method, request.path, client=arrival.client, moment=moment)
        )


class _Connection(web.RequestHandler):
    """One client's connection. What aiohttp refuses by itself is answered as `behaviour` answers."""

    __slots__ = ("_backend", "_how", "_instrument", "arrival")

    def __init__(
        self, connections: _Connections, backend: Backend, instrument: Instrument, arrival: Arrival
    ) -> None:
        super().__init__(connections, loop=asyncio.get_running_loop())
        self._backend = backend
        self._instrument = instrument
        self._how = "closed"
        self.arrival = arrival

    def cut(self, *, with_reset: bool) -> None:
        """End the connection without an answer, unless the client has ended it."""
        if self.transport is None:
            return
        self._how = "reset" if with_reset else "closed"
        if with_reset:
            accepted = self.transport.get_extra_info("socket")
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()
        else:
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        how = self._how if exc is None else f"lost: {type(exc).__name__}"
        self._instrument.leave(self.arrival, how)
        super().connection_lost(exc)

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
        self._instrument.note(
            "malformed", connection=self.arrival.number, client=self.arrival.client, status=status
        )
        response = _response(self._backend.refuse(status, reason))
        response.force_close()
        return response


def _response(answer: Answer) -> web.Response:
    # feature: testing.mock_backend
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def _proxy_reader() -> Callable[[socket.socket], Awaitable[dict[str, Any]]]:
    try:
        from testkit.proxy_protocol import bytes_missing, read_header
    except ImportError as error:
        raise MissingTestkitError(
            "PROXY headers are read by testkit: pip install edgeproxy-testkit"
        ) from error

    async def read(accepted: socket.socket) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        data = b""
        while missing := bytes_missing(data):
            piece = await loop.sock_recv(accepted, missing)
            if not piece:
                raise ConnectionAbortedError("ended before its PROXY header did")
            data += piece
        header = read_header(data)
        return {
            "version": header.version,
            "source": header.source,
            "destination": header.destination,
            "tlvs": [[kind, value.hex()] for kind, value in header.tlvs],
        }

    return read


def _tls_context(settings: Settings) -> SSLContext:
    import ssl

    assert settings.tls_cert is not None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    if settings.tls_client_ca is not None:
        context.load_verify_locations(settings.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class _UdpEcho(asyncio.DatagramProtocol):
    """Sends back what comes, while the state lets it."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own is a `DatagramTransport` in all but name before Python 3.12.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._instrument.note("datagram", client=endpoint(addr[0], addr[1]), detail=f"{len(data)} bytes")
        if self._instrument.state not in (State.HUNG, State.REFUSING, State.NOT_LISTENING):
            self._transport.sendto(data, addr)


async def _open_udp(host: str, port: int, instrument: Instrument) -> asyncio.DatagramTransport:
    try:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _UdpEcho(instrument), local_addr=(host, port)
        )
    except OSError as error:
        raise listen_error(host, port, error) from error
    return transport
