"""Moving bytes by splice, through a pipe in the kernel, once a direction has moved enough to be worth it.

A direction is copied at first, and again after it was found to carry a trickle: for a message of a few bytes
splicing takes more calls than copying. A pipe is held only while bytes are on their way, so that a few serve
all connections; a direction whose reader is slow keeps it with what is in it, and is not read until that has
gone. When there is no pipe, or a side is not a bare socket, the direction is copied.

``splice`` says EAGAIN for an empty socket and for a full pipe; a pipe is therefore emptied before it is
filled again, which leaves the socket. But neither EAGAIN nor 0 is the last word then: an urgent byte looks
like the one or the other, and a splice never gets past it. So each turn ends with a ``recv``, and every end
of a stream and reset of a sender is found where it always is, in the copying relay.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgeproxy.core.wire.frames import RelayMode
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.pipes import Pipe, Pipes
from edgeproxy.worker.relay_copy import CopyRelay, Side

if TYPE_CHECKING:
    from edgeproxy.worker.kernel_maps import KernelMaps

_FILLS_PER_TURN = 8
"""After so many fillings of a pipe others get their turn."""

_AFTER_BYTES = 256 << 10
_TRICKLE_BYTES = 16 << 10


def relay_for(mode: RelayMode, loop: Loop, maps: KernelMaps | None = None, turns: int = 0) -> CopyRelay:
    """The relay that the operator wants; with ``maps`` it promotes connections after so many ``turns``."""
    if maps is not None:
        from edgeproxy.worker.relay_kernel import KernelRelay

        return KernelRelay(loop, _AFTER_BYTES, _TRICKLE_BYTES, maps, turns)
    if mode is RelayMode.COPY:
        return CopyRelay(loop)
    if mode is RelayMode.SPLICE:
        return SpliceRelay(loop, after_bytes=1, trickle_bytes=0)
    return SpliceRelay(loop, _AFTER_BYTES, _TRICKLE_BYTES)


class SpliceRelay(CopyRelay):
    """The relay of one worker."""

    def __init__(self, loop: Loop, after_bytes: int, trickle_bytes: int) -> None:
        """A direction is spliced after it has copied ``after_bytes``, at least 1, since it began or since
        a turn in which less than ``trickle_bytes`` came."""
        super().__init__(loop)
        assert after_bytes > 0, "what a backend takes first must stay at hand for another"
        self._after_bytes = after_bytes
        self._trickle_bytes = trickle_bytes
        self.pipes = Pipes()
        self.spliced_bytes = 0
        """Handed on through pipes, by all connections."""

    def pump(self, source: Side, behind: int) -> None:
        sink = source.peer
        assert sink is not None
        if sink.sent_bytes - sink.trickled_at_bytes < self._after_bytes or self._splice(source, sink):
            CopyRelay.pump(self, source, behind)  # of every read, and super() takes its time

    def flush(self, sink: Side) -> None:
        if sink.pipe is None:
            super().flush(sink)
        elif self._empty(sink.pipe, sink):
            self.forget(sink)
            if sink.peer is not None:
                sink.peer.resume()

    def forget(self, side: Side) -> None:
        super().forget(side)
        if side.pipe is not None:
            self.pipes.put_back(side.pipe)
            side.pipe = None

    def _splice(self, source: Side, sink: Side) -> bool:
        """Move what ``source`` has sent, as far as its peer takes it; whether to go on by copying."""
        # Subclasses stand between a socket and the bytes. What a side sent before its reset is copied, and
        # so is, to be dropped, what comes for one.
        if sink.kept is not None or sink.broken or source.broken:
            return True
        if type(source) is not Side or type(sink) is not Side:
            return True
        pipe = self.pipes.take()
        if pipe is None:
            return True
        sink.pipe = pipe  # feature: relay.splice
        for sock in (source.sock, sink.sock):
            # The flags of a splice say nothing to the sockets; accepted ones are blocking.
            if sock.gettimeout() is None:
                sock.setblocking(False)
        source_fd = source.sock.fileno()
        already_bytes = sink.sent_bytes
        for _ in range(_FILLS_PER_TURN):
            try:
                pipe.filled_bytes = os.splice(
                    source_fd, pipe.write_fd, pipe.capacity_bytes, flags=os.SPLICE_F_NONBLOCK
                )
            except BlockingIOError:
                break
            except OSError:
                source.broken = True  # a socket tells of its reset once, and calls it an end afterwards
                break
            if not pipe.filled_bytes:
                break
            if not self._empty(pipe, sink):
                # Nobody must read on before the pipe is empty, as if its bytes were kept here.
                sink.kept = b""
                source.readable = True
                return False
            if sink.peer is None or sink.broken:
                return sink.peer is not None
        else:
            self.forget(sink)
            source.readable = True
            self._loop.again(source)
            return False
        self.forget(sink)
        if 0 < sink.sent_bytes - already_bytes < self._trickle_bytes:
            sink.trickled_at_bytes = sink.sent_bytes
        return True

    def _empty(self, pipe: Pipe, sink: Side) -> bool:
        """Hand on what is in ``pipe``, or drop it if ``sink`` fails; False when some of it must wait."""
        sink_fd = sink.sock.fileno()
        while pipe.filled_bytes:
            try:
                sent = os.splice(pipe.read_fd, sink_fd, pipe.filled_bytes, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                return False
            except OSError:
                self.fail(sink)
                return True
            pipe.filled_bytes -= sent
            sink.sent_bytes += sent
            self.spliced_bytes += sent
        return True
