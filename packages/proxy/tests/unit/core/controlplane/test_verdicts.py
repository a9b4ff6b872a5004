"""What checks and connections come to: one verdict on each backend, and never too many of a pool ejected."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeproxy.core.controlplane.events import Event, Priority
from edgeproxy.core.controlplane.health import HealthSettings, Status
from edgeproxy.core.controlplane.outlier import CircuitSettings, State
from edgeproxy.core.controlplane.routing_table import RoutingTable
from edgeproxy.core.controlplane.verdicts import Verdicts, VerdictSettings
from edgeproxy.core.geography import Geography
from edgeproxy.core.model import GOOD, Verdict

T = 1_000.0
"""Now, when a test begins."""
OUT = Verdict(is_good=False)
REFUSED = "connection refused"

CHECKS = HealthSettings(healthy_threshold=1, unhealthy_threshold=1)
CIRCUITS = CircuitSettings(failure_threshold=2, success_threshold=3, timeout_s=30)
BOTH = VerdictSettings(CHECKS, CIRCUITS, slow_start_s=20)
NO_SLOW_START = VerdictSettings(CHECKS, CIRCUITS, slow_start_s=0)


def row(backend_id: str, **values: object) -> dict[str, object]:
    place: dict[str, object] = {
        "id": backend_id,
        "app": "shop",
        "region": "eu",
        "wg_ip": "192.0.2.1",
        "port": 80,
    }
    return place | {"healthy": 1, "weight": 1, "soft_limit": 100, "hard_limit": 0} | values


class Pop:
    """A routing table and the verdicts on it, applied to the table after each step."""

    def __init__(
        self, settings: VerdictSettings = NO_SLOW_START, rows: int = 3, *, all_are_a_pool: bool = False
    ) -> None:
        self.table = RoutingTable(Geography.built_in())
        self.verdicts = Verdicts(settings, all_are_a_pool=all_are_a_pool)
        self.events: list[Event] = []
        self.load(*(row(f"b{number}") for number in range(rows)))
        self.events.clear()

    def load(self, *rows: dict[str, object]) -> None:
        self.verdicts.follow(self.table.replace(rows))
        self.publish()

    def publish(self) -> None:
        self.table.judge(self.verdicts.take_changed(10_000))
        self.events += self.verdicts.take_events()

    def check(self, backend_id: str, why: str | None, at_s: float = T) -> None:
        self.verdicts.checked(backend_id, why, began_s=at_s, now_s=at_s)
        self.publish()

    def went(self, backend_id: str, outcomes: str, at_s: float = T) -> None:
        self.verdicts.went(backend_id, outcomes, at_s)
        self.publish()

    def advance(self, at_s: float) -> None:
        self.verdicts.advance(at_s)
        self.publish()

    def of(self, backend_id: str) -> Verdict:
        placed = self.table.get(backend_id)
        assert placed is not None
        return placed.verdict

    def told(self) -> list[str]:
        told = [event.name for event in self.events]
        self.events.clear()
        return told


# ---- checks --------------------------------------------------------------------------------------


def test_a_backend_of_which_nothing_is_known_is_good() -> None:
    pop = Pop()
    assert pop.of("b0") == GOOD
    assert pop.verdicts.why("b0", T) == ""
    assert not pop.verdicts.has_changes


def test_a_backend_that_fails_its_checks_is_left_out() -> None:
    pop = Pop()
    pop.check("b0", REFUSED)
    assert pop.of("b0") == OUT
    assert pop.of("b1") == GOOD
    assert pop.verdicts.why("b0", T) == "failing its checks: connection refused"
    (event,) = pop.events
    assert (event.name, event.level) == ("a backend fails its checks", "warning")
    assert event.fields == {"backend": "b0", "app": "shop", "why": REFUSED}


def test_a_backend_that_passes_again_is_taken_back() -> None:
    pop = Pop()
    pop.check("b0", REFUSED)
    pop.check("b0", None)
    assert pop.of("b0") == GOOD
    assert pop.told() == ["a backend fails its checks", "a backend passes its checks again"]


def test_that_a_new_backend_passes_is_no_news() -> None:
    pop = Pop()
    pop.check("b0", None)
    assert pop.told() == []


def test_who_is_checked_when_depends_on_its_checks() -> None:
    pop = Pop()
    assert pop.verdicts.next_check_s("b0", draw=1.0) == CHECKS.fast_interval_s
    pop.check("b0", None)
    assert pop.verdicts.next_check_s("b0", draw=1.0) == CHECKS.interval_s
    assert pop.verdicts.next_check_s("unknown", draw=1.0) is None


def test_what_is_switched_off_is_not_looked_at() -> None:
    pop = Pop(VerdictSettings())
    pop.check("b0", REFUSED)
    pop.went("b0", "f" * 99)
    pop.advance(T + 1e6)
    assert pop.of("b0") == GOOD
    assert pop.verdicts.next_check_s("b0", draw=0.0) is None
    assert pop.verdicts.trial_connections == 0
    assert pop.verdicts.next_at_s() == inf
    (status, *_) = pop.verdicts.statuses(T).values()
    assert (status.check, status.circuit) == (None, None)


def test_news_of_unknown_backends_are_ignored() -> None:
    pop = Pop()
    pop.check("unknown", REFUSED)
    pop.went("unknown", "ff")
    assert pop.told() == []
    assert pop.verdicts.why("unknown", T) == ""


# ---- circuits ------------------------------------------------------------------------------------


def test_a_backend_that_fails_its_clients_is_ejected() -> None:
    pop = Pop()
    pop.went("b0", "cscsff")
    assert pop.of("b0") == OUT
    assert pop.verdicts.why("b0", T + 17.5) == "ejected for 13 s more: 2 failed connects"
    (event,) = pop.events
    assert (event.name, event.level) == ("a backend is ejected", "warning")
    fields = {"backend": "b0", "app": "shop", "why": "2 failed connects", "for_s": 30.0, "ejections": 1}
    assert event.fields == fields


def test_a_backend_that_drops_its_clients_is_ejected() -> None:
    pop = Pop()
    pop.went("b0", "cdcd")
    assert pop.of("b0") == OUT
    assert pop.verdicts.why("b0", T).endswith(": 2 resets before the first byte")


def test_failures_of_both_kinds_are_named() -> None:
    pop = Pop()
    pop.went("b0", "cdf")
    assert pop.verdicts.why("b0", T).endswith(": 1 failed connect, 1 reset before the first byte")


def test_a_served_connection_ends_the_row_of_drops() -> None:
    pop = Pop()
    pop.went("b0", "cdcscd")
    assert pop.of("b0") == GOOD


def test_failures_of_one_backend_never_eject_another() -> None:
    pop = Pop()
    for _ in range(100):
        pop.went("b0", "f")
    assert [pop.of(f"b{number}") for number in range(3)] == [OUT, GOOD, GOOD]


def test_after_its_time_it_is_tried_with_a_few_connections() -> None:
    pop = Pop()
    pop.went("b0", "ff")
    assert pop.verdicts.next_at_s() == T + 30
    pop.advance(T + 29.9)
    assert pop.of("b0") == OUT
    pop.advance(T + 30)
    assert pop.of("b0") == Verdict(is_good=False, trial=1)
    assert pop.verdicts.trial_connections == 3
    assert pop.verdicts.why("b0", T + 30) == "on trial with 3 connections after 2 failed connects"
    assert pop.told() == ["a backend is ejected", "a backend is on trial"]


def test_a_trial_that_succeeds_readmits() -> None:
    pop = Pop()
    pop.went("b0", "ff")
    pop.advance(T + 30)
    pop.went("b0", "cc", T + 31)
    assert not pop.of("b0").is_good
    pop.went("b0", "c", T + 31)
    assert pop.of("b0") == GOOD
    assert pop.events[-1].name == "a backend is readmitted"
    assert pop.events[-1].fields["why"] == "its trial succeeded"


def test_a_trial_that_fails_ejects_for_longer() -> None:
    pop = Pop()
    pop.went("b0", "ff")
    pop.advance(T + 30)
    pop.went("b0", "ccf", T + 31)
    assert pop.of("b0") == OUT
    assert pop.verdicts.next_at_s() == T + 31 + 60


def test_a_trial_that_nobody_came_to_is_repeated_without_a_word() -> None:
    pop = Pop()
    pop.went("b0", "ff")
    pop.advance(T + 30)
    pop.told()
    pop.advance(T + 60)
    assert pop.of("b0") == Verdict(is_good=False, trial=2)
    assert pop.told() == []


def test_a_check_that_passes_readmits_an_ejected_backend() -> None:
    pop = Pop()
    pop.went("b0", "ff")
    pop.verdicts.checked("b0", None, began_s=T - 1, now_s=T + 1)
    pop.publish()
    assert pop.of("b0") == OUT, "that check began before"
    pop.check("b0", None, T + 2)
    assert pop.of("b0") == GOOD
    assert pop.events[-1].fields["why"] == "it passed a check"


def test_a_backend_that_fails_its_checks_gets_no_trial() -> None:
    pop = Pop()
    pop.went("b0", "ff")
    pop.check("b0", REFUSED)
    pop.advance(T + 30)
    assert pop.of("b0") == OUT
    assert pop.verdicts.why("b0", T + 30) == "failing its checks: connection refused"


# ---- how many may be ejected ---------------------------------------------------------------------


def eject_all(pop: Pop, rows: int) -> int:
    for number in range(rows):
        pop.went(f"b{number}", "ff")
    return sum(pop.of(f"b{number}") == OUT for number in range(rows))


@pytest.mark.parametrize(
    ("rows", "percent", "expected"),
    [(1, 10, 1), (9, 10, 1), (19, 10, 1), (30, 10, 3), (10, 50, 5), (4, 0, 1)],
)
def test_a_share_of_a_pool_may_be_ejected_but_at_least_one(rows: int, percent: int, expected: int) -> None:
    settings = VerdictSettings(None, CIRCUITS, max_ejected_percent=percent)
    assert eject_all(Pop(settings, rows), rows) == expected


def test_who_cannot_be_spared_is_told_of_once_and_ejected_when_it_can() -> None:
    pop = Pop()
    pop.went("b0", "ff")
    pop.told()
    pop.went("b1", "ff")
    pop.went("b1", "ff")
    assert pop.told() == ["a backend keeps failing, but its pool can spare no more"]
    pop.check("b0", None, T + 1)
    pop.went("b1", "f", T + 1)
    assert pop.of("b1") == OUT


def test_pools_are_spared_each_by_itself() -> None:
    pop = Pop(rows=0)
    pop.load(row("b0", app="shop"), row("b1", app="mail"))
    assert eject_all(pop, 2) == 2


def test_a_listener_without_an_app_has_all_rows_for_a_pool() -> None:
    pop = Pop(rows=0, all_are_a_pool=True)
    pop.load(row("b0", app="shop"), row("b1", app="mail"), row("b2", app="*"))
    assert eject_all(pop, 3) == 1


def test_who_the_operator_took_out_counts_neither_way() -> None:
    pop = Pop(rows=0)
    pop.load(row("b0", healthy=0), row("b1"), row("b2"))
    assert eject_all(pop, 3) == 2, "b0 is in no pool, and so takes nobody's place"
    pop.load(row("b0"), row("b1"), row("b2"))
    pop.went("b2", "ff")
    assert pop.of("b2") == GOOD
    pop.load(row("b0", healthy=0), row("b1", healthy=0), row("b2"))
    pop.went("b2", "ff")
    assert pop.of("b2") == OUT


def test_a_removed_backend_gives_its_place_back() -> None:
    pop = Pop()
    pop.went("b0", "ff")
    pop.load(row("b1"), row("b2"))
    pop.went("b1", "ff")
    assert pop.of("b1") == OUT


# ---- slow start ----------------------------------------------------------------------------------


@pytest.mark.feature("health.slow_start")
def test_after_a_recovery_the_weight_grows_back_in_steps() -> None:
    pop = Pop(BOTH)
    pop.check("b0", REFUSED)
    pop.check("b0", None)
    factors = [pop.of("b0").weight_factor]
    assert pop.verdicts.why("b0", T) == "slow start at 10 %"
    while pop.verdicts.next_at_s() < inf:
        at_s = pop.verdicts.next_at_s()
        pop.advance(at_s)
        factor = pop.of("b0").weight_factor
        assert factor == pytest.approx((at_s - T) / 20)
        factors.append(factor)
    assert factors == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert pop.verdicts.why("b0", T + 20) == ""


def test_it_grows_back_without_circuits_too() -> None:
    pop = Pop(VerdictSettings(CHECKS, circuits=None, slow_start_s=20))
    pop.check("b0", REFUSED)
    pop.check("b0", None)
    pop.advance(T + 4)
    assert pop.of("b0").weight_factor == 0.2


def test_steps_that_were_missed_are_skipped() -> None:
    pop = Pop(BOTH)
    pop.check("b0", REFUSED)
    pop.check("b0", None)
    pop.advance(T + 13)
    assert pop.of("b0").weight_factor == 0.6
    assert pop.verdicts.next_at_s() == pytest.approx(T + 14)


def test_a_trial_that_succeeds_is_a_recovery_too() -> None:
    pop = Pop(BOTH)
    pop.went("b0", "ff")
    pop.advance(T + 30)
    pop.went("b0", "ccc", T + 30)
    assert pop.of("b0") == Verdict(weight_factor=0.1)


def test_a_failure_ends_the_warm_up_and_a_new_recovery_begins_it_again() -> None:
    pop = Pop(BOTH)
    pop.check("b0", REFUSED)
    pop.check("b0", None)
    pop.advance(T + 10)
    assert pop.of("b0").weight_factor == 0.5
    pop.check("b0", REFUSED, T + 10)
    assert pop.verdicts.next_at_s() >= T + 10
    pop.advance(T + 18)
    assert pop.of("b0") == OUT
    pop.check("b0", None, T + 18)
    assert pop.of("b0").weight_factor == 0.1


def test_good_checks_go_on_during_the_warm_up_without_a_change() -> None:
    pop = Pop(BOTH)
    pop.check("b0", REFUSED)
    pop.check("b0", None)
    pop.check("b0", None, T + 1)
    assert pop.of("b0").weight_factor == 0.1
    pop.advance(T + 4)
    assert pop.of("b0").weight_factor == 0.2


# ---- panic ---------------------------------------------------------------------------------------


def test_panic_is_told_when_it_begins_and_ends() -> None:
    pop = Pop()
    pop.check("b0", REFUSED)
    pop.check("b1", REFUSED)
    panic = pop.events[-1]
    assert panic.name == "too few backends are good, clients are sent to all of them"
    assert (panic.priority, panic.level) == (Priority.CRITICAL, "error")
    assert panic.fields == {"app": "shop", "good": 1, "backends": 3}
    pop.told()
    pop.check("b1", None)
    assert "enough backends are good again" in pop.told()


def test_rows_that_come_and_go_change_panic_too() -> None:
    pop = Pop(rows=2)
    pop.check("b0", REFUSED)
    pop.told()
    pop.load(row("b0"))
    assert pop.told() == ["too few backends are good, clients are sent to all of them"]
    pop.load(row("b0", healthy=0))
    assert pop.told() == ["enough backends are good again"]


# ---- other settings ------------------------------------------------------------------------------


def change(pop: Pop, settings: VerdictSettings, at_s: float = T) -> None:
    pop.verdicts.change_settings(settings, at_s)
    pop.publish()


def test_other_thresholds_hold_from_the_next_result_on() -> None:
    pop = Pop()
    change(pop, VerdictSettings(HealthSettings(unhealthy_threshold=2), CircuitSettings(failure_threshold=1)))
    pop.check("b0", REFUSED)
    assert pop.of("b0") == GOOD
    pop.check("b0", REFUSED)
    assert pop.of("b0") == OUT
    pop.went("b1", "f")
    assert pop.of("b1") == OUT


def test_a_warm_up_goes_on_at_its_new_pace() -> None:
    pop = Pop(BOTH)
    pop.check("b0", REFUSED)
    pop.check("b0", None)
    change(pop, VerdictSettings(CHECKS, CIRCUITS, slow_start_s=10), T + 5)
    assert pop.of("b0").weight_factor == 0.5
    change(pop, NO_SLOW_START, T + 5)
    assert pop.of("b0") == GOOD
    assert pop.verdicts.next_at_s() == inf


def test_another_panic_threshold_is_told_when_it_changes_something() -> None:
    pop = Pop()
    pop.check("b0", REFUSED)
    pop.told()
    change(pop, VerdictSettings(CHECKS, CIRCUITS, panic_threshold=0.9))
    assert pop.told() == ["too few backends are good, clients are sent to all of them"]
    change(pop, VerdictSettings(CHECKS, CIRCUITS, panic_threshold=0.1))
    assert pop.told() == ["enough backends are good again"]


def test_what_is_off_stays_off() -> None:
    pop = Pop(VerdictSettings())
    change(pop, BOTH)
    pop.check("b0", REFUSED)
    pop.went("b0", "ff")
    assert pop.of("b0") == GOOD


# ---- rows ----------------------------------------------------------------------------------------


def test_another_weight_changes_no_verdict() -> None:
    pop = Pop(rows=1)
    pop.check("b0", REFUSED)
    pop.load(row("b0", weight=9))
    assert pop.of("b0") == OUT


@pytest.mark.parametrize("change", [{"wg_ip": "192.0.2.2"}, {"port": 81}])
def test_another_address_is_another_backend(change: dict[str, object]) -> None:
    pop = Pop()
    pop.check("b0", REFUSED)
    pop.load(row("b0", **change), row("b1"), row("b2"))
    assert pop.of("b0") == GOOD
    assert pop.verdicts.statuses(T)["b0"].check is Status.UNKNOWN


def test_an_id_that_comes_back_starts_anew() -> None:
    pop = Pop(BOTH)
    pop.went("b0", "ff")
    pop.load(row("b1"), row("b2"))
    pop.load(row("b0"), row("b1"), row("b2"))
    assert pop.of("b0") == GOOD
    pop.advance(T + 30)
    assert pop.of("b0") == GOOD


def test_a_verdict_not_yet_taken_goes_with_its_backend() -> None:
    pop = Pop()
    pop.verdicts.checked("b0", REFUSED, T, T)
    pop.verdicts.follow(pop.table.replace([row("b1")]))
    assert pop.verdicts.take_changed(10) == {}


def test_verdicts_are_taken_a_few_at_a_time_in_their_order() -> None:
    pop = Pop(rows=5)
    for backend_id in ("b3", "b1", "b4"):
        pop.verdicts.checked(backend_id, REFUSED, T, T)
    assert list(pop.verdicts.take_changed(2)) == ["b3", "b1"]
    assert pop.verdicts.has_changes
    assert list(pop.verdicts.take_changed(2)) == ["b4"]
    assert not pop.verdicts.has_changes


def test_statuses_show_every_machine() -> None:
    pop = Pop()
    pop.went("b0", "ff")
    status = pop.verdicts.statuses(T)["b0"]
    assert (status.is_good, status.check) == (False, Status.UNKNOWN)
    assert status.circuit is not None
    assert (status.circuit.state, status.circuit.connect_failures) == (State.OPEN, 2)


IDS = [f"b{number}" for number in range(12)]


class VerdictsKeepTheirRules(RuleBasedStateMachine):
    """Whatever happens, a pool is spared, timers lead somewhere, and the table shows the verdicts."""

    def __init__(self) -> None:
        super().__init__()
        self.pop = Pop(VerdictSettings(CHECKS, CIRCUITS, slow_start_s=7, max_ejected_percent=25), rows=0)
        self.now_s = T
        self.rows: dict[str, dict[str, object]] = {}

    @rule(
        backend_id=st.sampled_from(IDS),
        app=st.sampled_from(["shop", "mail"]),
        healthy=st.sampled_from([1, 1, 1, 0]),
        port=st.sampled_from([80, 80, 81]),
    )
    def put(self, backend_id: str, app: str, healthy: int, port: int) -> None:
        self.rows[backend_id] = row(backend_id, app=app, healthy=healthy, port=port)
        self.pop.load(*self.rows.values())

    @rule(backend_id=st.sampled_from(IDS))
    def remove(self, backend_id: str) -> None:
        self.rows.pop(backend_id, None)
        self.pop.load(*self.rows.values())

    @rule(backend_id=st.sampled_from(IDS), outcomes=st.text("cfds", max_size=6))
    def went(self, backend_id: str, outcomes: str) -> None:
        before = self.ejected()
        self.pop.went(backend_id, outcomes, self.now_s)
        for app, count in (self.ejected() - before).items():
            members = [each for each in self.rows.values() if each["app"] == app and each["healthy"]]
            assert count == 1
            assert self.ejected()[app] <= max(1, len(members) // 4)

    @rule(backend_id=st.sampled_from(IDS), why=st.sampled_from([None, None, REFUSED]))
    def check(self, backend_id: str, why: str | None) -> None:
        self.pop.check(backend_id, why, self.now_s)

    @rule(seconds=st.sampled_from([0.1, 3.0, 40.0, 1_000.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.pop.advance(self.now_s)

    def ejected(self) -> Counter[str]:
        """Ejected members by app; a backend that is not healthy by the operator's word is no member."""
        return Counter(
            str(self.rows[backend_id]["app"])
            for backend_id, status in self.pop.verdicts.statuses(self.now_s).items()
            if self.rows[backend_id]["healthy"]
            and status.circuit is not None
            and status.circuit.state is not State.CLOSED
        )

    @invariant()
    def time_has_been_taken_in(self) -> None:
        assert self.pop.verdicts.next_at_s() > self.now_s

    @invariant()
    def verdicts_follow_from_what_is_known(self) -> None:
        for backend_id, status in self.pop.verdicts.statuses(self.now_s).items():
            verdict = self.pop.of(backend_id)
            assert status.circuit is not None
            is_well = status.check is not Status.UNHEALTHY and status.circuit.state is State.CLOSED
            assert verdict.is_good is is_well
            assert (verdict.trial > 0) is (
                status.check is not Status.UNHEALTHY and status.circuit.state is State.HALF_OPEN
            )
            assert verdict.is_good or verdict.weight_factor == 1
            assert bool(status.why) is (verdict != GOOD)


TestVerdictsKeepTheirRules = VerdictsKeepTheirRules.TestCase
