"""The contract of circuit breakers, held by the reference and by pybreaker, with its clock in our hands."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace

import pybreaker
import pytest

from testkit.clocks import ManualClock
from testkit.contracts.circuit_breaker import CircuitBreakerContract, State, Terms
from testkit.contracts.references.circuit_breaker import MemoryBreakerHarness

STATES = {
    pybreaker.STATE_CLOSED: State.CLOSED,
    pybreaker.STATE_OPEN: State.OPEN,
    pybreaker.STATE_HALF_OPEN: State.HALF_OPEN,
}


class TestReference(CircuitBreakerContract, level=2, lacks={"backoff": "its open time is constant"}):
    @pytest.fixture
    def harness(self) -> MemoryBreakerHarness:
        return MemoryBreakerHarness()


class Pybreaker:
    """pybreaker sees that its time is up when it is called, and may not be asked before; so this looks."""

    def __init__(self, terms: Terms, clock: ManualClock) -> None:
        self._clock = clock
        self._open = timedelta(seconds=terms.open_s)
        self._kept = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        self._breaker = pybreaker.CircuitBreaker(
            terms.failures, terms.open_s, terms.successes, state_storage=self._kept
        )

    def allows(self, now_s: float) -> bool:
        return self.state(now_s) is not State.OPEN

    def succeeded(self, now_s: float) -> None:
        self._clock.at_s = now_s
        with suppress(pybreaker.CircuitBreakerError):
            self._breaker.call(lambda: None)

    def failed(self, now_s: float) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        self._clock.at_s = now_s
        with suppress(pybreaker.CircuitBreakerError, ZeroDivisionError):
            self._breaker.call(fail)

    def state(self, now_s: float) -> State:
        self._clock.at_s = now_s
        opened_at = self._kept.opened_at
        if self._kept.state == pybreaker.STATE_OPEN and opened_at is not None:
            return State.OPEN if self._clock.now() < opened_at + self._open else State.HALF_OPEN
        return STATES[self._kept.state]


class PybreakerHarness:
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def open(self, terms: Terms) -> Pybreaker:
        return Pybreaker(terms, self._clock)


class TestPybreaker(
    CircuitBreakerContract,
    level=2,
    lacks={
        "trials": "it lets all calls through while it is half-open",
        "window": "failures in a row count, however old they are",
        "backoff": "its open time is constant",
    },
):
    @pytest.fixture
    def harness(self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> PybreakerHarness:
        monkeypatch.setattr(pybreaker, "datetime", SimpleNamespace(now=lambda _zone: clock.now()))
        return PybreakerHarness(clock)
