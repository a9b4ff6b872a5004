"""What waits to be sent to one peer: bounded here, and bounded there.

A peer says how much of what it got it has worked off. Once a window beyond that has been sent, messages are
kept, up to a limit; beyond it they are dropped, because the next comparison with that peer finds what it
lacks. So a slow peer costs a fixed amount of memory, on both sides.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_BYTES: Final = 8 << 20
"""Sent and not worked off; the message that goes beyond it is the last."""
QUEUE_BYTES: Final = 8 << 20
"""Waiting to be sent."""
OVERHEAD_BYTES: Final = 64
"""What a message counts beside its body, so that empty ones are not free."""


class SendQueue:
    """Messages as they go over the wire, each with the bytes that its body occupies at the peer."""

    def __init__(self, window_bytes: int = WINDOW_BYTES, queue_bytes: int = QUEUE_BYTES) -> None:
        self._window_bytes = window_bytes
        self._queue_bytes = queue_bytes
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._sent = 0
        self._worked_off = 0
        self.waiting_bytes = 0
        self.dropped = 0
        """Messages, since the connection began."""

    def offer(self, wire: bytes, size: int) -> bool:
        """Keep a message to be sent; false when there is no room, and it is dropped.

        One that is larger than the queue is taken when nothing else waits.
        """
        cost = size + OVERHEAD_BYTES
        if self._waiting and self.waiting_bytes + cost > self._queue_bytes:
            self.dropped += 1
            return False
        self._waiting.append((wire, cost))
        self.waiting_bytes += cost
        return True

    def take(self) -> bytes | None:
        """The next message that may be sent now."""
        if not self._waiting:
            return None
        wire, cost = self._waiting[0]
        if self.outstanding_bytes > self._window_bytes:
            return None
        self._waiting.popleft()
        self.waiting_bytes -= cost
        self._sent += cost
        return wire

    def worked_off(self, total: int) -> bool:
        """Learn how many bytes the peer has worked off since the beginning; false if that cannot be."""
        if not self._worked_off <= total <= self._sent:
            return False
        self._worked_off = total
        return True

    @property
    def outstanding_bytes(self) -> int:
        """Sent and not worked off."""
        return self._sent - self._worked_off

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._waiting)
