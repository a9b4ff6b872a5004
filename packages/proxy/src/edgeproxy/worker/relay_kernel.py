"""Moving bytes without the worker: a chatty connection's two sockets are joined in the kernel.

A connection is copied and spliced like any other until it has proved chatty. It is *promoted* at a moment at
which both of its sockets were read until they would block, since the program in the kernel sees whole buffers
and would repeat one that was read in part. From then on a program is asked where each buffer goes
(:mod:`~edgeproxy.worker.kernel_program`), direction by direction:

- With credit the kernel hands on, and the worker hears nothing but a notice when half of it is used up.
- Without, the buffer is left to the worker, which copies as ever. That direction has been *taken back*; it is
  given credit again when it has proved chatty again.

The worker must not read on before the peer's socket has taken all that the kernel directed to it, or bytes
would overtake others, and an end of the stream would cut them off. Nobody tells when that is so: the worker
looks, soon at first, then less often, and treats the peer meanwhile like one that takes no more.

A socket never leaves the kernel's maps before it is closed: what the kernel has queued for the worker and it
has not read would be lost.
"""

from __future__ import annotations

import select
import socket

from edgeproxy.core.dataplane.promotion import Credit, Run, Talk, grant
from edgeproxy.core.wire.frames import KernelCounts
from edgeproxy.worker.kernel_maps import NEVER, KernelMaps
from edgeproxy.worker.kernel_program import Word
from edgeproxy.worker.loop import EDGE, Loop
from edgeproxy.worker.relay_copy import UNKNOWN, CopyRelay, Side
from edgeproxy.worker.relay_splice import SpliceRelay

_ENDS = select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
"""What is watched of a socket whose bytes the kernel hands on; each of them would wake the worker else."""

_LOOKS_S = (0.001, 0.01, 0.1)
"""Between two looks whether the peer has taken everything: sixteen of each, then on with the last."""
_LOOKS_EACH = 16

_LIMIT, _NOTICE_AT, _CONSUMED = int(Word.LIMIT), int(Word.NOTICE_AT), int(Word.CONSUMED)
_CHARGED, _REDIRECTED, _PASSED = int(Word.CHARGED), int(Word.REDIRECTED), int(Word.PASSED)


class Flow:
    """What a promoted socket has received; the stream from which the worker reads what is left to it."""

    __slots__ = ("_heard_bytes", "_maps", "_sock", "cookie", "credit", "looks", "run", "slot", "words")

    def __init__(self, maps: KernelMaps, slot: int, sock: socket.socket) -> None:
        """Raises OSError when one direction of the socket has ended."""
        self._maps = maps
        self._sock = sock
        self.slot = slot
        self.cookie = maps.insert(slot, sock)
        self.words = maps.words(slot)
        self.run: Run | None = None
        """``None`` while the worker relays."""
        self.credit = Credit(0, 0)
        self._heard_bytes = 0
        self.looks = 0
        """How often the worker looked in vain whether the peer has taken everything."""

    @property
    def is_read(self) -> bool:
        """Whether nothing is left to the worker."""
        return bool(self.words[_PASSED] == self.words[_CONSUMED])

    def hear(self) -> int:
        """How many bytes the kernel has handed on since this was last called."""
        redirected = int(self.words[_REDIRECTED])
        heard, self._heard_bytes = self._heard_bytes, redirected
        return redirected - heard

    def recv_into(self, buffer: memoryview, nbytes: int, flags: int, /) -> int:
        received = self._sock.recv_into(buffer, nbytes, flags)
        if received:
            self.words[_CONSUMED] += received
        elif not self.is_read:
            raise BlockingIOError  # the kernel knows of the end, and has not got the last bytes ready yet
        return received

    def send(self, data: memoryview, flags: int, /) -> int:
        return self._sock.send(data, flags)

    def open(self, credit: Credit) -> None:
        """Let the kernel hand on; the worker must look once more afterwards, with :meth:`may_go_on`."""
        self.credit = credit
        self.words[_LIMIT] = credit.limit
        self.words[_NOTICE_AT] = credit.notice_at

    def may_go_on(self) -> bool:
        """Whether nothing has gone past the worker since it last looked; if so, the next notice will come."""
        self._maps.settle(self._sock)
        return self.is_read and self.words[_CHARGED] <= self.credit.notice_at

    def shut(self) -> None:
        """Have all that comes from now on left to the worker."""
        self.words[_LIMIT] = 0
        self.words[_NOTICE_AT] = NEVER
        self._maps.settle(self._sock)


class KernelRelay(SpliceRelay):
    """The relay of one worker whose kernel can do this."""

    def __init__(
        self, loop: Loop, after_bytes: int, trickle_bytes: int, maps: KernelMaps, turns: int
    ) -> None:
        """A connection is promoted after so many short ``turns`` in a row; else like ``SpliceRelay``."""
        super().__init__(loop, after_bytes, trickle_bytes)
        self.maps = maps
        self._turns = turns
        self._sides: dict[int, Side] = {}
        """By slot."""
        self._given_up: list[int] = []
        """Pairs whose sockets are closed at the end of this turn."""
        self._looks = [loop.deadlines(after_s, self._look) for after_s in _LOOKS_S]
        self._pairs: set[int] = set()
        """First slots of the connections that are promoted."""
        self._promotions = 0
        loop.register(maps, self, select.EPOLLIN)

    def kernel_counts(self) -> KernelCounts:
        return KernelCounts(len(self._pairs), self._promotions)

    # ---- as any relay ------------------------------------------------------------------------

    def begin(self, one: Side, other: Side, header: bytes = b"") -> None:
        if type(one) is Side and type(other) is Side:  # else TLS stands between a socket and the bytes
            one.talk = other.talk = Talk()
        super().begin(one, other, header)

    def pump(self, source: Side, behind: int) -> None:
        flow, sink = source.flow, source.peer
        assert sink is not None
        if flow is not None and flow.run is not None and not self._take_back(source, sink, flow):
            return
        before_bytes = sink.sent_bytes
        if flow is None:
            super().pump(source, behind)
        else:
            CopyRelay.pump(self, source, UNKNOWN)
        if source.peer is not sink or (moved_bytes := sink.sent_bytes - before_bytes) <= 0:
            return
        talk = source.talk
        if talk is None:
            return
        if sink.flow is not None and (said_bytes := sink.flow.hear()):
            talk.hear(sink.sock.fileno(), said_bytes)
        talk.hear(source.sock.fileno(), moved_bytes)
        if talk.turns >= self._turns and not source.readable:
            if flow is None:
                self._promote(source, sink)
            else:
                self._hand_to_kernel(source, sink)

    def flush(self, sink: Side) -> None:
        source = sink.peer
        if source is not None and source.flow is not None and source.flow.run is not None:
            self.pump(source, UNKNOWN)
        else:
            super().flush(sink)

    def settle(self, side: Side) -> None:
        for source in (side, side.peer):
            if source is not None and source.flow is not None and source.flow.run is not None:
                assert source.peer is not None
                source.peer.sent_bytes = source.flow.run.sent_by(self.maps.written_bytes(source.peer.sock))

    def let_go(self, side: Side) -> None:
        flow = side.flow
        if flow is None:
            return
        side.flow = None
        flow.words.release()
        self.maps.remove(flow.cookie)
        del self._sides[flow.slot]
        self._stop_looking(side)
        if flow.slot ^ 1 not in self._sides:
            # The program may be asked for them until they are closed, which they are when this turn is over.
            self._pairs.discard(flow.slot & ~1)
            self._given_up.append(flow.slot & ~1)
            self._loop.again(self)

    def resume(self) -> None:
        """The sockets of the last turn are closed."""
        given_up, self._given_up = self._given_up, []
        for pair in given_up:
            self.maps.give_back(pair)

    # ---- between worker and kernel -----------------------------------------------------------

    def _promote(self, one: Side, other: Side) -> None:
        for side in (one, other):
            if side.ended or one.peer is not other:
                return
            # Nothing that was read in part may be left in the socket.
            CopyRelay.pump(self, side, UNKNOWN)
        if one.peer is not other or not (_is_at_rest(one) and _is_at_rest(other)):
            return
        pair = self.maps.take_pair()
        if pair is None:
            return
        for slot, side in ((pair, one), (pair + 1, other)):
            try:
                side.flow = Flow(self.maps, slot, side.sock)
            except OSError:
                one.talk = other.talk = None  # it is at its end; the first, if it is in, stays there
                break
            side.stream = side.flow
            self._sides[slot] = side
        if one.flow is None:
            self.maps.give_back(pair)
            return
        self._pairs.add(pair)
        self._promotions += 1  # feature: relay.kernel
        for side in (one, other):
            if side.flow is not None and side.peer is not None:
                CopyRelay.pump(self, side, UNKNOWN)  # what came since, before the program was asked
                if side.peer is not None:
                    self._hand_to_kernel(side, side.peer)

    def _hand_to_kernel(self, source: Side, sink: Side) -> None:
        """Let the kernel hand on what ``source`` sends, if all that it has sent is at its place."""
        flow = source.flow
        assert flow is not None
        if sink.flow is None or sink.kept is not None or sink.broken or source.broken or source.ended:
            return
        credit = grant(flow.words[_CHARGED], self.maps.room_bytes(sink.sock))
        if credit is None or not flow.is_read:
            return
        written = self.maps.exactly_written_bytes(sink.sock)
        if written is None:
            return
        flow.run = Run(written, flow.words[_REDIRECTED], sink.sent_bytes)
        self._loop.watch(source.sock, _ENDS)
        flow.open(credit)
        if not flow.may_go_on():
            source.readable = True
            self._loop.again(source)

    def _take_back(self, source: Side, sink: Side, flow: Flow) -> bool:
        """Stop the kernel handing on what ``source`` sends; whether the worker may read on already."""
        run = flow.run
        assert run is not None
        if flow.words[_LIMIT]:
            flow.shut()
            flow.looks = 0
            if source.talk is not None:
                source.talk.turns = 0
            self._loop.watch(source.sock, EDGE)
        written = self.maps.written_bytes(sink.sock)
        if not (sink.broken or run.is_delivered(written, flow.words[_REDIRECTED])):
            sink.kept = b""
            source.readable = True
            looks = self._looks[min(flow.looks // _LOOKS_EACH, len(_LOOKS_S) - 1)]
            flow.looks += 1
            looks.add(source, self._loop.now_s)
            return False
        sink.sent_bytes = run.sent_by(written)
        flow.run = None
        self._stop_looking(source)
        self.forget(sink)
        return True

    def _stop_looking(self, source: Side) -> None:
        for looks in self._looks:
            looks.discard(source)

    def _look(self, source: Side) -> None:
        self.pump(source, UNKNOWN)

    # ---- notices -----------------------------------------------------------------------------

    def ready(self, _events: int) -> None:
        """The kernel has used up much of somebody's credit."""
        for slot in self.maps.notices():
            source = self._sides.get(slot)
            if source is not None and source.flow is not None and source.flow.words[_LIMIT]:
                self._renew(source, source.flow)

    def _renew(self, source: Side, flow: Flow) -> None:
        sink, run = source.peer, flow.run
        assert sink is not None
        assert run is not None
        self.maps.settle(source.sock)
        charged = flow.words[_CHARGED]
        if flow.is_read:
            if run.is_delivered(self.maps.written_bytes(sink.sock), flow.words[_REDIRECTED]):
                credit = grant(charged, self.maps.room_bytes(sink.sock))
            else:
                credit = flow.credit.split(charged)
            if credit is not None:
                flow.open(credit)
                if flow.may_go_on():
                    return
        self.pump(source, UNKNOWN)  # feature: relay.kernel


def _is_at_rest(side: Side) -> bool:
    """Whether nothing of this side is on its way through the worker, and more may come."""
    return not (
        side.readable
        or side.ended
        or side.broken
        or side.unsent
        or side.kept is not None
        or side.sent_bytes <= 0
    )
