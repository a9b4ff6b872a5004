"""One connection with one peer: it proves itself, then frames go both ways.

Small frames share the first stream, in order. A large one has a stream of its own, so that what is small and
urgent is not stuck behind it: QUIC sends the streams in turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from edgeproxy.core.replication.handshake import (
    MAX_HANDSHAKE_BYTES,
    Acceptor,
    Dialler,
    HandshakeError,
    Peer,
    Refused,
)
from edgeproxy.core.replication.send_queue import OVERHEAD_BYTES, WINDOW_BYTES, SendQueue
from edgeproxy.core.wire.peer_frames import MAX_FRAME_BYTES, Frame, PeerFrameError, PeerFrameReader, encode
from edgeproxy.outbound.quic_certificate import fingerprint_shown
from edgeproxy.outbound.quic_endpoint import Link

CREDIT: Final = 4
"""Kind of the frame that says how many bytes were worked off since the beginning."""
FIRST_MESSAGE_KIND: Final = 16
"""Kinds below are the transport's own."""

OWN_STREAM_BYTES: Final = 32 << 10
"""A frame larger than this has a stream of its own."""
HANDSHAKE_TIMEOUT_S: Final = 5.0

_CONTROL: Final = 0
"""The first stream that the dialler opens."""
_ONE_WAY: Final = 2
"""The bit in a stream's number that says so."""
_ACCEPTED_BYTES: Final = WINDOW_BYTES + MAX_FRAME_BYTES + OVERHEAD_BYTES
"""More than this a peer that keeps to the rules never has sent beyond what it knows to be worked off."""
_CREDIT_BYTES: Final = WINDOW_BYTES // 4
"""So much is worked off before the peer is told."""


class CloseCode(IntEnum):
    """The error code with which a connection is closed."""

    DONE = 0
    """In order: a node leaves, or a better connection stands."""
    REFUSED = 1


class Owner(Protocol):
    """Who has all sessions."""

    def proven(self, session: Session) -> None: ...

    def message(self, session: Session, frame: Frame, done: Callable[[], None]) -> None:
        """``done`` is to be called once the message is worked off."""
        ...

    def refused(self, session: Session, reason: Refused, why: str) -> None:
        """We have closed it."""
        ...

    def ended(self, session: Session, why: str) -> None:
        """The peer has closed it, or is gone."""
        ...


class Session:
    """A :class:`~edgeproxy.outbound.quic_endpoint.Handler` of one link."""

    def __init__(
        self,
        link: Link,
        owner: Owner,
        acceptor: Acceptor | None = None,
        make_dialler: Callable[[bytes], Dialler] | None = None,
    ) -> None:
        """One of the two is given; ``make_dialler`` takes the fingerprint of the certificate shown."""
        self.link = link
        self.peer: Peer | None = None
        """Once it has proven itself."""
        self.queue = SendQueue()
        self.heard_s = asyncio.get_running_loop().time()
        """When something came last, by the loop's clock."""
        self._owner = owner
        self._handshake: Acceptor | Dialler | None = acceptor
        self._make_dialler = make_dialler
        self._readers: dict[int, PeerFrameReader] = {}
        self._received = 0
        self._worked_off = 0
        self._told = 0
        self._over = False
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT_S, self._on_deadline)

    # ---- what the link tells -----------------------------------------------------------------

    def encrypted(self) -> None:
        """See :meth:`edgeproxy.outbound.quic_endpoint.Handler.encrypted`."""
        if self._make_dialler is not None:
            self._handshake = dialler = self._make_dialler(fingerprint_shown(self.link.quic))
            stream = self.link.open_stream(one_way=False)
            assert stream == _CONTROL
            self._send_frames(dialler.begin())

    def received(self, stream: int, data: bytes, *, is_end: bool) -> None:
        """See :meth:`edgeproxy.outbound.quic_endpoint.Handler.received`."""
        if self._over:
            return
        self.heard_s = asyncio.get_running_loop().time()
        if stream != _CONTROL and (self.peer is None or not stream & _ONE_WAY):
            self._refuse(Refused.MALFORMED, f"data on stream {stream}")
            return
        reader = self._readers.get(stream)
        if reader is None:
            limit = MAX_HANDSHAKE_BYTES if self.peer is None else MAX_FRAME_BYTES
            reader = self._readers[stream] = PeerFrameReader(limit)
        try:
            for frame in reader.feed(data):
                if not self._take(frame):
                    return
                if self.peer is not None:
                    reader.max_bytes = MAX_FRAME_BYTES
            if sum(map(len, self._readers.values())) > _ACCEPTED_BYTES:
                self._refuse(Refused.FLOOD, "too many frames are under way")
            elif is_end:
                del self._readers[stream]
                if len(reader) or stream == _CONTROL:
                    self._refuse(Refused.MALFORMED, f"stream {stream} ends in the middle")
        except PeerFrameError as error:
            self._refuse(Refused.MALFORMED, str(error))
        except HandshakeError as error:
            self._refuse(error.reason, str(error))

    def ended(self, why: str) -> None:
        """See :meth:`edgeproxy.outbound.quic_endpoint.Handler.ended`."""
        if not self._over:
            self._stop()
            self._owner.ended(self, why)

    # ---- what the owner asks -----------------------------------------------------------------

    def send(self, wire: bytes, size: int) -> bool:
        """Send a frame, as :func:`~edgeproxy.core.wire.peer_frames.encode` gives it, as soon as that may be.

        ``size`` is that of its body. False: too much waits, and it is dropped.
        """
        taken = self.queue.offer(wire, size)
        self._pump()
        return taken

    def close(self, why: str, code: CloseCode = CloseCode.DONE) -> None:
        """End it; the owner is not told."""
        self._stop()
        self.link.close(why, code)

    # ---- its own -----------------------------------------------------------------------------

    def _take(self, frame: Frame) -> bool:
        """Work off one frame; false when the connection is over."""
        if self.peer is None:
            self._prove(frame)
        elif frame.kind == CREDIT:
            self._take_credit(frame.body)
        elif frame.kind < FIRST_MESSAGE_KIND:
            self._refuse(Refused.MALFORMED, f"a message of kind {frame.kind} after the proofs")
        else:
            size = len(frame.body) + OVERHEAD_BYTES
            self._received += size
            if self._received - self._told > _ACCEPTED_BYTES:
                self._refuse(Refused.FLOOD, "it sends more than it was told it may")
            else:
                self._owner.message(self, frame, lambda: self._done(size))
        return not self._over

    def _prove(self, frame: Frame) -> None:
        assert self._handshake is not None, "the link is encrypted before anything comes"
        self._send_frames(self._handshake.receive(frame))
        if self._handshake.peer is not None:
            self.peer = self._handshake.peer
            self._deadline.cancel()
            self._owner.proven(self)

    def _take_credit(self, body: bytes) -> None:
        try:
            total = msgspec.msgpack.decode(body, type=int)
        except (ValueError, RecursionError) as error:
            self._refuse(Refused.MALFORMED, f"an undecodable credit: {error}")
            return
        if not self.queue.worked_off(total):
            self._refuse(Refused.MALFORMED, f"it says it worked off {total} bytes, which cannot be")
        self._pump()

    def _done(self, size: int) -> None:
        self._worked_off += size
        if self._worked_off - self._told >= _CREDIT_BYTES and not self._over:
            self._told = self._worked_off
            self._send_frames([Frame(CREDIT, msgspec.msgpack.encode(self._told))])

    def _pump(self) -> None:
        while not self._over and (wire := self.queue.take()) is not None:
            if len(wire) > OWN_STREAM_BYTES:
                self.link.send(self.link.open_stream(one_way=True), wire, is_end=True)
            else:
                self.link.send(_CONTROL, wire)

    def _send_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            self.link.send(_CONTROL, encode(frame))

    def _refuse(self, reason: Refused, why: str) -> None:
        self.close(reason, CloseCode.REFUSED)
        self._owner.refused(self, reason, why)

    def _on_deadline(self) -> None:
        self._refuse(Refused.SILENT, f"it has not proven itself within {HANDSHAKE_TIMEOUT_S:g} s")

    def _stop(self) -> None:
        self._over = True
        self._deadline.cancel()
