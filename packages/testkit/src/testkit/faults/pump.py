"""Carries out what a lane says, in the time of an event loop."""

from __future__ import annotations

import asyncio
from typing import Protocol

from testkit.faults.lanes import Signal, StreamLane

FULL_BYTES = 1 << 16
"""When so much waits in a lane, its sender is asked to wait: a slow link is felt by who sends."""


class Receiver(Protocol):
    """Where a lane ends."""

    def deliver(self, data: bytes) -> None: ...

    def deliver_end(self) -> None: ...

    def sever(self, signal: Signal) -> None:
        """End the connection, as the signal says."""
        ...


class Pump:
    """Drives one lane until it is stopped."""

    def __init__(self, lane: StreamLane, receiver: Receiver) -> None:
        self.lane = lane
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False

    @property
    def is_full(self) -> bool:
        return self.lane.waiting_bytes >= FULL_BYTES

    def push(self, data: bytes) -> None:
        self.lane.push(data, self._loop.time())
        self._come_back()

    def end(self) -> None:
        self.lane.end(self._loop.time())
        self._come_back()

    def abort(self) -> None:
        self.lane.abort(self._loop.time())
        self._come_back()

    def look(self) -> None:
        """Hand on what is due, and come back when more is; to be called when faults change, too."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_stopped:
            return
        for arrival in self.lane.arrivals(self._loop.time()):
            if isinstance(arrival, bytes):
                self._receiver.deliver(arrival)
            elif arrival is Signal.END:
                self._receiver.deliver_end()
            else:
                self._receiver.sever(arrival)
        self._come_back()

    def _come_back(self) -> None:
        # At the earliest in the next turn of the loop: who receives may answer, and be answered, without end.
        next_s = self.lane.next_s()
        if next_s is not None and self._timer is None and not self._is_stopped:
            self._timer = self._loop.call_at(next_s, self.look)

    def stop(self) -> None:
        """Hand on nothing more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
