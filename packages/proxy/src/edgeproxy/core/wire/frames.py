"""What the control process and a worker say to each other, and how it is framed.

Both directions carry msgpack values behind a 4-byte big-endian length over a stream socket pair.
The control process sends the whole table once, then changes: taking in 10,000 rows takes tens of
milliseconds, which a running worker must not spend on every edit. An edit of as many comes in pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from heapq import nlargest
from typing import Generic, TypeVar

import msgspec

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.admission import AccessLists
from edgeproxy.core.dataplane.backend_rules import BackendRule
from edgeproxy.core.dataplane.caps import Caps
from edgeproxy.core.dataplane.connects import Connects
from edgeproxy.core.dataplane.identities import BackendCredentials, ClientCertificates, Identity
from edgeproxy.core.dataplane.lifetime import Lifetimes
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.core.dataplane.selection import PANIC_THRESHOLD
from edgeproxy.core.dataplane.times import Times
from edgeproxy.core.dataplane.waiting import QueueTerms
from edgeproxy.core.dataplane.warm import WarmTerms

MAX_FRAME_BYTES = 64 << 20
"""A full table of 65,536 rows is below 10 MiB; anything beyond this is a broken peer."""

PIECE_ROWS = 250
"""Taken in at a time by a worker that serves: two milliseconds, when each moves from one queue to another."""

_LENGTH_BYTES = 4

_Frame = TypeVar("_Frame")


# ---- control process to worker -------------------------------------------------------------------


class RelayMode(StrEnum):
    """How bytes are moved from one socket to the other."""

    AUTO = "auto"
    """By copying at first, by splicing once much has come."""
    COPY = "copy"
    SPLICE = "splice"
    """By splicing from the first byte on that has been handed on."""
    KERNEL = "kernel"
    """As ``AUTO``, and in the kernel, without the worker, once a connection has proved chatty."""


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How TLS is done, with clients and with backends."""

    identities: tuple[Identity, ...] = ()
    """What to prove to clients; the first for those that ask for no name, or an unknown one. None when no
    listener terminates TLS."""
    alpn: tuple[str, ...] = ()
    """Protocols offered, the favourite first."""
    handshake_timeout_s: float = 10.0
    max_handshakes: int = 1024
    """Under way at the same time in one worker."""
    client_certificates: ClientCertificates | None = None
    """``None``: clients are not asked for any."""
    backends: tuple[BackendCredentials, ...] = ()
    """For each way in which the rules have backends spoken to in TLS."""


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """Sent once, first: everything a worker needs to know."""

    worker: int
    pop_region: str
    listeners: tuple[Listening, ...] = (Listening(),)
    """In the order of the listeners' descriptors."""
    app_by_server_name: dict[str, str] = {}
    """See :class:`~edgeproxy.core.dataplane.listening.ServerNames`."""
    proxy_protocol_trusted: tuple[str, ...] = ()
    """Networks whose PROXY headers are believed, in CIDR notation."""
    access: AccessLists = AccessLists()
    region_by_country: dict[str, str]
    geoip_path: str | None
    """Country database, ``None`` for the embedded one."""
    binding_ttl_s: float
    connect_timeout_s: float
    backend_rules: tuple[BackendRule, ...] = ()
    relay: RelayMode = RelayMode.AUTO
    promote_after_turns: int = 0
    """Short turns in a row after which the kernel may relay a connection; 0 for never."""
    retry_budget_percent: int = 20
    """See :class:`~edgeproxy.core.dataplane.retry_budget.RetryBudget`."""
    opening_timeout_s: float = 10.0
    """How long a client may take to send what a listener wants to know first."""
    lifetimes: Lifetimes = Lifetimes()
    """When open connections are ended."""
    shutdown_timeout_s: float
    access_log_every: int
    """Report each N-th session to the access log; 0 for none."""
    panic_threshold: float = PANIC_THRESHOLD
    """See :func:`~edgeproxy.core.dataplane.selection.is_panicking`."""
    watch_outcomes: bool = False
    """Whether to report how connections with backends go, and failures without delay."""
    rate_limit: TokenBucket | None = None
    """How many connections one client may open, ``None`` for as many as it likes."""
    caps: Caps = Caps()
    """How many connections clients may have open."""
    queue: QueueTerms = QueueTerms()
    """Who may wait for a place on a backend."""
    warm: WarmTerms | None = None
    """Connections with backends that are kept ready, ``None`` for none."""
    tls: TlsSettings | None = None
    """``None`` when neither listeners nor backends need it."""


class TableChanged(msgspec.Struct, frozen=True, tag="table"):
    """Rows that came, changed or went."""

    version: int
    whole: bool
    """``upserts`` is the whole table: what is not among them is gone. So is the first one."""
    upserts: tuple[PlacedBackend, ...]
    removed_slots: tuple[int, ...]
    unfinished: bool = False
    """More of the same change follows."""

    def pieces(self) -> Iterator[TableChanged]:
        """The same change in parts that hold no client up; a whole table has only one."""
        removed = len(self.removed_slots)
        rows = removed + len(self.upserts)
        if self.whole or rows <= PIECE_ROWS:
            yield self
            return
        for first in range(0, rows, PIECE_ROWS):
            end = first + PIECE_ROWS
            # Those that are gone come first, as in one frame.
            yield TableChanged(
                self.version,
                whole=False,
                upserts=self.upserts[max(0, first - removed) : max(0, end - removed)],
                removed_slots=self.removed_slots[first:end],
                unfinished=end < rows,
            )


class HostAddresses(msgspec.Struct, frozen=True, tag="host"):
    """What a backend's host name resolves to now; empty when it does not resolve."""

    host: str
    addresses: tuple[str, ...]


class GeoDatabaseChanged(msgspec.Struct, frozen=True, tag="geo"):
    """The country database was replaced by a valid one: open it again."""


class SettingsChanged(msgspec.Struct, frozen=True, tag="settings"):
    """Go by these from now on, as far as a running worker can."""

    settings: Start


class TlsChanged(msgspec.Struct, frozen=True, tag="tls"):
    """Certificates or authorities were renewed, or came, or went: do TLS like this from now on."""

    settings: TlsSettings


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Asks for a :class:`Pong`."""


class ConnectionOrder(StrEnum):
    """Which connections come first in a list."""

    AGE = "age"
    """The oldest."""
    BYTES = "bytes"
    """Those that moved most, both ways."""


class ListConnections(msgspec.Struct, frozen=True, tag="list"):
    """Asks for :class:`OpenConnections` with the same ``number``."""

    number: int
    count: int
    """At most so many, the first in ``order``."""
    order: ConnectionOrder


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Stop accepting, let sessions end, reset the rest after the shutdown timeout, exit 0."""

    staggered: bool = False
    """Spread the resets over the last part of the timeout. With a successor that serves already, all clients
    would otherwise come back to it in the same moment."""


class Reset(msgspec.Struct, frozen=True, tag="reset"):
    """Wait no longer: reset every open session, exit 0."""


News = TableChanged | HostAddresses | GeoDatabaseChanged | TlsChanged | SettingsChanged
"""What a worker needs not be told one by one, if it is told the whole state later."""

ToWorker = Start | News | Ping | ListConnections | Drain | Reset


# ---- worker to control process -------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker has its table and accepts connections."""

    version: int


class TableApplied(msgspec.Struct, frozen=True, tag="applied"):
    """The worker routes by this version from now on."""

    version: int


class Traffic(msgspec.Struct, frozen=True, array_like=True):
    """What happened since the last report between clients of one country and one backend."""

    country: str
    backend: str
    opened: int
    closed: int
    score_sum: float
    """Sum of the scores at which connections were given this backend."""
    bytes_received: int
    """From clients, sent on to the backend."""
    bytes_sent: int
    """From the backend, sent on to clients."""


class SessionRecord(msgspec.Struct, frozen=True, array_like=True):
    """One ended session, for the access log."""

    client: str
    country: str
    backend: str
    score: float
    from_affinity: bool
    bytes_received: int
    bytes_sent: int
    duration_s: float
    reason: str
    tries: int
    certificate: str = ""
    """Whom the client's certificate is for; empty without one."""


class KernelCounts(msgspec.Struct, frozen=True, array_like=True):
    """Connections that the kernel relays without the worker."""

    open: int = 0
    """Promoted at this moment."""
    promotions: int = 0
    """Since the worker's start."""


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Counted since the last report."""

    traffic: tuple[Traffic, ...]
    closes: dict[str, int]
    """Ended connections by close reason."""
    connect_errors: dict[str, int]
    """Failed connects by backend id."""
    sessions: tuple[SessionRecord, ...]
    sessions_dropped: int
    """Records that the access log lost because the control process did not keep up."""
    outcomes: dict[str, str] = {}
    """How connections went by backend id, a letter for each (:mod:`edgeproxy.core.dataplane.outcomes`)."""
    connects: dict[str, Connects] = {}
    """Connections established, by backend id."""
    waits: Times | None = None
    """In the queue, of those clients that got a backend; ``None`` when nobody waited."""
    kernel: KernelCounts | None = None
    """``None`` when the kernel relays nothing, because nobody wants it or it cannot be had."""


class Notice(msgspec.Struct, frozen=True, tag="notice"):
    """Something for the log."""

    level: str
    event: str
    fields: dict[str, str | int | float]


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """The worker's loop turns."""


class OpenConnection(msgspec.Struct, frozen=True, array_like=True):
    """One connection that is open, or on its way."""

    client: str
    country: str
    app: str
    """``*`` for all."""
    backend: str
    """Empty while none is chosen."""
    state: str
    """See :class:`~edgeproxy.core.dataplane.session.State`."""
    age_s: float
    """Since its accept."""
    bytes_received: int
    """From the client, sent on to the backend."""
    bytes_sent: int


def first_of(
    connections: Iterable[OpenConnection], count: int, order: ConnectionOrder
) -> list[OpenConnection]:
    """The first ``count`` of them in ``order``."""

    def rank(each: OpenConnection) -> float:
        return each.age_s if order is ConnectionOrder.AGE else each.bytes_received + each.bytes_sent

    return nlargest(count, connections, key=rank)


class OpenConnections(msgspec.Struct, frozen=True, tag="connections"):
    """The answer to the question of this ``number``."""

    number: int
    connections: tuple[OpenConnection, ...]


class Drained(msgspec.Struct, frozen=True, tag="drained"):
    """The worker exits now; so many sessions had to be reset."""

    reset: int


FromWorker = Ready | TableApplied | Report | Notice | Pong | OpenConnections | Drained


# ---- framing -------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()


def encode(frame: ToWorker | FromWorker) -> bytes:
    """The frame as it goes over the wire, length first."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class FrameError(ValueError):
    """The peer sent what is no frame; the channel is of no use any more."""


class FrameReader(Generic[_Frame]):
    """Bytes in, frames out, however they were cut."""

    def __init__(self, kind: object) -> None:
        """``kind`` is :data:`ToWorker` or :data:`FromWorker`."""
        self._decoder: msgspec.msgpack.Decoder[_Frame] = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[_Frame]:
        """Take in ``data`` and give every frame that is now whole.

        Raises:
            FrameError: too long or not decodable.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes, the limit is {MAX_FRAME_BYTES}")
            end = _LENGTH_BYTES + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH_BYTES:end])
            del self._buffer[:end]
            # Besides its own error, a ValueError, msgspec lets through a UnicodeDecodeError for bytes that
            # are no text, and a RecursionError for what is nested too deeply.
            try:
                frame = self._decoder.decode(body)
            except (ValueError, RecursionError) as error:
                raise FrameError(f"an undecodable frame: {error}") from error
            yield frame
