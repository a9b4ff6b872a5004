"""Token buckets in a dictionary."""

from __future__ import annotations

_ROUNDING = 1e-9


class MemoryLimiter:
    """A bucket is what it held, and when."""

    def __init__(self, burst: float, per_s: float) -> None:
        self.burst = burst
        self.per_s = per_s
        self.buckets: dict[str, tuple[float, float]] = {}

    def take(self, client: str, now_s: float, cost: float = 1.0) -> bool:
        level = self.remaining(client, now_s)
        if level + _ROUNDING < cost:
            return False
        self.buckets[client] = level - cost, now_s
        return True

    def remaining(self, client: str, now_s: float) -> float:
        level, at_s = self.buckets.get(client, (self.burst, now_s))
        return min(self.burst, level + (now_s - at_s) * self.per_s)

    def clear(self, client: str) -> None:
        self.buckets.pop(client, None)


class MemoryLimiters:
    """Limiters in memory, or of a class made from them."""

    def __init__(self, kind: type[MemoryLimiter] = MemoryLimiter) -> None:
        self._kind = kind

    def open(self, burst: float, per_s: float) -> MemoryLimiter:
        return self._kind(burst, per_s)
