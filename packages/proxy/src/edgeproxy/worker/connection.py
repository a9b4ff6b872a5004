"""One client's connection, from its accept to its account."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from random import random
from typing import TYPE_CHECKING, ClassVar

from edgeproxy.core.dataplane.backend_rules import BackendRule, proxy_header
from edgeproxy.core.dataplane.caps import Place
from edgeproxy.core.dataplane.client import affinity_network
from edgeproxy.core.dataplane.dispatch import Lease, Refusal
from edgeproxy.core.dataplane.listening import NO_APP, Listening
from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.dataplane.session import Command, Event, Session, State
from edgeproxy.core.model import Backend, Client
from edgeproxy.core.wire.frames import OpenConnection, SessionRecord
from edgeproxy.core.wire.proxy_protocol import Header
from edgeproxy.worker.listener import OUT_OF_DESCRIPTORS, StreamSocket, set_reset_on_close
from edgeproxy.worker.opening import Opening
from edgeproxy.worker.relay_copy import Side
from edgeproxy.worker.waiting_room import Seat

if TYPE_CHECKING:
    from edgeproxy.worker.plane import Plane
    from edgeproxy.worker.tls_side import TlsSide

MAX_TRIES = 3
"""Backends tried for one connection before it is given up."""

_NO_WAIT = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
# Of every connection: a member of an enumeration is not as quickly at hand as it looks.
_CONNECTED, _CLIENT_EOF, _BACKEND_EOF = Event.CONNECTED, Event.CLIENT_EOF, Event.BACKEND_EOF

_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


class Connection:
    """Carries out what the session machine orders, and tells it what the sockets say."""

    __slots__ = (
        "_app", "_attempt", "_attempt_events", "_attempted_s", "_backend", "_client", "_has_opening",
        "_header", "_is_retrying", "_is_waiting", "_is_warm", "_lease", "_listening", "_moved_bytes",
        "_network", "_peer", "_plane", "_server_name", "_session", "_silent_since_s", "_started_s", "_tried",
        "place",
    )  # fmt: skip

    def __init__(
        self, plane: Plane, sock: socket.socket, client: Client, network: int, listening: Listening
    ) -> None:
        """``network`` is the one that affinity remembers ``client`` by."""
        self._plane = plane
        self._peer = client
        self._listening = listening
        self._app = listening.app
        self._network = network
        self._has_opening = listening.has_opening
        self._session = Session(self._has_opening)
        self._started_s = plane.loop.now_s
        self.place: Place | None = None
        """What it takes up of the caps, if there are any."""
        self._client = Side(sock, self, plane.relay)
        self._client.readable = False  # until the loop says so
        self._header: Header | None = None
        """What a trusted peer said whose connection this is."""
        self._server_name: str | None = None
        """What the client asks for in TLS that does not end here."""
        self._backend: Side | None = None
        self._attempt: socket.socket | None = None
        """The socket of the connect under way."""
        self._attempt_events = 0
        """What the loop said when it had come to its end."""
        self._attempted_s = 0.0
        """When that connect began."""
        self._lease: Lease | None = None
        self._tried: tuple[int, ...] = ()
        self._is_retrying = False
        """A part of the retry budget is ours."""
        self._is_waiting = False
        """In the queue."""
        self._is_warm = False
        """The backend's connection stood before the client came."""
        self._moved_bytes = 0
        """Handed on up to the last look."""
        self._silent_since_s = 0.0
        """The last look that found something handed on since the one before, or the last half-close."""
        plane.loop.register(sock, self._client)

    def describe(self) -> OpenConnection | None:
        """What can be seen of it at this moment; ``None`` when it is over."""
        lease, backend, state = self._lease, self._backend, self._session.state
        if state is State.CLOSED:
            return None
        self._plane.relay.settle(self._client)
        return OpenConnection(
            client=self._peer.address,
            country=self._peer.country,
            app=self._app,
            backend=lease.backend.id if lease is not None else "",
            state=state.name.lower(),
            age_s=self._plane.loop.now_s - self._started_s,
            bytes_received=max(backend.sent_bytes, 0) if backend is not None else 0,
            bytes_sent=self._client.sent_bytes,
        )

    def start(self, listening: Listening) -> None:
        """Look for a backend, when it is known for whom."""
        if not self._has_opening:
            self._dispatch()
        elif listening.terminates_tls and not listening.proxy_protocol:
            self._shake_hands()
        else:
            plane, sock = self._plane, self._client.sock
            plane.openings.add(self, plane.loop.now_s)
            plane.loop.hand_over(sock, Opening(sock, listening, self, plane.networks_trusted))

    # ---- opening -----------------------------------------------------------------------------

    @property
    def peer_address(self) -> str:
        """Address that the client connects from; a PROXY header may name another."""
        return self._peer.address

    def opened(self, header: Header | None, server_name: str | None) -> None:
        """The opening is read. ``header`` tells who the client is; it asks for ``server_name``, if any."""
        plane = self._plane
        plane.openings.discard(self)
        plane.loop.hand_over(self._client.sock, self._client)
        # The edge for what the client sent behind the opening has passed.
        self._client.readable = True
        if header is not None and header.source is not None:
            self._header = header
            self._peer = plane.locate(header.source)
            self._network = affinity_network(header.source)
            objection = plane.objection(self._peer, self._network)
            if objection is None and self.place is not None:
                objection = plane.door.identify(self.place, self._network)
            if objection is not None:
                self._handle(objection)
                return
        if self._listening.terminates_tls:
            self._shake_hands()
        else:
            self._server_name = server_name
            self._choose_app(server_name)

    def _choose_app(self, server_name: str | None) -> None:
        plane = self._plane
        if server_name is not None and (app := plane.server_names.app_of(server_name)) is not None:
            self._app = app
        elif self._app == NO_APP:
            self._handle(Event.UNKNOWN_NAME)
            return
        self._handle(Event.OPENED)

    def opening_failed(self) -> None:
        """The client sent something else than the listener expects, or ended before it."""
        self._handle(Event.BAD_OPENING)

    def opening_timed_out(self) -> None:
        """The client has not said in time what the listener wants to know."""
        self._handle(Event.OPENING_TIMEOUT)

    # ---- TLS ---------------------------------------------------------------------------------

    def _shake_hands(self) -> None:
        tls = self._plane.tls
        assert tls is not None
        if not tls.accept(self, self._client.sock):
            self._handle(Event.TLS_BUSY)

    def secured(self, side: TlsSide) -> None:
        """TLS with the client stands; ``side`` takes the place of the bare one."""
        self._plane.loop.hand_over(side.sock, side)
        self._client.detach()
        self._client = side
        # The edge for what the client sent behind the handshake has passed.
        side.readable = True
        tls = side.client_tls()
        assert tls is not None
        self._choose_app(tls.server_name if self._listening.app_from_sni else None)

    def handshake_failed(self, is_certificate: bool) -> None:
        """The client left, or speaks no TLS that we take, or its certificate is missing or not accepted."""
        self._handle(Event.TLS_CERTIFICATE if is_certificate else Event.TLS_FAILED)

    def handshake_timed_out(self) -> None:
        """The client has not taken part in the handshake in time."""
        self._handle(Event.TLS_TIMEOUT)

    # ---- choosing ----------------------------------------------------------------------------

    def _dispatch(self) -> None:
        plane = self._plane
        if plane.waiting_room.is_open and not self._tried and plane.waiting_room.must_wait(self._app):
            self._join_queue()
            return
        outcome = plane.dispatcher.dispatch(
            self._app, self._peer, self._network, plane.loop.now_s, random(), self._tried
        )
        if not isinstance(outcome, Refusal):
            self._lease = outcome
            self._connect(outcome)
        elif outcome is Refusal.AT_LIMIT and plane.waiting_room.is_open:
            self._join_queue()
        else:
            self._handle(Event(outcome.value))

    # ---- waiting -----------------------------------------------------------------------------

    def _join_queue(self) -> None:
        joined = self._plane.waiting_room.join(self, self._app)
        self._handle(Event.QUEUED if joined else Event.QUEUE_FULL)

    def _wait(self) -> None:
        self._is_waiting = True
        seat = Seat(self, self._client, tells_end=not self._listening.terminates_tls)
        self._plane.loop.hand_over(self._client.sock, seat)
        seat.look()  # the edge that would tell of an end may have passed

    def _end_wait(self) -> None:
        self._plane.loop.hand_over(self._client.sock, self._client)
        # The edge for what the client sent meanwhile has passed.
        self._client.readable = True

    def take_turn(self) -> None:
        """Whoever came before has gone: see whether there is a place."""
        plane = self._plane
        outcome = plane.dispatcher.dispatch(
            self._app, self._peer, self._network, plane.loop.now_s, random(), self._tried
        )
        if outcome is Refusal.AT_LIMIT:
            return
        self._is_waiting = False
        waited_s = plane.waiting_room.leave(self)
        self._handle(Event.TURN)
        if isinstance(outcome, Refusal):
            self._handle(Event(outcome.value))
        else:
            plane.ledger.waited(waited_s)
            self._lease = outcome
            self._connect(outcome)

    def waited_too_long(self) -> None:
        """The client's time in the queue is over."""
        self._handle(Event.QUEUE_TIMEOUT)

    def left_the_queue(self) -> None:
        """The client has ended its side without having sent anything."""
        self._handle(Event.CLIENT_EOF)

    # ---- ending from outside -----------------------------------------------------------------

    def shut_down(self) -> None:
        """The time to drain is over."""
        self._handle(Event.SHUTDOWN)

    def abandon(self) -> bool:
        """End after a defect, with a reset. False when it was the end that the defect interrupted."""
        if self._session.state is State.CLOSED:
            return False
        self._handle(Event.DEFECT)
        return True

    def look(self) -> None:
        """Keep the client's binding in use, and see whether this has been silent for too long, or open."""
        plane, lease, backend = self._plane, self._lease, self._backend
        assert lease is not None
        assert backend is not None
        now_s = plane.loop.now_s
        plane.dispatcher.renew(lease, now_s)
        plane.relay.settle(self._client)
        moved_bytes = self._client.sent_bytes + backend.sent_bytes
        if moved_bytes != self._moved_bytes:
            self._moved_bytes = moved_bytes
            self._silent_since_s = now_s
        event = plane.lifetimes.verdict(
            self._session.state is not State.OPEN, now_s - self._silent_since_s, now_s - self._started_s
        )
        if event is None:
            plane.looks.add(self, now_s)
        else:
            self._handle(event)

    # ---- connecting --------------------------------------------------------------------------

    def _connect(self, lease: Lease) -> None:
        warm = self._plane.warm
        if warm is None:
            self.connect_now()
        elif (sock := warm.take(lease.slot, lease.backend)) is not None:
            self._attempt = sock
            self._attempted_s = self._plane.loop.now_s
            self._is_warm = True
            self._connected(sock)
        elif not warm.must_yield(self, lease.slot, lease.backend.hard_limit):
            self.connect_now()

    def connect_now(self) -> None:
        """Begin a connect to the backend that the client was given."""
        lease = self._lease
        assert lease is not None
        self._is_warm = False
        target = self._plane.targets.of(lease.backend)
        if target is None:
            self._connect_failed()
            return
        family, address = target
        try:
            sock = StreamSocket(family, _STREAM)
        except OSError as error:
            if error.errno not in OUT_OF_DESCRIPTORS:
                self._connect_failed()  # this machine lacks the address family
                return
            self._plane.overloaded()
            self._handle(Event.OVERLOAD)
            return
        self._attempt = sock
        self._attempted_s = self._plane.loop.now_s
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sock.connect_ex(address) not in (0, errno.EINPROGRESS):
            sock.close()
            self._attempt = None
            self._connect_failed()
            return
        self._plane.loop.register(sock, self)
        self._plane.connects.add(self, self._plane.loop.now_s)

    def ready(self, events: int) -> None:
        """The connect under way has come to its end."""
        sock = self._attempt
        if sock is None or not events & (select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP):
            return
        # Without one of these there is no error to ask for.
        if events & (select.EPOLLERR | select.EPOLLHUP) and sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_ERROR
        ):
            self._give_up_attempt()
            self._connect_failed()
        else:
            self._attempt_events = events
            self._connected(sock)

    def _connected(self, sock: socket.socket) -> None:
        """The connect has succeeded; with some backends TLS comes before the client's bytes."""
        plane, lease = self._plane, self._lease
        assert lease is not None
        rule = plane.backend_rules.of(lease.backend) if plane.backend_rules is not None else None
        if rule is None or rule.tls is None:
            self._handle(_CONNECTED)
            return
        plane.connects.discard(self)
        header = self._header_for(lease.backend, rule)
        if header is None:
            self._handle(Event.CLIENT_RESET)
            return
        if header:
            with suppress(OSError):  # the handshake will tell
                sock.send(header, _NO_WAIT)
        assert plane.tls is not None
        client_tls = self._client.client_tls()
        protocol = client_tls.protocol if client_tls is not None else None
        plane.tls.initiate(self, sock, rule.tls, lease.backend.host, protocol)

    def backend_secured(self, side: TlsSide) -> None:
        """TLS with the backend stands."""
        # The edge for what it sent behind the handshake has passed.
        side.readable = True
        self._backend = side
        self._handle(_CONNECTED)

    def backend_not_secured(self, why: str) -> None:
        """TLS with the backend did not come about: as good as not connected."""
        assert self._lease is not None
        self._plane.backend_not_secured(self._lease.backend.id, why)
        self._give_up_attempt()
        self._connect_failed()

    def connect_timed_out(self) -> None:
        """The backend has not answered in time."""
        self._give_up_attempt()
        self._connect_failed()

    def _give_up_attempt(self) -> None:
        if self._attempt is not None:
            self._plane.connects.discard(self)
            if self._plane.tls is not None:
                self._plane.tls.discard(self)
            self._plane.loop.close(self._attempt)
            self._attempt = None

    def _connect_failed(self) -> None:
        assert self._lease is not None
        self._plane.ledger.connect_failed(self._lease.backend.id)
        self._go_elsewhere(self._lease, Event.CONNECT_FAILED)

    def _rejected(self, backend: Side) -> None:
        """The backend took the connection, and reset it unused."""
        plane, lease = self._plane, self._lease
        assert lease is not None
        plane.looks.discard(self)
        plane.relay.forget(backend)
        plane.loop.close(backend.sock)
        backend.detach()
        self._backend = self._client.peer = None
        plane.ledger.rejected(self._peer.country, lease.backend.id)
        self._go_elsewhere(lease, Event.BACKEND_REJECTED)

    def _go_elsewhere(self, lease: Lease, event: Event) -> None:
        self._plane.dispatcher.unreachable(lease)
        self._lease = None
        self._tried += (lease.slot,)
        self._handle(event)

    def _try_another(self) -> None:
        if len(self._tried) >= MAX_TRIES:
            self._handle(Event.UNREACHABLE)
        elif self._is_retrying or self._may_retry():
            self._is_retrying = True  # feature: connecting.elsewhere
            self._dispatch()
        else:
            self._handle(Event.RETRY_BUDGET)

    def _may_retry(self) -> bool:
        plane = self._plane
        return plane.retries.begin(plane.open_connections, plane.loop.now_s)

    def _end_retry(self) -> None:
        self._is_retrying = False
        self._plane.retries.end()

    # ---- what the relay reports --------------------------------------------------------------

    def ended(self, side: Side) -> None:
        self._handle(_CLIENT_EOF if side is self._client else _BACKEND_EOF)

    def was_reset(self, side: Side) -> None:
        client = self._client
        if side is client:
            self._handle(Event.CLIENT_RESET)
        elif self._session.state is State.OPEN and not (
            side.sent_bytes > 0 or client.sent_bytes or client.kept
        ):
            self._rejected(side)
        else:
            self._handle(Event.BACKEND_RESET)

    # ---- what the session machine orders -----------------------------------------------------

    def _handle(self, event: Event) -> None:
        self._ACTIONS[self._session.handle(event)](self)

    def _end_backend(self) -> None:
        self._silent_since_s = self._plane.loop.now_s
        assert self._backend is not None
        self._backend.end()

    def _end_client(self) -> None:
        self._silent_since_s = self._plane.loop.now_s
        self._client.end()

    def _reset(self) -> None:
        set_reset_on_close(self._client.sock)
        if self._backend is not None:
            set_reset_on_close(self._backend.sock)
        elif self._attempt is not None:
            set_reset_on_close(self._attempt)  # it may have come to its end just now
        self._close(in_order=False)

    def _begin_relay(self) -> None:
        plane, sock, lease = self._plane, self._attempt, self._lease
        assert sock is not None
        assert lease is not None
        self._attempt = None
        if self._is_retrying:
            self._end_retry()
        plane.connects.discard(self)
        self._silent_since_s = plane.loop.now_s
        plane.looks.add(self, plane.loop.now_s)
        plane.ledger.opened(self._peer.country, lease.backend.id, lease.score)
        plane.ledger.connected(
            lease.backend.id, plane.loop.now_s - self._attempted_s, lease.from_affinity, self._is_warm
        )
        secured = self._backend
        backend = self._backend = secured or Side(sock, self, plane.relay)
        if secured is None:
            backend.readable = self._is_warm  # what came while nobody used it was told to others
            backend.early_events = self._attempt_events
        plane.loop.hand_over(sock, backend)
        if plane.backend_rules is None or secured is not None:  # a header went ahead of the handshake
            plane.relay.begin(self._client, backend)
        elif (header := self._header_for(lease.backend, plane.backend_rules.of(lease.backend))) is not None:
            plane.relay.begin(self._client, backend, header)
        else:
            self._handle(Event.CLIENT_RESET)

    def _header_for(self, backend: Backend, rule: BackendRule | None) -> bytes | None:
        """What ``backend`` is told of the client, empty for nothing; ``None`` when the client has gone."""
        if rule is None or (version := rule.proxy_protocol) is None:
            return b""
        app = backend.app if self._app == ANY_APP else self._app
        if (given := self._header) is not None and given.destination is not None:
            destination, destination_port, port = given.destination, given.destination_port, given.source_port
        else:
            try:
                _, port, *_ = self._client.sock.getpeername()
                destination, destination_port, *_ = self._client.sock.getsockname()
            except OSError:
                return None
        tls = self._client.client_tls()
        server_name = tls.server_name if tls is not None else self._server_name
        return proxy_header(version, self._peer, port, destination, destination_port, app, server_name, tls)

    def _close(self, in_order: bool = True) -> None:
        plane, lease, backend = self._plane, self._lease, self._backend
        self._give_up_attempt()
        if self._is_retrying:
            self._end_retry()
        if self._has_opening:
            plane.openings.discard(self)
            if plane.tls is not None:
                plane.tls.discard(self)
        plane.looks.discard(self)
        if lease is not None:
            if backend is not None:
                plane.dispatcher.renew(lease, plane.loop.now_s)
            plane.dispatcher.release(lease)
            self._lease = None
        if self.place is not None:
            plane.door.leave(self.place)
        if self._is_waiting:
            plane.waiting_room.leave(self)
        if plane.warm is not None:
            plane.warm.discard(self)
        reason = self._session.close_reason
        assert reason is not None
        tls = self._client.client_tls()
        plane.relay.settle(self._client)
        plane.ledger.closed(
            SessionRecord(
                client=self._peer.address,
                country=self._peer.country,
                backend=lease.backend.id if lease is not None else "",
                score=lease.score if lease is not None else 0.0,
                from_affinity=lease is not None and lease.from_affinity,
                bytes_received=max(backend.sent_bytes, 0) if backend is not None else 0,
                bytes_sent=self._client.sent_bytes,
                duration_s=plane.loop.now_s - self._started_s,
                reason=reason,
                tries=len(self._tried) + (lease is not None),
                certificate=tls.subject.name if tls is not None and tls.subject is not None else "",
            ),
            was_opened=backend is not None,
        )
        for side in (self._client, backend):
            if side is not None:
                if side.kept is not None or side.pipe is not None:
                    plane.relay.forget(side)
                if not (in_order and side.must_linger()):
                    plane.loop.close(side.sock)
                side.detach()
        plane.closed(self)

    # A look-up, since to name one member of an enumeration after the other takes longer than most of these.
    _ACTIONS: ClassVar[dict[Command, Callable[[Connection], None]]] = {
        Command.DISPATCH: _dispatch,
        Command.RELAY: _begin_relay,
        Command.TRY_ANOTHER: _try_another,
        Command.WAIT: _wait,
        Command.END_WAIT: _end_wait,
        Command.END_BACKEND: _end_backend,
        Command.END_CLIENT: _end_client,
        Command.CLOSE: _close,
        Command.RESET: _reset,
    }
