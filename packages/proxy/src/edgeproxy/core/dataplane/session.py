"""The life of one proxied connection, as a table.

The machine is told facts (connected, end of stream, reset) and answers with what to do; it never
sees a byte, and what it decides the shell only carries out. An end of stream is reported when all
bytes before it have been handed to the other side, so an order to shut down or close can be
carried out at once.

A half-close is passed on and nothing more: the other direction goes on until its own end. A reset
is passed on as a reset, never softened into an orderly end, because the peer must not take a
truncated answer for a whole one. For the same reason every end that is ours and not the peers' own,
such as that of an idle connection, is a reset. While the backend is not connected nothing is read from the
client, so another backend may be tried: none of the client's bytes has been sent on. The same holds as
long as nothing has been sent after it was connected, so a reset then counts as a failed connect.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    OPENING = "opening"
    """The listener wants to know more of the client before a backend is chosen."""
    CONNECTING = "connecting"
    WAITING = "waiting"
    """All backends are at their limit, and the client is in the queue for a place."""
    OPEN = "open"
    CLIENT_DONE = "client_done"
    """The client has sent its last byte; the backend may still send."""
    BACKEND_DONE = "backend_done"
    """The backend has sent its last byte; the client may still send."""
    CLOSED = "closed"


class Event(StrEnum):
    OPENED = "opened"
    BAD_OPENING = "bad_opening"
    OPENING_TIMEOUT = "opening_timeout"
    UNKNOWN_NAME = "unknown_name"
    DENIED = "denied"
    RATE_LIMITED = "rate_limited"
    MAX_CONNECTIONS_PER_CLIENT = "max_connections_per_client"
    TLS_FAILED = "tls_failed"
    TLS_TIMEOUT = "tls_timeout"
    TLS_BUSY = "tls_busy"
    TLS_CERTIFICATE = "tls_certificate"
    CONNECTED = "connected"
    CONNECT_FAILED = "connect_failed"
    BACKEND_REJECTED = "backend_rejected"
    """It took the connection and reset it before anything was sent, either way."""
    RETRY_BUDGET = "retry_budget"
    NO_BACKEND = "no_backend"
    AT_LIMIT = "at_limit"
    UNREACHABLE = "unreachable"
    OVERLOAD = "overload"
    QUEUED = "queued"
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    TURN = "turn"
    """The client needs to wait no more: there is a place for it, or there will be none."""
    CLIENT_EOF = "client_eof"
    BACKEND_EOF = "backend_eof"
    CLIENT_RESET = "client_reset"
    BACKEND_RESET = "backend_reset"
    IDLE_TIMEOUT = "idle_timeout"
    HALF_CLOSE_TIMEOUT = "half_close_timeout"
    MAX_AGE = "max_age"
    SHUTDOWN = "shutdown"
    """The worker ends and the time to drain is over."""
    DEFECT = "defect"
    """Our own code failed while it served this connection."""


class Command(StrEnum):
    DISPATCH = "dispatch"
    """Choose a backend."""
    RELAY = "relay"
    """Begin to move bytes, both ways."""
    TRY_ANOTHER = "try_another"
    WAIT = "wait"
    """Watch the client, and read nothing."""
    END_WAIT = "end_wait"
    END_BACKEND = "end_backend"
    """Shut down the sending side towards the backend."""
    END_CLIENT = "end_client"
    CLOSE = "close"
    """Both directions have ended: close both sockets."""
    RESET = "reset"
    """Close both sockets with a reset, so that neither side takes this for an orderly end."""


class CloseReason(StrEnum):
    """Why a connection ended, for the access log and the counters."""

    COMPLETE = "complete"
    CLIENT_RESET = "client_reset"
    BACKEND_RESET = "backend_reset"
    IDLE_TIMEOUT = "idle_timeout"
    """No byte has moved in either direction for too long."""
    HALF_CLOSE_TIMEOUT = "half_close_timeout"
    """One direction has ended, and in the other no byte has moved for too long."""
    MAX_AGE = "max_age"
    """The connection has lasted as long as any may."""
    SHUTDOWN = "shutdown"
    NO_BACKEND = "no_backend"
    """No row of the app is healthy."""
    AT_LIMIT = "at_limit"
    """All healthy backends are at their hard limit."""
    QUEUE_FULL = "queue_full"
    """So they are, and as many clients waited for a place already as may."""
    QUEUE_TIMEOUT = "queue_timeout"
    """The client has waited for a place for as long as it may."""
    QUEUE_LEFT = "queue_left"
    """The client went away while it waited."""
    UNREACHABLE = "unreachable"
    """The backends that were tried could not be connected to."""
    RETRY_BUDGET = "retry_budget"
    """The backend could not be connected to, and too many connections were trying another one already."""
    BAD_OPENING = "bad_opening"
    """The client sent something else than the PROXY header or TLS hello that the listener expects."""
    OPENING_TIMEOUT = "opening_timeout"
    """The client did not send it in time."""
    UNKNOWN_NAME = "unknown_name"
    """The listener has no app for the server name that the client asks for."""
    DENIED = "denied"
    """The client's network or country may not connect."""
    TLS_FAILED = "tls_failed"
    """The client left during the TLS handshake, or speaks no TLS that is accepted."""
    TLS_TIMEOUT = "tls_timeout"
    """The TLS handshake was not complete in time."""
    TLS_BUSY = "tls_busy"
    """As many TLS handshakes were under way as may be."""
    TLS_CERTIFICATE = "tls_certificate"
    """The client showed no certificate where one is required, or one that is not accepted."""
    RATE_LIMITED = "rate_limited"
    """The client opens more connections than it may."""
    MAX_CONNECTIONS = "max_connections"
    """Clients had as many connections open as they may have in all; seen before there is a session."""
    MAX_CONNECTIONS_PER_CLIENT = "max_connections_per_client"
    """The client had as many connections open as it may have."""
    OVERLOAD = "overload"
    """This process is out of descriptors."""
    INTERNAL = "internal"
    """A defect of the proxy; the log says which."""


# All of these are strings because the table is asked for every event: a string has its hash at hand,
# where that of a plain Enum is computed in Python.
_S, _E, _C = State, Event, Command

_TABLE: dict[tuple[State, Event], tuple[State, Command, CloseReason | None]] = {
    (_S.OPENING, _E.OPENED): (_S.CONNECTING, _C.DISPATCH, None),
    (_S.OPENING, _E.BAD_OPENING): (_S.CLOSED, _C.RESET, CloseReason.BAD_OPENING),
    (_S.OPENING, _E.OPENING_TIMEOUT): (_S.CLOSED, _C.RESET, CloseReason.OPENING_TIMEOUT),
    (_S.OPENING, _E.UNKNOWN_NAME): (_S.CLOSED, _C.RESET, CloseReason.UNKNOWN_NAME),
    (_S.OPENING, _E.DENIED): (_S.CLOSED, _C.RESET, CloseReason.DENIED),
    (_S.OPENING, _E.TLS_FAILED): (_S.CLOSED, _C.RESET, CloseReason.TLS_FAILED),
    (_S.OPENING, _E.TLS_TIMEOUT): (_S.CLOSED, _C.RESET, CloseReason.TLS_TIMEOUT),
    (_S.OPENING, _E.TLS_BUSY): (_S.CLOSED, _C.RESET, CloseReason.TLS_BUSY),
    (_S.OPENING, _E.TLS_CERTIFICATE): (_S.CLOSED, _C.RESET, CloseReason.TLS_CERTIFICATE),
    (_S.OPENING, _E.RATE_LIMITED): (_S.CLOSED, _C.RESET, CloseReason.RATE_LIMITED),
    (_S.OPENING, _E.MAX_CONNECTIONS_PER_CLIENT): (
        _S.CLOSED,
        _C.RESET,
        CloseReason.MAX_CONNECTIONS_PER_CLIENT,
    ),
    (_S.CONNECTING, _E.CONNECTED): (_S.OPEN, _C.RELAY, None),
    (_S.CONNECTING, _E.CONNECT_FAILED): (_S.CONNECTING, _C.TRY_ANOTHER, None),
    (_S.CONNECTING, _E.RETRY_BUDGET): (_S.CLOSED, _C.RESET, CloseReason.RETRY_BUDGET),
    (_S.CONNECTING, _E.NO_BACKEND): (_S.CLOSED, _C.RESET, CloseReason.NO_BACKEND),
    (_S.CONNECTING, _E.AT_LIMIT): (_S.CLOSED, _C.RESET, CloseReason.AT_LIMIT),
    (_S.CONNECTING, _E.UNREACHABLE): (_S.CLOSED, _C.RESET, CloseReason.UNREACHABLE),
    (_S.CONNECTING, _E.OVERLOAD): (_S.CLOSED, _C.RESET, CloseReason.OVERLOAD),
    (_S.CONNECTING, _E.QUEUED): (_S.WAITING, _C.WAIT, None),
    (_S.CONNECTING, _E.QUEUE_FULL): (_S.CLOSED, _C.RESET, CloseReason.QUEUE_FULL),
    (_S.WAITING, _E.TURN): (_S.CONNECTING, _C.END_WAIT, None),
    (_S.WAITING, _E.QUEUE_TIMEOUT): (_S.CLOSED, _C.RESET, CloseReason.QUEUE_TIMEOUT),
    (_S.WAITING, _E.CLIENT_EOF): (_S.CLOSED, _C.RESET, CloseReason.QUEUE_LEFT),
    (_S.OPEN, _E.BACKEND_REJECTED): (_S.CONNECTING, _C.TRY_ANOTHER, None),
    (_S.OPEN, _E.CLIENT_EOF): (_S.CLIENT_DONE, _C.END_BACKEND, None),
    (_S.OPEN, _E.BACKEND_EOF): (_S.BACKEND_DONE, _C.END_CLIENT, None),
    (_S.CLIENT_DONE, _E.BACKEND_EOF): (_S.CLOSED, _C.CLOSE, CloseReason.COMPLETE),
    (_S.BACKEND_DONE, _E.CLIENT_EOF): (_S.CLOSED, _C.CLOSE, CloseReason.COMPLETE),
}
for _state in (_S.OPENING, _S.CONNECTING, _S.WAITING, _S.OPEN, _S.CLIENT_DONE, _S.BACKEND_DONE):
    _TABLE[_state, _E.CLIENT_RESET] = (_S.CLOSED, _C.RESET, CloseReason.CLIENT_RESET)
    _TABLE[_state, _E.SHUTDOWN] = (_S.CLOSED, _C.RESET, CloseReason.SHUTDOWN)
    _TABLE[_state, _E.DEFECT] = (_S.CLOSED, _C.RESET, CloseReason.INTERNAL)
for _state in (_S.OPEN, _S.CLIENT_DONE, _S.BACKEND_DONE):
    _TABLE[_state, _E.BACKEND_RESET] = (_S.CLOSED, _C.RESET, CloseReason.BACKEND_RESET)
    _TABLE[_state, _E.IDLE_TIMEOUT] = (_S.CLOSED, _C.RESET, CloseReason.IDLE_TIMEOUT)
    _TABLE[_state, _E.MAX_AGE] = (_S.CLOSED, _C.RESET, CloseReason.MAX_AGE)
for _state in (_S.CLIENT_DONE, _S.BACKEND_DONE):
    _TABLE[_state, _E.HALF_CLOSE_TIMEOUT] = (_S.CLOSED, _C.RESET, CloseReason.HALF_CLOSE_TIMEOUT)


_BEGINNING = {True: State.OPENING, False: State.CONNECTING}


class Session:
    """One connection's state; :meth:`handle` is the only way to change it."""

    __slots__ = ("close_reason", "state")

    def __init__(self, has_opening: bool = False) -> None:
        self.state = _BEGINNING[has_opening]
        self.close_reason: CloseReason | None = None
        """Set when ``state`` becomes ``CLOSED``."""

    def handle(self, event: Event) -> Command:
        """Return what the shell must do about ``event``.

        A fact that cannot be in the present state is a broken invariant of the shell: KeyError.
        """
        self.state, command, reason = _TABLE[self.state, event]
        if reason is not None:
            self.close_reason = reason
        return command
