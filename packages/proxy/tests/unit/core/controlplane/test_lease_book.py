from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeproxy.core.controlplane.lease_book import Due, LeaseBook
from edgeproxy.core.controlplane.leases import (
    AlreadyUnhealthy,
    Ended,
    HeardElsewhere,
    adjustment,
    deregistration,
    heartbeat,
    registration,
)
from edgeproxy.core.geography import Geography
from edgeproxy.ports import Lease, LeaseWrite, Row

TTL_S = 60.0
GEOGRAPHY = Geography.built_in()
LEASE = Lease("b", "pop", registered_at_s=1000.0, heartbeat_at_s=1000.0, expired=False)
NEEDED = {"app": "web", "region": "eu", "country": None, "wg_ip": "10.0.0.7", "port": 9001}


def book_with(*leases: Lease, now_s: float = 0.0) -> LeaseBook:
    book = LeaseBook(TTL_S, "pop")
    for lease in leases:
        book.put(lease, now_s)
    return book


def only(due: list[Due]) -> Due:
    (found,) = due
    return found


OF_ANOTHER = msgspec.structs.replace(LEASE, owner="other")


@pytest.mark.feature("replication.leases")
def test_lease_of_a_pop_that_is_there_never_runs_out_here() -> None:
    there = {"other"}
    book = LeaseBook(TTL_S, "pop", there.__contains__)
    book.put(OF_ANOTHER, 0.0)
    assert book.due(100 * TTL_S, 0.0) == []
    there.clear()
    gone_s = 100 * TTL_S
    assert book.due(gone_s + TTL_S, 0.0) == [], "it counts from when the POP was there last"
    expiry = only(book.due(gone_s + TTL_S + 1, 0.0))
    assert isinstance(expiry.operation({"b": {"id": "b", "healthy": 1}}, OF_ANOTHER), LeaseWrite)


@pytest.mark.feature("replication.leases")
def test_first_heartbeat_of_a_lease_of_another_goes_through_the_store() -> None:
    book = LeaseBook(TTL_S, "pop", lambda _owner: True)
    book.put(OF_ANOTHER, 0.0)
    assert not book.beat("b", 5.0)
    book.put(LEASE, 5.0)
    assert book.beat("b", 6.0)


@pytest.mark.feature("replication.leases")
def test_lease_that_another_took_over_is_left_to_it_unless_something_was_heard_since() -> None:
    book = LeaseBook(TTL_S, "pop", lambda owner: owner == "other")
    book.put(LEASE, 0.0)
    book.beat("b", 5.0)
    book.replace([OF_ANOTHER], 6.0)
    assert len(book.due(7.0, 2000.0)) == 1, "a renewal, which takes it back"
    book.put(LEASE, 10.0)
    book.replace([OF_ANOTHER], 11.0)
    assert book.due(100 * TTL_S, 0.0) == []


@pytest.mark.feature("replication.leases")
def test_owner_of_a_lease_that_expired_elsewhere_does_not_expire_it_again() -> None:
    book = LeaseBook(TTL_S, "pop")
    book.put(OF_ANOTHER, 0.0)
    book.replace([msgspec.structs.replace(OF_ANOTHER, expired=True)], 1.0)
    assert book.due(TTL_S + 2.0, 0.0) == []


def test_fresh_lease_has_nothing_due() -> None:
    assert book_with(LEASE).due(TTL_S, 2000.0) == []


def test_heartbeat_is_due_to_be_stored_at_the_wall_time_at_which_it_came() -> None:
    book = book_with(LEASE)
    assert book.beat("b", 5.0)
    due = only(book.due(8.0, 2000.0))
    decision = due.operation({"b": {"id": "b", "healthy": 1}}, LEASE)
    assert isinstance(decision, LeaseWrite)
    assert decision.lease == msgspec.structs.replace(LEASE, heartbeat_at_s=1997.0)
    book.take(due, decision, 8.0)
    assert book.due(8.0, 2000.0) == []


def test_stored_heartbeat_is_what_the_expiry_knows_of() -> None:
    book = book_with(LEASE)
    book.beat("b", 5.0)
    renewed = msgspec.structs.replace(LEASE, heartbeat_at_s=1005.0)
    book.take(only(book.due(5.0, 1005.0)), LeaseWrite("b", None, renewed), 5.0)
    expiry = only(book.due(6.0 + TTL_S, 0.0))
    assert isinstance(expiry.operation({"b": {"id": "b", "healthy": 1}}, renewed), LeaseWrite)


def test_heartbeat_that_comes_while_an_older_one_is_stored_stays_due() -> None:
    book = book_with(LEASE)
    book.beat("b", 5.0)
    due = only(book.due(5.0, 1005.0))
    book.beat("b", 6.0)
    book.take(due, LeaseWrite("b", None, msgspec.structs.replace(LEASE, heartbeat_at_s=1005.0)), 6.0)
    assert len(book.due(6.0, 1006.0)) == 1


def test_unknown_backend_is_for_the_store_to_know() -> None:
    assert not book_with().beat("b", 0.0)


def test_lease_runs_out_after_the_ttl_and_stays_due_until_it_is_written() -> None:
    book = book_with(LEASE)
    assert book.due(TTL_S, 0.0) == []
    assert len(book.due(TTL_S + 0.1, 0.0)) == 1
    due = only(book.due(TTL_S + 0.2, 0.0))
    book.take(due, LeaseWrite("b", None, msgspec.structs.replace(LEASE, expired=True)), TTL_S)
    assert book.due(TTL_S + 1, 0.0) == []
    assert not book.beat("b", TTL_S + 2)


def test_backend_that_was_out_already_is_left_alone_until_it_is_removed() -> None:
    book = book_with(LEASE)
    book.take(only(book.due(TTL_S + 1, 0.0)), AlreadyUnhealthy(), TTL_S + 1)
    assert book.due(3 * TTL_S, 0.0) == []
    removal = only(book.due(3 * TTL_S + 1, 0.0))
    book.take(removal, LeaseWrite("b", None, None), 3 * TTL_S + 1)
    assert len(book) == 0


def test_heartbeat_during_the_expiry_is_for_the_store_to_take() -> None:
    book = book_with(LEASE)
    assert book.beat("b", TTL_S)
    assert not book.beat("b", 2 * TTL_S + 0.1)


def test_lease_that_was_heard_elsewhere_counts_from_now() -> None:
    book = book_with(LEASE)
    book.take(only(book.due(TTL_S + 1, 0.0)), HeardElsewhere(LEASE), TTL_S + 1)
    assert book.due(2 * TTL_S, 0.0) == []
    assert len(book.due(2 * TTL_S + 2, 0.0)) == 1


def test_lease_that_ended_is_forgotten() -> None:
    book = book_with(LEASE)
    book.take(only(book.due(TTL_S + 1, 0.0)), Ended(), TTL_S + 1)
    assert book.get("b") is None


def test_outcome_for_a_lease_that_was_dropped_meanwhile_is_ignored() -> None:
    book = book_with(LEASE)
    due = only(book.due(TTL_S + 1, 0.0))
    book.drop("b")
    book.drop("b")
    book.take(due, LeaseWrite("b", None, LEASE), TTL_S + 1)
    assert list(book.held()) == []


def test_leases_found_in_the_store_count_from_now_and_known_ones_go_on() -> None:
    other = msgspec.structs.replace(LEASE, id="other")
    gone = msgspec.structs.replace(LEASE, id="gone")
    book = book_with(LEASE, gone)
    book.replace([LEASE, other], now_s=50.0)
    assert {held.id: held.heard_s for held in book.held()} == {"b": 0.0, "other": 50.0}


def test_expired_lease_of_a_former_run_is_not_renewed_by_a_restart() -> None:
    book = book_with()
    book.replace([msgspec.structs.replace(LEASE, expired=True)], now_s=50.0)
    assert book.due(50.0 + 3 * TTL_S, 0.0) == []
    assert len(book.due(51.0 + 3 * TTL_S, 0.0)) == 1


def test_lease_is_current_up_to_the_ttl() -> None:
    book = book_with(LEASE)
    held = book.get("b")
    assert held is not None
    assert book.is_current(held, TTL_S)
    assert not book.is_current(held, TTL_S + 0.1)


class LeaseLife(RuleBasedStateMachine):
    """One backend, its row and its lease, under a clock that jumps; the store is two variables.

    The sweep runs at whole seconds, so a lease must be seen to have run out a second after it has.
    """

    SWEEP_S = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.wall_s = 1_000_000.0
        self.book = LeaseBook(TTL_S, "pop")
        self.row: dict[str, Any] = {}
        self.lease: Lease | None = None
        self.heard_s: float | None = None
        """When the backend was heard last, ``None`` while it is not registered."""
        self.registered_at_s = 0.0
        self.operators_word: bool | None = None
        """What the operator said last about health, ``None`` if nothing since the first registration."""
        self.waits_for_a_heartbeat = False
        """Whether it is still unhealthy because a former process heard nothing."""

    # ---- the store

    def table(self) -> dict[str, Row]:
        return {"b": self.row} if self.row else {}

    def store(self, decision: object) -> None:
        if not isinstance(decision, LeaseWrite):
            return
        if decision.row is not None:
            self.row = {**self.row, "id": "b", **decision.row.values}
        self.lease = decision.lease

    def ask(self, operation: Callable[..., object]) -> object:
        decision = operation(self.table(), self.lease)
        self.store(decision)
        return decision

    def sweep(self) -> None:
        for due in self.book.due(self.now_s, self.wall_s):
            decision = due.operation(self.table(), self.lease)
            self.store(decision)
            self.book.take(due, decision, self.now_s)
        if self.heard_s is not None and self.now_s - self.heard_s > 3 * TTL_S:
            self.heard_s = None

    def heard(self) -> None:
        self.heard_s = self.now_s
        self.waits_for_a_heartbeat = False

    # ---- what happens

    @initialize()
    def begin(self) -> None:
        self.register()

    @rule()
    def register(self) -> None:
        is_first = self.heard_s is None
        decision = self.ask(
            registration(GEOGRAPHY, "b", NEEDED, at_s=self.wall_s, owner="pop", only_app=None)
        )
        assert isinstance(decision, LeaseWrite)
        assert decision.lease is not None
        self.book.put(decision.lease, self.now_s)
        if is_first:
            self.registered_at_s = self.wall_s
            self.operators_word = None
        self.heard()

    @rule()
    def beat(self) -> None:
        is_known = self.book.beat("b", self.now_s)
        if not is_known:
            decision = self.ask(heartbeat("b", at_s=self.wall_s, owner="pop", only_app=None))
            if isinstance(decision, LeaseWrite):
                assert decision.lease is not None
                self.book.put(decision.lease, self.now_s)
                is_known = True
        assert is_known == (self.heard_s is not None)
        if is_known:
            self.heard()

    @precondition(lambda self: self.heard_s is not None)
    @rule(healthy=st.booleans())
    def operate(self, healthy: bool) -> None:
        assert isinstance(self.ask(adjustment(GEOGRAPHY, "b", {"healthy": healthy})), LeaseWrite)
        self.operators_word = healthy
        self.waits_for_a_heartbeat = False

    @precondition(lambda self: self.heard_s is not None)
    @rule()
    def deregister(self) -> None:
        assert isinstance(self.ask(deregistration("b", only_app=None)), LeaseWrite)
        self.book.drop("b")
        self.heard_s = None

    @rule(intervals=st.integers(1, 4))
    def live_for_a_while(self, intervals: int) -> None:
        for _ in range(intervals):
            self.time_passes(20)
            self.beat()

    @rule(seconds=st.sampled_from([1, 59, 60, 61, 119, 181]))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += self.SWEEP_S
            self.wall_s += self.SWEEP_S
            self.sweep()
            self.judge()

    @rule(step_s=st.sampled_from([-86_400.0, -1.0, 3_600.0]))
    def wall_clock_is_set(self, step_s: float) -> None:
        self.wall_s += step_s

    @rule()
    def restart(self) -> None:
        """A new process: nothing is left but the store, and the clock of the new process is another."""
        for due in self.book.due(self.now_s, self.wall_s):
            self.store(due.operation(self.table(), self.lease))
        self.now_s += 1_000.0
        self.book = LeaseBook(TTL_S, "pop")
        stored = [self.lease] if self.lease is not None and not self.row["deleted"] else []
        self.book.replace(stored, self.now_s)
        if self.heard_s is not None:
            self.heard_s = self.now_s
            assert self.lease is not None
            self.waits_for_a_heartbeat = self.lease.expired

    # ---- what must hold

    @invariant()
    def judge(self) -> None:
        if self.heard_s is None:
            assert not self.row or self.row["deleted"] == 1
            assert self.lease is None
            return
        assert self.row["deleted"] == 0
        assert self.lease is not None
        assert self.lease.registered_at_s == self.registered_at_s
        silent_s = self.now_s - self.heard_s
        if self.operators_word is False:
            assert self.row["healthy"] == 0
        elif silent_s > TTL_S:
            assert self.row["healthy"] == 0 or self.operators_word
        else:
            assert self.row["healthy"] == (0 if self.waits_for_a_heartbeat else 1)


LeaseLife.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
test_life_of_a_lease = LeaseLife.TestCase
