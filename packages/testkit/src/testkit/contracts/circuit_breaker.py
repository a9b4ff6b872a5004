"""What every circuit breaker must do: closed while calls succeed, open when they fail, half-open to find out.

Time is an argument, so a harness needs no clock. Breakers that hold one are given what reads the argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from testkit.contracts.contract import Contract, needs, since

T = 1_000.0
"""Now, when a test begins; in seconds."""


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Terms:
    """When a breaker changes its state."""

    failures: int = 3
    """In a row, that open it."""
    successes: int = 2
    """While half-open, that close it."""
    open_s: float = 30.0
    """How long it is open, the first time."""
    window_s: float = 600.0
    """Failures that are older count no more."""


class Breaker(Protocol):
    """The breaker under test. Times never run backwards."""

    def allows(self, now_s: float) -> bool:
        """Whether a call may begin now. Who is told so makes it, and reports how it went."""
        ...

    def succeeded(self, now_s: float) -> None: ...

    def failed(self, now_s: float) -> None: ...

    def state(self, now_s: float) -> State: ...


class CircuitBreakerHarness(Protocol):
    """What a test must know of an implementation."""

    def open(self, terms: Terms) -> Breaker:
        """A new breaker."""
        ...


class CircuitBreakerContract(
    Contract,
    contract="circuit_breaker",
    capabilities={
        "trials": "while half-open it allows only as many calls as must succeed",
        "window": "old failures count no more",
        "backoff": "it stays open longer each time, up to a bound of its own",
        "constant": "it stays open as long each time",
    },
):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    # ---- closed ------------------------------------------------------------------------------------

    def test_new_breaker_is_closed_and_allows_calls(self, harness: CircuitBreakerHarness) -> None:
        breaker = harness.open(Terms())
        assert breaker.state(T) is State.CLOSED
        assert all(breaker.allows(T) for _ in range(10))

    def test_successes_leave_it_closed(self, harness: CircuitBreakerHarness) -> None:
        breaker = harness.open(Terms())
        for second in range(10):
            call(breaker, T + second, breaker.succeeded)
        assert breaker.state(T + 10) is State.CLOSED

    def test_failures_below_the_threshold_leave_it_closed(self, harness: CircuitBreakerHarness) -> None:
        breaker = harness.open(Terms(failures=3))
        for _ in range(2):
            call(breaker, T, breaker.failed)
        assert breaker.state(T) is State.CLOSED
        assert breaker.allows(T)

    def test_success_ends_a_row_of_failures(self, harness: CircuitBreakerHarness) -> None:
        breaker = harness.open(Terms(failures=3))
        for _ in range(5):
            for _ in range(2):
                call(breaker, T, breaker.failed)
            call(breaker, T, breaker.succeeded)
        assert breaker.state(T) is State.CLOSED

    @needs("window")
    def test_old_failures_do_not_count(self, harness: CircuitBreakerHarness) -> None:
        breaker = harness.open(Terms(failures=3, window_s=60.0))
        for at_s in (T, T + 30.0, T + 61.0):
            call(breaker, at_s, breaker.failed)
        assert breaker.state(T + 61.0) is State.CLOSED
        call(breaker, T + 62.0, breaker.failed)
        assert breaker.state(T + 62.0) is State.OPEN

    # ---- open --------------------------------------------------------------------------------------

    def test_opens_at_the_threshold_and_allows_no_call(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(failures=3))
        assert breaker.state(T) is State.OPEN
        assert not breaker.allows(T)

    def test_threshold_of_one_opens_at_once(self, harness: CircuitBreakerHarness) -> None:
        breaker = harness.open(Terms(failures=1))
        call(breaker, T, breaker.failed)
        assert breaker.state(T) is State.OPEN

    def test_stays_open_until_the_time_is_up(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(open_s=30.0))
        assert not breaker.allows(T + 29.9)
        assert breaker.state(T + 29.9) is State.OPEN
        assert breaker.allows(T + 30.0)

    def test_time_alone_makes_it_half_open(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(open_s=30.0))
        assert breaker.state(T + 30.0) is State.HALF_OPEN

    def test_failures_of_calls_begun_before_do_not_prolong_it(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(open_s=30.0))
        for second in range(1, 29):
            breaker.failed(T + second)
        assert breaker.allows(T + 30.0)

    def test_success_of_a_call_begun_before_does_not_close_it(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(successes=1))
        for _ in range(5):
            breaker.succeeded(T + 1.0)
        assert breaker.state(T + 1.0) is State.OPEN

    # ---- half-open ---------------------------------------------------------------------------------

    def test_closes_after_enough_successes(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(successes=2))
        call(breaker, T + 30.0, breaker.succeeded)
        assert breaker.state(T + 30.0) is State.HALF_OPEN
        call(breaker, T + 31.0, breaker.succeeded)
        assert breaker.state(T + 31.0) is State.CLOSED
        assert breaker.allows(T + 31.0)

    def test_one_failure_opens_it_again(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(successes=3))
        call(breaker, T + 30.0, breaker.succeeded)
        call(breaker, T + 31.0, breaker.failed)
        assert breaker.state(T + 31.0) is State.OPEN
        assert not breaker.allows(T + 31.0 + 29.9)

    def test_successes_of_an_earlier_trial_do_not_count(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(successes=2))
        call(breaker, T + 30.0, breaker.succeeded)
        call(breaker, T + 30.0, breaker.failed)
        call(breaker, T + 500.0, breaker.succeeded)
        assert breaker.state(T + 500.0) is State.HALF_OPEN

    @needs("trials")
    def test_half_open_allows_only_as_many_calls_as_must_succeed(
        self, harness: CircuitBreakerHarness
    ) -> None:
        breaker = opened(harness, Terms(successes=2))
        assert [breaker.allows(T + 30.0) for _ in range(4)] == [True, True, False, False]

    @since(2)
    @needs("trials")
    def test_calls_without_a_verdict_do_not_block_it_for_ever(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(successes=2, open_s=30.0))
        assert [breaker.allows(T + 30.0) for _ in range(3)] == [True, True, False]
        assert breaker.allows(T + 60.0), "those who were let through have not come back"

    # ---- closed again ------------------------------------------------------------------------------

    def test_closed_again_it_counts_from_zero(self, harness: CircuitBreakerHarness) -> None:
        breaker = closed_again(harness, Terms(failures=3, successes=1))
        for _ in range(2):
            call(breaker, T + 31.0, breaker.failed)
        assert breaker.state(T + 31.0) is State.CLOSED
        call(breaker, T + 31.0, breaker.failed)
        assert breaker.state(T + 31.0) is State.OPEN

    @needs("constant")
    def test_stays_open_as_long_each_time(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(open_s=30.0))
        call(breaker, T + 30.0, breaker.failed)
        assert not breaker.allows(T + 59.9)
        assert breaker.allows(T + 60.0)

    @needs("backoff")
    def test_stays_open_longer_each_time_up_to_a_bound(self, harness: CircuitBreakerHarness) -> None:
        breaker = opened(harness, Terms(open_s=30.0))
        now_s, lengths = T, []
        for _ in range(50):
            began_s = now_s
            while not breaker.allows(now_s):
                now_s += 10.0
                assert now_s < began_s + 3_600.0, "it must open some day"
            lengths.append(now_s - began_s)
            breaker.failed(now_s)
        assert lengths[0] == 30.0
        assert lengths == sorted(lengths)
        assert lengths[0] < lengths[-1] == lengths[-2]


def call(breaker: Breaker, now_s: float, outcome: Callable[[float], None]) -> None:
    """A call that is allowed and ends at once."""
    assert breaker.allows(now_s)
    outcome(now_s)


def opened(harness: CircuitBreakerHarness, terms: Terms) -> Breaker:
    """A breaker that has just opened for the first time."""
    breaker = harness.open(terms)
    for _ in range(terms.failures):
        call(breaker, T, breaker.failed)
    return breaker


def closed_again(harness: CircuitBreakerHarness, terms: Terms) -> Breaker:
    """A breaker that was open and has closed at ``T + 30``."""
    breaker = opened(harness, terms)
    for _ in range(terms.successes):
        call(breaker, T + 30.0, breaker.succeeded)
    return breaker
