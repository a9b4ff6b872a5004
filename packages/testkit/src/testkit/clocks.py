"""Clocks that tests move, for code that takes a clock: a callable that returns seconds."""

from __future__ import annotations

from datetime import UTC, datetime


class ManualClock:
    """Stands still until it is moved.

    ``clock()`` is in place of ``time.monotonic`` or ``time.time``; ``clock.now`` in place of
    ``lambda: datetime.now(UTC)``, both telling the same time.
    """

    def __init__(self, at_s: float = 1_000_000_000.0) -> None:
        self.at_s = at_s

    def __call__(self) -> float:
        return self.at_s

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at_s, UTC)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: clocks that go back do so by :meth:`step`.
        """
        if seconds < 0:
            raise ValueError(f"advance({seconds}): use step() for a clock that jumps")
        self.at_s += seconds

    def step(self, seconds: float) -> None:
        """Set it ahead or back, as whoever corrects a wrong clock does; intervals across it are wrong."""
        self.at_s += seconds


class SkewedClock:
    """Another machine's view of ``clock``: ahead by ``offset_s``, and faster by the factor ``rate``."""

    def __init__(self, clock: ManualClock, *, offset_s: float = 0.0, rate: float = 1.0) -> None:
        self._clock = clock
        self._began_s = clock()
        self.offset_s = offset_s
        self.rate = rate

    def __call__(self) -> float:
        return self._began_s + (self._clock() - self._began_s) * self.rate + self.offset_s
