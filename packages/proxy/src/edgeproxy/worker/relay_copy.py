"""Moving bytes by recv and send, with back-pressure.

All connections of a worker share one buffer. What the receiver does not take at once is kept aside
for it, and nothing more is read from the sender until it is gone; so a slow reader costs at most one
read. Reads are large while that is cheap and become small when much is kept aside in the whole
worker, which bounds the memory that any number of slow readers can claim.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Protocol

from edgeproxy.core.dataplane.client_tls import ClientTls
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.pipes import Pipe

if TYPE_CHECKING:
    from edgeproxy.core.dataplane.promotion import Talk
    from edgeproxy.core.wire.frames import KernelCounts
    from edgeproxy.worker.relay_kernel import Flow

_LARGE_READ_BYTES = 256 << 10
_SMALL_READ_BYTES = 16 << 10
_KEPT_ASIDE_LIMIT_BYTES = 16 << 20
"""Beyond this much kept aside by one worker, reads are small."""

_READS_PER_TURN = 16
"""After so many full reads others get their turn."""

_NO_WAIT = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_LAST_BYTES = _NO_WAIT | socket.MSG_MORE
"""For bytes that the end of the stream follows at once: the kernel sends both as one segment."""
_BEHIND = select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLHUP
"""Something stands behind the bytes, the end of the stream or an urgent byte; a read stops short of it."""
_INPUT = select.EPOLLIN | _BEHIND
_ONLY_THE_END = select.EPOLLRDHUP

UNKNOWN = select.EPOLLPRI
"""For :meth:`CopyRelay.pump`, when no event tells what stands behind the bytes."""


class Stream(Protocol):
    """What a side is read from and sent to; a bare socket is one."""

    def recv_into(self, buffer: memoryview, nbytes: int, flags: int, /) -> int: ...

    def send(self, data: memoryview, flags: int, /) -> int: ...


class Owner(Protocol):
    """Who is told how a side ended."""

    def ended(self, side: Side) -> None:
        """``side`` has sent its last byte, and all of them have been handed on."""
        ...

    def was_reset(self, side: Side) -> None:
        """``side`` was reset."""
        ...


class Side:
    """One socket of a relayed pair."""

    __slots__ = (
        "broken", "early_events", "ended", "flow", "is_emptied", "kept", "kept_sent", "owner", "peer", "pipe",
        "readable", "relay", "sent_bytes", "sock", "stream", "talk", "trickled_at_bytes", "unsent",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, owner: Owner, relay: CopyRelay) -> None:
        self.sock = sock
        self.stream: Stream = sock
        self.owner = owner
        self.relay = relay
        self.peer: Side | None = None
        """``None`` before the relay begins, and after it is over."""
        self.kept: bytes | None = None
        """What this side did not take at once."""
        self.kept_sent = 0
        """How much of ``kept`` it has taken since."""
        self.pipe: Pipe | None = None
        """What bytes for this side pass through; ``kept`` is empty, not ``None``, while they wait there."""
        self.trickled_at_bytes = 0
        """What had been sent when little was coming; for :mod:`edgeproxy.worker.relay_splice`."""
        self.flow: Flow | None = None
        """What the kernel relays of what this side sends; for :mod:`edgeproxy.worker.relay_kernel`."""
        self.talk: Talk | None = None
        """How it and its peer talk to each other; likewise."""
        self.readable = True
        """There may be input that nobody has read; no further edge will tell."""
        self.early_events = 0
        """What the loop told of a side that it watches before the relay began."""
        self.is_emptied = False
        """The last read, if it did not fill the buffer, has left nothing: its stream knows that by itself."""
        self.ended = False
        self.broken = False
        """It was reset: what comes for it is dropped, what it sent before is still handed on."""
        self.sent_bytes = 0
        """Bytes handed to this side; negative while so much of what is not counted has not been."""
        self.unsent = b""
        """First bytes of this side, read but not handed on because its peer was reset: for the next peer."""

    def ready(self, events: int) -> None:
        if events & select.EPOLLERR:
            self.relay.fail(self)
            if self.peer is not None:
                self.peer.resume()
            return
        if events & select.EPOLLOUT and self.kept is not None:
            self.relay.flush(self)
        if events & _INPUT and not self.ended:
            if self.peer is not None:
                self.relay.pump(self, events & _BEHIND)
            else:  # input waits in the kernel until the relay begins
                self.early_events |= events

    def resume(self) -> None:
        """Go on reading where a turn, or a peer that took no more, ended it."""
        if self.readable and self.peer is not None and not self.ended:
            self.relay.pump(self, UNKNOWN)

    def end(self) -> None:
        """Pass on an end of stream; a socket that was reset meanwhile reports that by itself."""
        try:  # noqa: SIM105 - of every connection, and suppress() is written in Python
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def client_tls(self) -> ClientTls | None:
        """The client's TLS, when this is its side and TLS ends here."""
        return None

    def must_linger(self) -> bool:
        """Whether the socket of a connection that ended in order is closed later, by somebody else."""
        return False

    def detach(self) -> None:
        """Break the cycles, so that the memory goes without a collector."""
        self.relay.let_go(self)
        del self.stream, self.owner, self.relay
        self.peer = None


class CopyRelay:
    """The relay of one worker."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._buffer = memoryview(bytearray(_LARGE_READ_BYTES))
        self._kept_bytes = 0

    def begin(self, one: Side, other: Side, header: bytes = b"") -> None:
        """Connect two sides; both may have input already. ``other`` is sent ``header`` first, uncounted.

        A side that is not ``readable`` has no input but what its ``early_events`` tell, or further ones will.
        """
        one.peer, other.peer = other, one
        if header or one.unsent:
            other.sent_bytes = -len(header)
            first, one.unsent = header + one.unsent, b""
            self._hand_over(other, memoryview(first))
        for side in (one, other):
            events, side.early_events = side.early_events, 0
            if other.peer is not one:
                return
            if side.readable:
                self.pump(side, UNKNOWN)
            elif events & _INPUT:
                self.pump(side, events & _BEHIND)

    def pump(self, source: Side, behind: int) -> None:
        """Hand on what ``source`` has sent, until it would block or its peer takes no more.

        ``behind`` is what an event said of it besides that there is input. With nothing more, a read that
        does not fill the buffer has emptied the socket; with the end of the stream alone, it has come up to
        that.
        """
        sink = source.peer
        assert sink is not None
        if sink.kept is not None:
            source.readable = True
            return
        buffer = self._buffer
        size = _LARGE_READ_BYTES if self._kept_bytes < _KEPT_ASIDE_LIMIT_BYTES else _SMALL_READ_BYTES
        for _ in range(_READS_PER_TURN):
            try:
                received = source.stream.recv_into(buffer, size, _NO_WAIT)
            except BlockingIOError:
                source.readable = False
                if source.broken:
                    source.owner.was_reset(source)
                return
            except OSError:
                source.owner.was_reset(source)
                return
            if not received:
                self._end(source)
                return
            is_all = received < size and (not behind or source.is_emptied)
            is_last = received < size and behind == _ONLY_THE_END and not is_all
            flags = _LAST_BYTES if is_last and not source.broken else _NO_WAIT
            if not sink.broken and not self._hand_over(sink, buffer[:received], flags):
                source.readable = True
                return
            if is_all:
                source.readable = False
                return
            if is_last:
                self._end(source)
                return
        source.readable = True
        self._loop.again(source)

    def _end(self, source: Side) -> None:
        source.readable = False
        source.ended = True
        # A side that was reset may have ended in order before, which is the lesser news.
        if source.broken:
            source.owner.was_reset(source)
        else:
            source.owner.ended(source)

    def flush(self, sink: Side) -> None:
        """``sink`` takes bytes again."""
        kept = sink.kept
        assert kept is not None
        try:
            sent = sink.stream.send(memoryview(kept)[sink.kept_sent :], _NO_WAIT)
        except BlockingIOError:
            return
        except OSError:
            self.fail(sink)
        else:
            sink.sent_bytes += sent
            sink.kept_sent += sent
            if sink.kept_sent < len(kept):
                return
            self.forget(sink)
        if sink.peer is not None:
            sink.peer.resume()

    def fail(self, side: Side) -> None:
        """``side`` is reset, but what it had sent before may still be unread: hand that on first."""
        side.broken = True
        if side.kept is not None and side.sent_bytes <= 0 and side.peer is not None:
            side.peer.unsent = side.kept[side.kept_sent - side.sent_bytes :]
        self.forget(side)
        if side.ended or side.peer is None:
            side.owner.was_reset(side)
        else:
            self.pump(side, UNKNOWN)

    def settle(self, side: Side) -> None:
        """Bring the counts of ``side`` and its peer up to date, if their bytes are moved elsewhere, too."""

    def kernel_counts(self) -> KernelCounts | None:
        """What the kernel relays by itself; ``None`` when it is not asked to."""
        return None

    def let_go(self, side: Side) -> None:
        """The socket of ``side`` is closed when this turn is over, or was not relayed."""

    def forget(self, side: Side) -> None:
        """Drop what is kept for ``side``."""
        if side.kept is not None:
            self._kept_bytes -= len(side.kept)
            side.kept = None

    def _hand_over(self, sink: Side, data: memoryview, flags: int = _NO_WAIT) -> bool:
        """Send ``data``; keep the rest. False when the sender must wait, or is gone."""
        try:  # feature: relay.copy
            sent = sink.stream.send(data, flags)
        except BlockingIOError:
            sent = 0
        except OSError:
            if sink.sent_bytes <= 0:
                self._keep(sink, data)
            self.fail(sink)
            return sink.peer is not None
        sink.sent_bytes += sent
        if sent == len(data):
            return True
        self._keep(sink, data[sent:])
        return False

    def _keep(self, sink: Side, data: memoryview) -> None:
        sink.kept = bytes(data)
        sink.kept_sent = 0
        self._kept_bytes += len(data)
