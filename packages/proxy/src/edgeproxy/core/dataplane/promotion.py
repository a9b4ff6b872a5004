"""Which connections the kernel may relay by itself, and how far it may run ahead of a slow reader.

A connection has proved chatty when its two sides have taken enough short turns in a row. Each direction is
then given credit: the kernel hands on what fits in it and leaves the rest to the worker.
Nothing in the kernel holds a sender back while it does so. Therefore credit is granted for no more than the
receiver's send buffer has room for, and renewed only at a moment at which all of it has reached that buffer.
What waits in between is at most one credit, and a direction that carries more than its reader takes comes
back to the worker, whose relay has back-pressure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LONG_TURN_BYTES: Final = 16 << 10
"""Who says more before the other side says anything transfers, which splicing does as well."""

MESSAGE_COST_BYTES: Final = 512
"""What each message takes of the credit besides its bytes: about what the kernel needs to keep it. Without
this a flood of single bytes would pin a thousand times its size."""

LARGEST_CREDIT_BYTES: Final = 256 << 10
SMALLEST_CREDIT_BYTES: Final = 8 << 10
"""With less, the worker would be asked for more after a few messages."""

SMALLEST_REST_BYTES: Final = 1 << 10


class Talk:
    """One connection's turns: what one side says until the other says something, in however many pieces."""

    __slots__ = ("_said_bytes", "_speaker", "turns")

    def __init__(self) -> None:
        self._speaker: int | None = None
        self._said_bytes = 0
        self.turns = 0
        """Short ones in a row, the present one included."""

    def hear(self, speaker: int, said_bytes: int) -> None:
        """The side ``speaker``, any number that tells the two apart, has said so much."""
        if speaker != self._speaker:
            self._speaker = speaker
            self._said_bytes = 0
            self.turns += 1
        self._said_bytes += said_bytes
        if self._said_bytes > LONG_TURN_BYTES:
            self.turns = 0


class Credit(NamedTuple):
    """Up to where one direction may be charged, counted since its promotion."""

    limit: int
    notice_at: int
    """Beyond this the worker is told, in time to renew it."""

    def split(self, charged: int) -> Credit | None:
        """The same limit with a later notice; ``None`` when too little is left for that."""
        rest = self.limit - charged
        return Credit(self.limit, charged + rest // 2) if rest >= SMALLEST_REST_BYTES else None


def grant(charged: int, room_bytes: int) -> Credit | None:
    """Credit for a direction all of whose bytes have arrived in a send buffer with ``room_bytes`` left.

    Half of that room, for buffers shrink when memory is short; ``None`` when that is too little.
    """
    credit = min(room_bytes // 2, LARGEST_CREDIT_BYTES)
    return Credit(charged + credit, charged + credit // 2) if credit >= SMALLEST_CREDIT_BYTES else None


class Run(NamedTuple):
    """A stretch in which the kernel relays one direction: what stood on the counters when it began."""

    written: int
    """What the receiving socket had taken, by the kernel's count."""
    redirected: int
    """What the kernel had directed to it."""
    sent: int
    """What it had taken, by the relay's count."""

    def is_delivered(self, written: int, redirected: int) -> bool:
        """Whether the receiving socket has taken all that was directed to it."""
        return written - self.written >= redirected - self.redirected

    def sent_by(self, written: int) -> int:
        """The relay's count, now that the kernel's is ``written``."""
        return self.sent + written - self.written
