"""Outcomes come back in their order, once, and never too many."""

from __future__ import annotations

from edgeproxy.core.dataplane.outcomes import MAX_OUTCOMES, Outcome, Outcomes


def test_outcomes_of_each_backend_are_kept_in_their_order() -> None:
    outcomes = Outcomes()
    outcomes.add("a", Outcome.CONNECTED)
    outcomes.add("b", Outcome.CONNECT_FAILED)
    outcomes.add("a", Outcome.DROPPED)
    outcomes.add("a", Outcome.SERVED)
    assert outcomes.take() == {"a": "cds", "b": "f"}


def test_what_was_taken_does_not_come_again() -> None:
    outcomes = Outcomes()
    outcomes.add("a", Outcome.SERVED)
    outcomes.take()
    assert outcomes.take() == {}


def test_only_the_last_outcomes_of_a_backend_are_kept() -> None:
    outcomes = Outcomes()
    for _ in range(1_000):
        outcomes.add("a", Outcome.CONNECTED)
    outcomes.add("a", Outcome.CONNECT_FAILED)
    assert outcomes.take() == {"a": "c" * (MAX_OUTCOMES - 1) + "f"}


def test_each_outcome_is_one_letter_of_its_own() -> None:
    assert sorted(map(len, Outcome)) == [1] * len(Outcome)
