"""A judge that remembers the last results."""

from __future__ import annotations

from collections import deque

from testkit.contracts.health_thresholds import Status


class MemoryJudge:
    """Looks back as far as it must."""

    def __init__(self, rise: int, fall: int) -> None:
        self.rise = rise
        self.fall = fall
        self.status = Status.UNKNOWN
        self.results: deque[bool] = deque(maxlen=max(rise, fall))

    def checked(self, is_good: bool) -> bool:
        self.results.append(is_good)
        status = Status.HEALTHY if is_good else Status.UNHEALTHY
        if status is self.status or not self.is_enough(is_good):
            return False
        self.status = status
        return True

    def is_enough(self, is_good: bool) -> bool:
        """Whether the last results are all like this one."""
        wanted = self.rise if is_good else self.fall
        last = [*self.results][-wanted:]
        return len(last) == wanted and all(each is is_good for each in last)


class MemoryJudges:
    """Judges in memory, or of a class made from them."""

    def __init__(self, kind: type[MemoryJudge] = MemoryJudge) -> None:
        self._kind = kind

    def open(self, rise: int, fall: int) -> MemoryJudge:
        return self._kind(rise, fall)
