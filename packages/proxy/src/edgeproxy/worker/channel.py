"""The worker's end of the socket pair to the control process."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

from edgeproxy.core.wire.frames import FrameReader, FromWorker, ToWorker, encode
from edgeproxy.worker.loop import EDGE, Loop

_READ_BYTES = 16 << 10
"""In one turn: about as many rows as may be taken in before clients have theirs."""
_MAX_UNSENT_BYTES = 1 << 20


class Channel:
    """Frames both ways, never waiting: what the control process does not take stays here, bounded."""

    def __init__(
        self,
        sock: socket.socket,
        loop: Loop,
        on_frame: Callable[[ToWorker], None],
        on_lost: Callable[[], None],
    ) -> None:
        """``on_lost`` is called once, when the control process is gone."""
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._reader: FrameReader[ToWorker] = FrameReader(ToWorker)
        self._unsent = bytearray()
        self._lost = False
        loop.register(sock, self, EDGE)

    def is_congested(self) -> bool:
        """Whether the control process is behind, so that reports had better wait and add up."""
        return len(self._unsent) > _MAX_UNSENT_BYTES

    def send(self, frame: FromWorker) -> None:
        """Send as soon as possible; without a control process the frame goes nowhere."""
        if not self._lost:
            self._unsent += encode(frame)
            self._flush()

    def finish(self) -> None:
        """Wait until all is sent; for the last words of a worker that ends."""
        if not self._lost:
            self._sock.setblocking(True)
            try:
                self._sock.sendall(self._unsent)
            except OSError:
                self._lost = True

    def ready(self, events: int) -> None:
        if self._lost:
            return
        if events & select.EPOLLOUT:
            self._flush()
        if events & ~select.EPOLLOUT:
            self._read()

    def _read(self) -> None:
        while not self._lost:
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lose()
                return
            for frame in self._reader.feed(data):
                self._on_frame(frame)
            if len(data) == _READ_BYTES:
                self._loop.again(self)
                return

    def resume(self) -> None:
        """Read on."""
        self._read()

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                self._lose()
                return
            del self._unsent[:sent]

    def _lose(self) -> None:
        self._lost = True
        self._unsent.clear()
        self._on_lost()
