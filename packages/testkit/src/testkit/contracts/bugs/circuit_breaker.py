"""Circuit breakers with a known bug."""

from __future__ import annotations

from dataclasses import replace

from testkit.contracts.circuit_breaker import CircuitBreakerContract, State, Terms
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.circuit_breaker import MemoryBreaker, MemoryBreakerHarness

Contract = CircuitBreakerContract
BUGS = PlantedBugs(Contract, MemoryBreakerHarness)


@BUGS.caught_by(Contract.test_opens_at_the_threshold_and_allows_no_call)
class OpensOneLate(MemoryBreaker):
    def __init__(self, terms: Terms) -> None:
        super().__init__(replace(terms, failures=terms.failures + 1))


@BUGS.caught_by(Contract.test_failures_below_the_threshold_leave_it_closed)
class OpensOneEarly(MemoryBreaker):
    def __init__(self, terms: Terms) -> None:
        super().__init__(replace(terms, failures=max(1, terms.failures - 1)))


@BUGS.caught_by(Contract.test_success_ends_a_row_of_failures)
class CountsFailuresThatAreNotInARow(MemoryBreaker):
    def succeeded(self, now_s: float) -> None:
        if self.state(now_s) is not State.CLOSED:
            super().succeeded(now_s)


@BUGS.caught_by(Contract.test_old_failures_do_not_count)
class ForgetsNoFailure(MemoryBreaker):
    def counts(self, failure_s: float, now_s: float) -> bool:
        return True


@BUGS.caught_by(Contract.test_opens_at_the_threshold_and_allows_no_call)
class AllowsCallsWhileOpen(MemoryBreaker):
    def allows(self, now_s: float) -> bool:
        return self.state(now_s) is State.OPEN or super().allows(now_s)


@BUGS.caught_by(Contract.test_stays_open_until_the_time_is_up, Contract.test_time_alone_makes_it_half_open)
class StaysOpenForEver(MemoryBreaker):
    def state(self, now_s: float) -> State:
        return self._state


@BUGS.caught_by(Contract.test_time_alone_makes_it_half_open)
class ClosesWhenTheTimeIsUp(MemoryBreaker):
    def state(self, now_s: float) -> State:
        if super().state(now_s) is State.HALF_OPEN:
            self._state = State.CLOSED
        return self._state


@BUGS.caught_by(Contract.test_failures_of_calls_begun_before_do_not_prolong_it)
class ProlongsWithEveryFailure(MemoryBreaker):
    def failed(self, now_s: float) -> None:
        if self.state(now_s) is State.OPEN:
            self._open(now_s)
        super().failed(now_s)


@BUGS.caught_by(Contract.test_success_of_a_call_begun_before_does_not_close_it)
class ClosesOnAnySuccess(MemoryBreaker):
    def succeeded(self, now_s: float) -> None:
        if self.state(now_s) is State.OPEN:
            self._state = State.CLOSED
        super().succeeded(now_s)


@BUGS.caught_by(Contract.test_closes_after_enough_successes)
class ClosesAfterOneSuccess(MemoryBreaker):
    def succeeded(self, now_s: float) -> None:
        if self.state(now_s) is State.HALF_OPEN:
            self._successes = self.terms.successes
        super().succeeded(now_s)


@BUGS.caught_by(Contract.test_one_failure_opens_it_again)
class ForgivesFailuresWhileHalfOpen(MemoryBreaker):
    def failed(self, now_s: float) -> None:
        if self.state(now_s) is not State.HALF_OPEN:
            super().failed(now_s)


@BUGS.caught_by(Contract.test_successes_of_an_earlier_trial_do_not_count)
class AddsUpSuccessesOfAllTrials(MemoryBreaker):
    def state(self, now_s: float) -> State:
        successes = getattr(self, "_successes", 0)
        state = super().state(now_s)
        self._successes = successes
        return state


@BUGS.caught_by(Contract.test_half_open_allows_only_as_many_calls_as_must_succeed)
class LetsEverybodyTryAtOnce(MemoryBreaker):
    def allows(self, now_s: float) -> bool:
        return self.state(now_s) is not State.OPEN


@BUGS.caught_by(Contract.test_calls_without_a_verdict_do_not_block_it_for_ever)
class WaitsForVerdictsForEver(MemoryBreaker):
    def state(self, now_s: float) -> State:
        return self._state if self._state is State.HALF_OPEN else super().state(now_s)


@BUGS.caught_by(Contract.test_closed_again_it_counts_from_zero)
class RemembersOldFailures(MemoryBreaker):
    def succeeded(self, now_s: float) -> None:
        failures = [*self._failures_s] if self.state(now_s) is State.HALF_OPEN else []
        super().succeeded(now_s)
        self._failures_s += failures


@BUGS.caught_by(Contract.test_stays_open_as_long_each_time)
class StaysOpenLongerEachTime(MemoryBreaker):
    openings = 0

    def _open(self, now_s: float) -> None:
        super()._open(now_s)
        self.openings += 1
        self._until_s = now_s + self.openings * self.terms.open_s


SUITE = Suite(
    Contract,
    "testkit.contracts.references.circuit_breaker:MemoryBreakerHarness",
    BUGS,
    mutate=(MemoryBreaker.__name__,),
    lacks={"backoff": "its open time is constant"},
)
