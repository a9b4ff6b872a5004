"""A circuit breaker that knows nothing but its terms and the times it is told."""

from __future__ import annotations

from testkit.contracts.circuit_breaker import State, Terms


class MemoryBreaker:
    """Half-open it hands out as many permits as must succeed, and anew after another open time."""

    # These have no value before it has opened.
    _until_s: float
    """When it becomes half-open, or gives out permits anew."""
    _permits: int
    _successes: int

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._state = State.CLOSED
        self._failures_s: list[float] = []

    def allows(self, now_s: float) -> bool:
        match self.state(now_s):
            case State.CLOSED:
                return True
            case State.OPEN:
                return False
        if self._permits == 0:
            return False
        self._permits -= 1
        return True

    def succeeded(self, now_s: float) -> None:
        match self.state(now_s):
            case State.CLOSED:
                self._failures_s.clear()
            case State.HALF_OPEN:
                self._successes += 1
                if self._successes >= self.terms.successes:
                    self._state = State.CLOSED
                    self._failures_s.clear()

    def failed(self, now_s: float) -> None:
        match self.state(now_s):
            case State.CLOSED:
                self._failures_s = [each for each in self._failures_s if self.counts(each, now_s)]
                self._failures_s.append(now_s)
                if len(self._failures_s) >= self.terms.failures:
                    self._open(now_s)
            case State.HALF_OPEN:
                self._open(now_s)

    def state(self, now_s: float) -> State:
        if self._state is not State.CLOSED and now_s >= self._until_s:
            self._state = State.HALF_OPEN
            self._permits = self.terms.successes
            self._successes = 0
            self._until_s = now_s + self.terms.open_s
        return self._state

    def counts(self, failure_s: float, now_s: float) -> bool:
        """Whether a failure at ``failure_s`` still counts."""
        return now_s - failure_s <= self.terms.window_s

    def _open(self, now_s: float) -> None:
        self._state = State.OPEN
        self._until_s = now_s + self.terms.open_s


class MemoryBreakerHarness:
    """Breakers in memory, or of a class made from them."""

    def __init__(self, kind: type[MemoryBreaker] = MemoryBreaker) -> None:
        self._kind = kind

    def open(self, terms: Terms) -> MemoryBreaker:
        return self._kind(terms)
