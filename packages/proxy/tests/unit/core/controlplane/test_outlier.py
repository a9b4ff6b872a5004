"""The circuit of one backend, on a clock of the test's own.

The original's names for these facts stand in ``docs/health.md``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeproxy.core.controlplane.outlier import MAX_OPEN_S, Circuit, CircuitSettings, CircuitStatus, State

SETTINGS = CircuitSettings()
T = 1_000.0
"""Now, when a test begins."""


def opened(settings: CircuitSettings = SETTINGS, at_s: float = T) -> Circuit:
    circuit = Circuit(settings)
    for _ in range(settings.failure_threshold):
        circuit.connect_failed(at_s)
    assert circuit.state is State.OPEN
    return circuit


def half_open(settings: CircuitSettings = SETTINGS, at_s: float = T) -> Circuit:
    circuit = opened(settings, at_s - settings.timeout_s)
    assert circuit.advance(at_s)
    assert circuit.state is State.HALF_OPEN
    return circuit


def test_the_defaults_are_those_of_the_original() -> None:
    assert CircuitSettings(failure_threshold=5, success_threshold=3, timeout_s=30, window_s=60) == SETTINGS


def test_a_new_circuit_is_closed() -> None:
    assert Circuit(SETTINGS).status(T) == CircuitStatus(State.CLOSED, 0, 0, 0, 0, 0.0)
    assert Circuit(SETTINGS).next_at_s() == float("inf")


def test_success_leaves_it_closed() -> None:
    circuit = Circuit(SETTINGS)
    assert not circuit.connected(T)
    circuit.served()
    assert circuit.state is State.CLOSED


def test_failures_are_counted() -> None:
    circuit = Circuit(SETTINGS)
    assert not any(circuit.connect_failed(T) for _ in range(4))
    assert circuit.status(T).connect_failures == 4
    assert circuit.state is State.CLOSED


@pytest.mark.feature("health.circuit")
def test_it_opens_at_the_threshold() -> None:
    circuit = Circuit(SETTINGS)
    assert [circuit.connect_failed(T) for _ in range(6)] == [False, False, False, False, True, False]
    assert circuit.status(T) == CircuitStatus(State.OPEN, 5, 0, 0, 1, 30.0)


def test_a_threshold_of_one_opens_at_once() -> None:
    assert Circuit(CircuitSettings(failure_threshold=1)).connect_failed(T)


def test_failures_beyond_the_window_do_not_count() -> None:
    circuit = Circuit(SETTINGS)
    for at_s in (T, T + 10, T + 20, T + 30):
        circuit.connect_failed(at_s)
    assert not circuit.connect_failed(T + 60.1)
    assert circuit.status(T + 60.1).connect_failures == 4
    assert circuit.connect_failed(T + 70)


def test_a_success_ends_the_row_of_failures() -> None:
    circuit = Circuit(SETTINGS)
    for _ in range(3):
        for _ in range(4):
            circuit.connect_failed(T)
        circuit.connected(T)
    assert circuit.status(T).connect_failures == 0


def test_connections_dropped_before_a_byte_open_it_though_each_was_connected() -> None:
    circuit = Circuit(SETTINGS)
    outcomes = []
    for _ in range(5):
        circuit.connected(T)
        outcomes.append(circuit.dropped(T))
    assert outcomes == [False] * 4 + [True]


def test_a_connection_that_brought_something_ends_the_row_of_drops() -> None:
    circuit = Circuit(SETTINGS)
    for _ in range(4):
        circuit.dropped(T)
    circuit.served()
    assert not circuit.dropped(T)


def test_failures_of_both_kinds_are_added_up() -> None:
    """A backend that accepts and resets at once is seen as either, as chance will have it."""
    circuit = Circuit(SETTINGS)
    assert [circuit.dropped(T), circuit.connect_failed(T), circuit.dropped(T)] == [False] * 3
    circuit.connected(T)
    status = circuit.status(T)
    assert (status.connect_failures, status.drops) == (0, 2), "the connect refutes the failed one alone"
    assert [circuit.connect_failed(T) for _ in range(3)] == [False, False, True]
    status = circuit.status(T)
    assert (status.connect_failures, status.drops) == (3, 2)


def test_it_stays_open_for_its_time() -> None:
    circuit = opened()
    assert not circuit.advance(T + 29.9)
    assert circuit.state is State.OPEN
    assert circuit.status(T + 29.5).retry_in_s == 0.5
    assert circuit.next_at_s() == T + 30


def test_what_is_heard_while_open_changes_nothing() -> None:
    circuit = opened()
    assert not circuit.connected(T)
    assert not circuit.connect_failed(T + 1)
    assert not circuit.dropped(T + 1)
    circuit.served()
    assert circuit.status(T) == CircuitStatus(State.OPEN, 5, 0, 0, 1, 30.0)


def test_the_open_time_leads_to_a_trial() -> None:
    circuit = opened()
    assert circuit.advance(T + 30)
    assert (circuit.state, circuit.trial) == (State.HALF_OPEN, 1)
    assert circuit.status(T + 30) == CircuitStatus(State.HALF_OPEN, 5, 0, 0, 1, 0.0)


def test_half_open_stays_half_open_while_nothing_is_heard() -> None:
    circuit = half_open()
    assert not circuit.advance(T)
    assert not circuit.advance(T + 29)
    assert (circuit.state, circuit.trial) == (State.HALF_OPEN, 1)


def test_a_trial_without_a_verdict_is_followed_by_another() -> None:
    circuit = half_open()
    circuit.connected(T)
    assert circuit.advance(T + 30)
    assert (circuit.state, circuit.trial) == (State.HALF_OPEN, 2)
    assert circuit.status(T + 30).successes == 0


def test_enough_successes_close_it() -> None:
    circuit = half_open()
    assert [circuit.connected(T) for _ in range(3)] == [False, False, True]
    assert circuit.state is State.CLOSED
    assert circuit.next_at_s() == float("inf")


@pytest.mark.parametrize("fail", [Circuit.connect_failed, Circuit.dropped])
def test_one_failure_opens_it_again_for_longer(fail: Callable[[Circuit, float], bool]) -> None:
    circuit = half_open()
    circuit.connected(T)
    circuit.connected(T)
    assert fail(circuit, T)
    assert circuit.status(T) == CircuitStatus(State.OPEN, 5, 0, 2, 2, 60.0)


def test_closing_forgets_the_failures() -> None:
    circuit = half_open()
    for _ in range(3):
        circuit.connected(T)
    assert circuit.status(T).connect_failures == 0
    assert not circuit.connect_failed(T)


def test_without_leave_to_open_it_stays_closed_and_is_overdue() -> None:
    circuit = Circuit(SETTINGS)
    assert not any(circuit.connect_failed(T, may_open=False) for _ in range(9))
    assert circuit.is_overdue(T)
    assert circuit.connect_failed(T, may_open=True)
    assert not circuit.is_overdue(T)


def test_half_open_needs_no_leave_to_open_again() -> None:
    assert half_open().connect_failed(T, may_open=False)


def test_a_check_that_passes_readmits() -> None:
    for circuit in (opened(at_s=T - 1), half_open()):
        assert circuit.readmit(T, T)
        assert circuit.state is State.CLOSED


def test_a_check_that_began_before_the_opening_says_nothing() -> None:
    circuit = opened()
    assert not circuit.readmit(T - 0.1, T + 1)
    assert circuit.state is State.OPEN


def test_a_check_says_nothing_new_of_a_closed_circuit() -> None:
    circuit = Circuit(SETTINGS)
    circuit.connect_failed(T)
    assert not circuit.readmit(T, T)
    assert circuit.status(T).connect_failures == 1


def open_again(circuit: Circuit, at_s: float) -> float:
    """Let it fail from closed; return for how long it is open."""
    for _ in range(5):
        circuit.connect_failed(at_s)
    return circuit.status(at_s).retry_in_s


def test_the_open_time_grows_with_each_ejection_up_to_its_limit() -> None:
    circuit, at_s, lasted = opened(), T, []
    for _ in range(14):
        lasted.append(circuit.status(at_s).retry_in_s)
        at_s = circuit.next_at_s()
        circuit.advance(at_s)
        circuit.connect_failed(at_s)
    assert lasted[:3] == [30, 60, 90]
    assert lasted[9:] == [MAX_OPEN_S] * 5


def test_good_behaviour_shrinks_the_open_time_again() -> None:
    circuit = opened()
    for _ in range(3):
        circuit.readmit(T, T)
        open_again(circuit, T)
    circuit.readmit(T, T)
    assert open_again(circuit, T + 125) == 90, "of four ejections two are forgiven"


def test_long_good_behaviour_makes_it_as_good_as_new() -> None:
    circuit = opened()
    circuit.readmit(T, T)
    assert open_again(circuit, T + 100_000) == 30


def test_at_the_limit_one_step_back_is_felt_at_once() -> None:
    circuit = opened()
    for _ in range(50):
        circuit.readmit(T, T)
        open_again(circuit, T)
    circuit.readmit(T, T)
    assert open_again(circuit, T + 2 * 60) == 270


def test_a_timeout_longer_than_the_limit_is_kept() -> None:
    settings = CircuitSettings(timeout_s=1000)
    circuit = opened(settings)
    assert circuit.status(T).retry_in_s == 1000
    circuit.readmit(T, T)
    assert open_again(circuit, T) == 1000


def test_other_settings_hold_from_the_next_failure_on() -> None:
    circuit = Circuit(SETTINGS)
    for _ in range(3):
        circuit.connect_failed(T)
    circuit.change_settings(CircuitSettings(failure_threshold=4, timeout_s=7))
    assert circuit.connect_failed(T)
    assert circuit.status(T).retry_in_s == 7


def test_a_lower_threshold_is_reached_by_the_failures_there_are_and_one_more() -> None:
    circuit = Circuit(SETTINGS)
    for _ in range(4):
        circuit.dropped(T)
    circuit.change_settings(CircuitSettings(failure_threshold=2))
    assert circuit.state is State.CLOSED
    assert circuit.dropped(T)


def test_an_open_time_under_way_is_kept() -> None:
    circuit = opened()
    circuit.change_settings(CircuitSettings(timeout_s=1))
    assert circuit.next_at_s() == T + 30


class CircuitAgainstModel(RuleBasedStateMachine):
    """Any history, compared with the rules written down once more, event by event."""

    settings = CircuitSettings(failure_threshold=3, success_threshold=2, timeout_s=10, window_s=20)

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit(self.settings)
        self.now_s = T
        self.fails: deque[float] = deque()
        self.drops: deque[float] = deque()
        self.opened_at_s = self.until_s = 0.0
        self.state, self.successes, self.trials = "closed", 0, 0

    def _prune(self) -> None:
        for times in (self.fails, self.drops):
            while times and times[0] < self.now_s - 20:
                times.popleft()

    def _fail(self, times: deque[float], may_open: bool) -> bool:
        times.append(self.now_s)
        self._prune()
        is_due = may_open and len(self.fails) + len(self.drops) >= 3
        opens = self.state == "half_open" or (self.state == "closed" and is_due)
        if opens:
            self.state, self.opened_at_s = "open", self.now_s
        return opens

    def _close(self) -> None:
        self.state, self.successes = "closed", 0
        self.fails.clear()
        self.drops.clear()

    @rule(seconds=st.sampled_from([0.0, 0.5, 7.0, 21.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        due = self.circuit.next_at_s() <= self.now_s
        assert self.circuit.advance(self.now_s) is due
        if due:
            self.state, self.successes = "half_open", 0
            self.trials += 1

    @rule(may_open=st.booleans())
    def connect_failed(self, may_open: bool) -> None:
        assert self.circuit.connect_failed(self.now_s, may_open) is self._fail(self.fails, may_open)

    @rule(may_open=st.booleans())
    def dropped(self, may_open: bool) -> None:
        assert self.circuit.dropped(self.now_s, may_open) is self._fail(self.drops, may_open)

    @rule()
    def served(self) -> None:
        self.circuit.served()
        self.fails.clear()
        self.drops.clear()

    @rule()
    def connected(self) -> None:
        self.fails.clear()
        closes = False
        if self.state == "half_open":
            self.successes += 1
            closes = self.successes == 2
        if closes:
            self._close()
        assert self.circuit.connected(self.now_s) is closes

    @precondition(lambda self: self.state != "closed")
    @rule(age_s=st.sampled_from([0.0, 50.0]))
    def check_passed(self, age_s: float) -> None:
        readmits = self.now_s - age_s >= self.opened_at_s
        assert self.circuit.readmit(self.now_s - age_s, self.now_s) is readmits
        if readmits:
            self._close()

    @invariant()
    def states_agree(self) -> None:
        assert self.circuit.state == self.state
        assert self.circuit.trial == self.trials
        assert self.circuit.status(self.now_s).successes == self.successes or self.state == "open"

    @invariant()
    def an_open_circuit_is_tried_again_within_bounds(self) -> None:
        if self.state == "open":
            retry_in_s = self.circuit.status(self.now_s).retry_in_s
            assert 0 <= retry_in_s <= MAX_OPEN_S


TestCircuitAgainstModel = CircuitAgainstModel.TestCase
