"""Signals as events of the loop, so that a handler never interrupts a relay half-way."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

from edgeproxy.worker.loop import LEVEL_READ, Loop


class SignalWakeup:
    """Calls back in the loop when ``signum`` has arrived. One per process."""

    def __init__(self, loop: Loop, signum: signal.Signals, on_signal: Callable[[], None]) -> None:
        self._signum = signum
        self._on_signal = on_signal
        self._reader, writer = socket.socketpair()
        self._reader.setblocking(False)
        writer.setblocking(False)
        self._writer = writer
        signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        loop.register(self._reader, self, LEVEL_READ)

    def ready(self, events: int) -> None:  # noqa: ARG002
        # The kernel's side of it is shared: whatever else this process handles is written there too.
        if self._signum in self._reader.recv(4096):
            self._on_signal()
