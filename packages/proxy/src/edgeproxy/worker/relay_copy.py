"""Moving bytes by recv and send, with back-pressure.

All connections of a worker share one buffer. What the receiver does not take at once is kept aside
for it, and nothing more is read from the sender until it is gone; so a slow reader costs at most one
read. Reads are large while that is cheap and become small when much is kept aside in the whole
worker, which bounds the memory that any number of slow readers can claim.
"""

from __future__ import annotations

import select
import socket
from typing import Protocol

from edgeproxy.worker.loop import Loop

_LARGE_READ_BYTES = 256 << 10
_SMALL_READ_BYTES = 16 << 10
_KEPT_ASIDE_LIMIT_BYTES = 16 << 20
"""Beyond this much kept aside by one worker, reads are small."""

_READS_PER_TURN = 16
"""After so many full reads others get their turn."""

_NO_WAIT = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_INPUT = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


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
        "broken", "closed", "ended", "kept", "owner", "peer", "readable", "recv_into", "relay", "send",
        "sent_bytes", "sock",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, owner: Owner, relay: CopyRelay) -> None:
        self.sock = sock
        self.recv_into = sock.recv_into
        self.send = sock.send
        self.owner = owner
        self.relay = relay
        self.peer: Side = self
        self.kept: memoryview | None = None
        """Bytes this side has not taken yet."""
        self.readable = False
        """There may be input that nobody has read; no further edge will tell."""
        self.ended = False
        self.closed = False
        self.broken = False
        """Sending failed: what comes for it is dropped, what it sent before is still handed on."""
        self.sent_bytes = 0
        """Bytes handed to this side."""

    def ready(self, events: int) -> None:
        if events & select.EPOLLOUT and self.kept is not None:
            self.relay.flush(self)
        if self.closed:
            return
        if self.peer is self:
            # Not relaying yet: input waits in the kernel, where it is found when the relay begins.
            if events & select.EPOLLERR:
                self.owner.was_reset(self)
        elif events & _INPUT:
            if not self.ended:
                self.relay.pump(self, bool(events & ~select.EPOLLIN & _INPUT))
            elif events & select.EPOLLERR:
                self.owner.was_reset(self)

    def resume(self) -> None:
        """Go on reading where a turn, or a peer that took no more, ended it."""
        if self.readable and not self.ended and not self.closed:
            self.relay.pump(self, last=True)

    def detach(self) -> None:
        """Break the cycles, so that the memory goes without a collector."""
        del self.recv_into, self.send, self.owner, self.relay
        self.closed = True
        self.peer = self
        self.kept = None


class CopyRelay:
    """The relay of one worker."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._buffer = memoryview(bytearray(_LARGE_READ_BYTES))
        self._kept_bytes = 0

    def begin(self, one: Side, other: Side) -> None:
        """Connect two sides; both may have input already."""
        one.peer, other.peer = other, one
        self.pump(one, last=True)
        if other.peer is one:
            self.pump(other, last=True)

    def pump(self, source: Side, last: bool = False) -> None:
        """Hand on what ``source`` has sent, until it would block or its peer takes no more.

        ``last`` says that the end of the stream may stand behind the bytes, so that a short read
        does not mean that the socket is empty.
        """
        sink = source.peer
        if sink.kept is not None:
            source.readable = True
            return
        buffer = self._buffer
        size = _LARGE_READ_BYTES if self._kept_bytes < _KEPT_ASIDE_LIMIT_BYTES else _SMALL_READ_BYTES
        for _ in range(_READS_PER_TURN):
            try:
                received = source.recv_into(buffer, size, _NO_WAIT)
            except BlockingIOError:
                source.readable = False
                return
            except OSError:
                source.owner.was_reset(source)
                return
            if not received:
                source.readable = False
                source.ended = True
                # A side that refused our bytes has been reset, even if its own stream ends in order.
                if source.broken:
                    source.owner.was_reset(source)
                else:
                    source.owner.ended(source)
                return
            if not sink.broken and not self._hand_over(sink, buffer[:received]):
                source.readable = True
                return
            if received < size and not last:
                source.readable = False
                return
        source.readable = True
        self._loop.again(source)

    def flush(self, sink: Side) -> None:
        """``sink`` takes bytes again."""
        kept = sink.kept
        assert kept is not None
        sink.kept = None
        self._kept_bytes -= len(kept)
        if self._hand_over(sink, kept, already_kept=True):
            sink.peer.resume()

    def forget(self, side: Side) -> None:
        """``side`` is closed; what was kept for it goes."""
        if side.kept is not None:
            self._kept_bytes -= len(side.kept)

    def _hand_over(self, sink: Side, data: memoryview, already_kept: bool = False) -> bool:
        """Send ``data``; keep the rest. False when the sender must wait, or is gone."""
        try:
            sent = sink.send(data, _NO_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._sending_failed(sink)
        sink.sent_bytes += sent
        if sent == len(data):
            return True
        rest = data[sent:]
        sink.kept = rest if already_kept else memoryview(bytes(rest))
        self._kept_bytes += len(rest)
        return False

    def _sending_failed(self, sink: Side) -> bool:
        """The sink is reset, but what it had sent before may still be unread: hand that on first."""
        sink.broken = True
        if sink.ended:
            sink.owner.was_reset(sink)
        else:
            self.pump(sink, last=True)
        return False
