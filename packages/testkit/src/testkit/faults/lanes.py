"""What faults do to bytes: one way of a connection, or of datagrams. No I/O, no clock: times are arguments.

The simulated network and the fault link drive the same lanes, so that a fault does the same in both.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from testkit.faults.vocabulary import (
    Bandwidth,
    Blackhole,
    Corruption,
    Direction,
    HalfClose,
    Latency,
    LimitBytes,
    LinkFault,
    Loss,
    Partition,
    Reset,
    Slicing,
    SlowClose,
)

_PIECES_PER_S = 20
"""A link of limited bandwidth hands on pieces, not the whole at its end."""
_PIECE_BYTES = 1 << 16


class Signal(enum.Enum):
    """What arrives that is no bytes."""

    END = "the sender has ended its half"
    CUT = "both halves end in order"
    RESET = "both ends get RST"
    RESET_RECEIVER = "the receiver gets RST; for the sender it ends in order, if he is still there"


Arrival = bytes | Signal


class StreamLane:
    """Takes what the sender writes, gives what the receiver gets and when."""

    def __init__(self, faults: Callable[[], Sequence[LinkFault]], draws: random.Random) -> None:
        """``faults`` says which are in force whenever it is asked."""
        self._faults = faults
        self._draws = draws
        self._queue: deque[tuple[float, Arrival]] = deque()
        self._last_s = 0.0
        self._busy_until_s = 0.0
        self._is_metered = False
        self._is_ended = False
        self.waiting_bytes = 0
        """Taken and not given yet."""
        self.given_bytes = 0

    def push(self, data: bytes, now_s: float) -> None:
        """The sender wrote something."""
        faults = self._faults()
        if self._is_ended or any(isinstance(fault, Blackhole | HalfClose) for fault in faults):
            return
        at_s = now_s + _delay(faults, self._draws)
        for number, piece in enumerate(_sliced(data, faults)):
            pause_s = sum(fault.pause_s for fault in faults if isinstance(fault, Slicing)) if number else 0
            at_s = max(self._last_s, at_s) + pause_s
            self._put(at_s, _corrupted(piece, faults, self._draws))

    def end(self, now_s: float) -> None:
        """The sender ended its half."""
        faults = self._faults()
        if self._is_ended or any(isinstance(fault, Blackhole) for fault in faults):
            return
        slow_s = sum(fault.delay_s for fault in faults if isinstance(fault, SlowClose))
        at_s = max(self._last_s, now_s + _delay(faults, self._draws)) + slow_s
        self._end_at(at_s)

    def abort(self, now_s: float) -> None:
        """The sender ended both halves with RST, which travels as bytes do."""
        faults = self._faults()
        if not any(isinstance(fault, Blackhole) for fault in faults):
            self._last_s = max(self._last_s, now_s + _delay(faults, self._draws))
            self._queue.append((self._last_s, Signal.RESET_RECEIVER))
            self._is_ended = True

    def arrivals(self, now_s: float) -> list[Arrival]:
        """What the receiver gets now. Nothing comes after a `Signal`."""
        faults = self._faults()
        resets = [fault for fault in faults if isinstance(fault, Reset)]
        if resets:
            both = any(fault.direction is Direction.BOTH for fault in resets)
            return [Signal.RESET if both else Signal.RESET_RECEIVER]
        if any(isinstance(fault, HalfClose) for fault in faults):
            self._end_at(max(self._last_s, now_s))
        given: list[Arrival] = []
        while self._queue and self._head_s(faults) <= now_s:
            _, arrival = self._queue.popleft()
            self._is_metered = False
            if isinstance(arrival, Signal):
                given.append(arrival)
                break
            self.waiting_bytes -= len(arrival)
            room = self._room(faults)
            if room is not None and len(arrival) >= room[0]:
                given += [arrival[: room[0]]] if room[0] else []
                given.append(room[1])
                break
            self.given_bytes += len(arrival)
            given.append(arrival)
        return given

    def next_s(self) -> float | None:
        """When something arrives next; None when nothing does before the sender or a fault does something."""
        faults = self._faults()
        if not self._queue or any(isinstance(fault, Partition) for fault in faults):
            return None
        return self._head_s(faults)

    def _head_s(self, faults: Sequence[LinkFault]) -> float:
        """When the first of the queue arrives, with the time that it takes to get through."""
        if any(isinstance(fault, Partition) for fault in faults):
            return float("inf")
        at_s, arrival = self._queue[0]
        rate = min((fault.bytes_per_s for fault in faults if isinstance(fault, Bandwidth)), default=0.0)
        if not rate or isinstance(arrival, Signal):
            return at_s
        if not self._is_metered:
            if len(arrival) > (most := max(1, int(rate / _PIECES_PER_S))):
                self._queue[0] = (at_s, arrival[:most])
                self._queue.insert(1, (at_s, arrival[most:]))
                arrival = arrival[:most]
            # From when it was there, or the one before it was through; not from long ago.
            self._busy_until_s = max(at_s, self._busy_until_s) + len(arrival) / rate
            self._is_metered = True
        return max(at_s, self._busy_until_s)

    def _room(self, faults: Sequence[LinkFault]) -> tuple[int, Signal] | None:
        """How many bytes may still pass, and what comes after them."""
        limits = [fault for fault in faults if isinstance(fault, LimitBytes)]
        if not limits:
            return None
        least = min(limits, key=lambda fault: fault.size_bytes)
        signal = Signal.RESET if least.reset else Signal.CUT
        return max(0, least.size_bytes - self.given_bytes), signal

    def _put(self, at_s: float, piece: bytes) -> None:
        self._queue.append((at_s, piece))
        self._last_s = at_s
        self.waiting_bytes += len(piece)

    def _end_at(self, at_s: float) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._queue.append((at_s, Signal.END))
            self._last_s = at_s


class DatagramLane:
    """Takes datagrams one way, and says when each arrives, if it does. They may overtake one another."""

    def __init__(self, faults: Callable[[int], Sequence[LinkFault]], draws: random.Random) -> None:
        """``faults`` says which strike the datagram of a number, counted from 1."""
        self._faults = faults
        self._draws = draws
        self._busy_until_s = 0.0
        self.sent = self.lost = 0

    def push(self, data: bytes, now_s: float) -> tuple[float, bytes] | None:
        """When a datagram arrives, and as what; None when it is lost."""
        self.sent += 1
        faults = self._faults(self.sent)
        if any(
            isinstance(fault, Blackhole | Partition)
            or (isinstance(fault, Loss) and self._draws.random() < fault.share)
            for fault in faults
        ):
            self.lost += 1
            return None
        rate = min((fault.bytes_per_s for fault in faults if isinstance(fault, Bandwidth)), default=0.0)
        if rate:
            self._busy_until_s = max(now_s, self._busy_until_s) + len(data) / rate
        at_s = max(now_s, self._busy_until_s) + _delay(faults, self._draws)
        return at_s, _corrupted(data, faults, self._draws)


STREAM_ONLY: tuple[type[LinkFault], ...] = (SlowClose, Reset, HalfClose, Slicing, LimitBytes)
"""Of these, nothing is left where there are no connections."""


def _delay(faults: Sequence[LinkFault], draws: random.Random) -> float:
    return sum(
        max(0.0, fault.delay_s + (draws.uniform(-1, 1) * fault.jitter_s if fault.jitter_s else 0.0))
        for fault in faults
        if isinstance(fault, Latency)
    )


def _sliced(data: bytes, faults: Sequence[LinkFault]) -> Iterator[bytes]:
    size = min((fault.size_bytes for fault in faults if isinstance(fault, Slicing)), default=_PIECE_BYTES)
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _corrupted(piece: bytes, faults: Sequence[LinkFault], draws: random.Random) -> bytes:
    for fault in faults:
        if isinstance(fault, Corruption) and piece and draws.random() < fault.share:
            turned = bytearray(piece)
            turned[draws.randrange(len(turned))] ^= 1 << draws.randrange(8)
            piece = bytes(turned)
    return piece
