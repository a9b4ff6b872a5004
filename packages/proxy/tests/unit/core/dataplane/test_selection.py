"""The choice must be what the formula gives when it is evaluated for every row."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeproxy.core.dataplane.selection import (
    Chosen,
    Selection,
    geo_score,
    has_room,
    is_panicking,
    load,
    score,
)
from edgeproxy.core.model import GOOD, Backend, Verdict

POP_REGION = "eu"


def backend(
    name: str = "b",
    *,
    app: str = "web",
    region: str = "eu",
    country: str = "DE",
    healthy: bool = True,
    weight: int = 1,
    soft_limit: int = 1,
    hard_limit: int = 0,
) -> Backend:
    return Backend(name, app, region, country, "127.0.0.1", 9000, healthy, weight, soft_limit, hard_limit)


def choose(selection: Selection, country: str = "DE", region: str = "eu", *, app: str = "*") -> Chosen:
    chosen = selection.choose(app, country, region, 0.0)
    assert chosen is not None
    return chosen


# ---- the oracle ----------------------------------------------------------------------------------


def formula(row: Backend, connections: int, country: str, region: str, warmth: float) -> float:
    """The product's formula as its reference has it, written without a look at the code."""
    if country != "" and row.country == country:
        geo = 0
    elif region != "" and row.region == region:
        geo = 1
    elif row.region == POP_REGION:
        geo = 2
    else:
        geo = 3
    soft_limit = 1 if row.soft_limit == 0 else row.soft_limit
    weight = 1 if row.weight == 0 else row.weight
    return geo * 100 + (connections / soft_limit) / (weight * warmth)


def may_take_one_more(row: Backend, connections: int, app: str) -> bool:
    if app != "*" and app != row.app:
        return False
    return row.healthy and (row.hard_limit == 0 or connections < row.hard_limit)


APPS = ("web", "mail", "*")
COUNTRIES = ("DE", "FR", "US", "BR")
REGIONS = ("eu", "us", "sa")
PANIC_THRESHOLD = 0.6
OUT = Verdict(is_good=False)
ON_TRIAL = Verdict(is_good=False, trial=1)
HALF_WARM = Verdict(weight_factor=0.5)

slots = st.integers(0, 9)
verdicts = st.sampled_from([GOOD, GOOD, HALF_WARM, ON_TRIAL, OUT])
counts = st.integers(0, 400)

backends = st.builds(
    Backend,
    id=st.sampled_from(["a", "b", "c"]),
    app=st.sampled_from(APPS),
    region=st.sampled_from(REGIONS),
    country=st.sampled_from(COUNTRIES),
    host=st.just("127.0.0.1"),
    port=st.just(9000),
    healthy=st.sampled_from([True, True, True, False]),
    weight=st.sampled_from([0, 1, 2, 255]),
    soft_limit=st.sampled_from([0, 1, 2, 100]),
    hard_limit=st.sampled_from([0, 0, 1, 2, 150]),
)


class SelectionAgainstFormula(RuleBasedStateMachine):
    """Any sequence of changes and choices, compared with a plain dictionary and the formula."""

    def __init__(self) -> None:
        super().__init__()
        self.panic_threshold = PANIC_THRESHOLD
        self.selection = Selection(POP_REGION, PANIC_THRESHOLD)
        self.rows: dict[int, tuple[Backend, int]] = {}
        self.verdicts: dict[int, Verdict] = {}

    def is_panicking(self, app: str) -> bool:
        healthy = [slot for slot, (row, _) in self.rows.items() if row.healthy and app in ("*", row.app)]
        good = [slot for slot in healthy if self.verdicts[slot].is_good]
        return len(good) < self.panic_threshold * len(healthy)

    @rule(threshold=st.sampled_from([0.0, 0.3, 0.6, 1.0]))
    def set_panic_threshold(self, threshold: float) -> None:
        self.selection.set_panic_threshold(threshold)
        self.panic_threshold = threshold

    def may_take_one_more(self, slot: int, app: str) -> bool:
        verdict = self.verdicts[slot]
        trusted = verdict.is_good or verdict.trial
        return may_take_one_more(*self.rows[slot], app) and (bool(trusted) or self.is_panicking(app))

    @rule(slot=slots, row=backends, connections=counts, verdict=verdicts)
    def put(self, slot: int, row: Backend, connections: int, verdict: Verdict) -> None:
        self.selection.put(slot, row, connections, verdict)
        self.rows[slot] = row, connections
        self.verdicts[slot] = verdict

    @rule(slot=slots, connections=counts, verdict=verdicts)
    def put_the_same_row_again(self, slot: int, connections: int, verdict: Verdict) -> None:
        if slot in self.rows:
            self.put(slot, self.rows[slot][0], connections, verdict)

    @rule(slot=slots, other=backends, connections=counts, verdict=verdicts)
    def put_a_row_that_counts_alike(
        self, slot: int, other: Backend, connections: int, verdict: Verdict
    ) -> None:
        if slot in self.rows:
            row = msgspec.structs.replace(
                self.rows[slot][0],
                port=other.port,
                weight=other.weight,
                soft_limit=other.soft_limit,
                hard_limit=other.hard_limit,
            )
            self.put(slot, row, connections, verdict)

    @rule(slot=slots)
    def discard(self, slot: int) -> None:
        self.selection.discard(slot)
        self.rows.pop(slot, None)
        self.verdicts.pop(slot, None)

    @rule(slot=slots, connections=counts)
    def set_connections(self, slot: int, connections: int) -> None:
        self.selection.set_connections(slot, connections)
        if slot in self.rows:
            self.rows[slot] = self.rows[slot][0], connections

    @rule(slot=slots, verdict=verdicts)
    def judge(self, slot: int, verdict: Verdict) -> None:
        self.selection.judge(slot, verdict)
        if slot in self.rows:
            self.verdicts[slot] = verdict

    @rule(
        app=st.sampled_from(APPS),
        country=st.sampled_from(["", *COUNTRIES, "JP"]),
        region=st.sampled_from(["", *REGIONS, "ap"]),
        draw=st.floats(0, 1, exclude_max=True),
        tried=st.lists(slots, max_size=3),
    )
    def choose(self, app: str, country: str, region: str, draw: float, tried: list[int]) -> None:
        scores = {
            slot: formula(row, connections, country, region, self.verdicts[slot].weight_factor)
            for slot, (row, connections) in self.rows.items()
            if self.may_take_one_more(slot, app) and slot not in tried
        }
        chosen = self.selection.choose(app, country, region, draw, tried)
        if not scores:
            assert chosen is None
            return
        assert chosen is not None
        assert chosen.score == min(scores.values())
        assert scores[chosen.slot] == chosen.score
        assert chosen.backend == self.rows[chosen.slot][0]

    @invariant()
    def eligible_ones_are_those_with_room(self) -> None:
        for app in APPS:
            for slot in range(10):
                is_one = slot in self.rows and self.may_take_one_more(slot, app)
                row, connections = self.rows.get(slot, (None, 0))
                assert self.selection.eligible(app, slot, connections) == (row if is_one else None)

    @invariant()
    def empty_means_no_healthy_row_that_clients_are_sent_to(self) -> None:
        for app in APPS:
            healthy = [slot for slot, (row, _) in self.rows.items() if row.healthy and app in ("*", row.app)]
            trusted = [slot for slot in healthy if self.verdicts[slot] != OUT]
            assert self.selection.is_empty(app) is not bool(trusted or self.is_panicking(app))

    @invariant()
    def panic_counts_who_is_good_of_the_healthy_rows(self) -> None:
        for app in APPS:
            assert self.selection.is_panicking(app) is self.is_panicking(app)


TestSelectionAgainstFormula = SelectionAgainstFormula.TestCase


# ---- the parts of the formula --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("country", "region", "expected"),
    [
        ("DE", "eu", 0),
        ("FR", "eu", 1),
        ("US", "us", 2),
        ("", "", 2),
        ("", "us", 2),
    ],
)
def test_distance_of_a_backend_in_the_region_of_the_pop(country: str, region: str, expected: int) -> None:
    assert geo_score(backend(), country, region, POP_REGION) == expected


@pytest.mark.parametrize(("country", "expected"), [("US", 0), ("CA", 1), ("DE", 3), ("", 3)])
def test_distance_of_a_backend_elsewhere(country: str, expected: int) -> None:
    region = {"US": "us", "CA": "us", "DE": "eu", "": ""}[country]
    assert geo_score(backend(region="us", country="US"), country, region, POP_REGION) == expected


def test_a_backend_without_a_country_is_not_in_the_unknown_clients_country() -> None:
    assert geo_score(backend(region="xx", country=""), "", "", POP_REGION) == 3


def test_an_unknown_client_scores_only_two_or_three() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(region="us", country="US"), 0)
    assert choose(selection, "", "").score == 300
    selection.put(1, backend(country=""), 7)
    assert choose(selection, "", "").score == 207


@pytest.mark.parametrize(
    ("soft_limit", "weight", "expected"),
    [(10, 2, 2.5), (0, 2, 25.0), (10, 0, 5.0), (0, 0, 50.0)],
)
def test_a_soft_limit_or_weight_of_zero_counts_as_one(soft_limit: int, weight: int, expected: float) -> None:
    assert load(backend(soft_limit=soft_limit, weight=weight), 50) == expected


def test_one_step_of_distance_costs_a_hundred_loads() -> None:
    assert score(2, 0.25) == 200.25


@pytest.mark.parametrize(
    ("hard_limit", "connections", "room"),
    [(0, 10**6, True), (3, 2, True), (3, 3, False), (3, 4, False)],
)
def test_a_hard_limit_excludes_from_its_count_on_and_zero_never(
    hard_limit: int, connections: int, room: bool
) -> None:
    assert has_room(backend(hard_limit=hard_limit), connections) is room


def test_load_can_outweigh_distance() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(soft_limit=1), 101)
    selection.put(1, backend(country="FR"), 0)
    assert choose(selection).slot == 1


# ---- members that wait to be moved ---------------------------------------------------------------


def test_of_a_queue_that_nobody_looks_at_few_members_wait_to_be_moved() -> None:
    selection = Selection(POP_REGION)
    for slot in range(600):
        selection.put(slot, backend(str(slot)), 0)
    assert choose(selection).score == 0
    for slot in range(600):
        selection.set_connections(slot, 600 - slot)
    everywhere = selection._pools["*"]._trusted._everywhere
    assert len(everywhere.stale) < 256
    assert choose(selection, "US", "us").slot == 599


@pytest.mark.parametrize("end", ["discard", "judge"])
def test_a_backend_that_leaves_before_it_was_moved_is_gone(end: str) -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend("a", hard_limit=1), 0)
    selection.put(1, backend("b"), 5)
    assert choose(selection).slot == 0
    selection.set_connections(0, 1)
    if end == "discard":
        selection.discard(0)
    else:
        selection.judge(0, OUT)
        selection.set_connections(0, 0)
    assert choose(selection).slot == 1
    assert choose(selection, "US", "us").slot == 1


# ---- the POP's own verdicts ----------------------------------------------------------------------


def test_warming_up_makes_a_backend_count_as_if_it_had_less_weight() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(weight=2), 4)
    assert choose(selection).score == 2
    selection.judge(0, Verdict(weight_factor=0.5))
    assert choose(selection).score == 4
    assert selection.weight_factor(0) == 0.5


def test_a_doubted_backend_is_left_out_and_comes_back() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend("near"), 0)
    selection.put(1, backend("far", country="FR"), 0)
    selection.judge(0, OUT)
    assert choose(selection).slot == 1
    assert selection.eligible("*", 0, 0) is None
    selection.judge(0, GOOD)
    assert choose(selection).slot == 0


def test_a_backend_on_trial_takes_clients_but_is_not_good() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend("near"), 0, ON_TRIAL)
    selection.put(1, backend("far", country="FR"), 0)
    assert choose(selection).slot == 0
    assert not selection.is_panicking("*")
    selection.put(2, backend("third"), 0, ON_TRIAL)
    assert selection.is_panicking("*"), "one of three is good"


@pytest.mark.parametrize(
    ("good", "members", "threshold", "expected"),
    [
        (1, 2, 0.5, False),
        (1, 3, 0.5, True),
        (0, 1, 0.5, True),
        (0, 0, 0.5, False),
        (0, 9, 0.0, False),
        (9, 9, 1.0, False),
        (8, 9, 1.0, True),
    ],
)
def test_panic_is_fewer_than_the_threshold(good: int, members: int, threshold: float, expected: bool) -> None:
    assert is_panicking(good, members, threshold) is expected


@pytest.mark.feature("health.panic")
def test_in_panic_the_doubted_are_chosen_by_the_same_formula() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend("near"), 1, OUT)
    selection.put(1, backend("nearer by load"), 0, OUT)
    selection.put(2, backend("good, but far", country="FR"), 0)
    assert choose(selection).slot == 1
    assert selection.eligible("*", 0, 1) is not None
    shares = Counter(_slot(selection.choose("*", "BR", "sa", draw)) for draw in _sweep(2, 10))
    assert shares == {1: 10, 2: 10}, "good and doubted ones of equal score have equal chances"


def test_panic_never_brings_back_what_the_operator_took_out() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(healthy=False), 0)
    selection.put(1, backend(country="FR"), 0, OUT)
    assert selection.is_panicking("*")
    assert choose(selection).slot == 1
    selection.put(1, backend(country="FR", healthy=False), 0, OUT)
    assert selection.choose("*", "DE", "eu", 0.0) is None
    assert not selection.is_panicking("*")


def test_without_a_panic_threshold_nothing_is_sent_to_a_pool_without_a_good_backend() -> None:
    selection = Selection(POP_REGION, panic_threshold=0)
    selection.put(0, backend(), 0, OUT)
    assert selection.choose("*", "DE", "eu", 0.0) is None
    assert selection.is_empty("*")


@pytest.mark.feature("health.panic")
def test_another_panic_threshold_holds_at_once_and_for_apps_not_asked_for_yet() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(app="web"), 0, OUT)
    selection.put(1, backend(app="mail"), 0, OUT)
    assert selection.is_panicking("web")
    selection.set_panic_threshold(0.0)
    assert not selection.is_panicking("web")
    assert not selection.is_panicking("mail")
    assert selection.choose("web", "DE", "eu", 0.0) is None


def test_panic_is_of_one_app() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(app="web"), 0, OUT)
    for slot in range(1, 4):
        selection.put(slot, backend(app="mail"), 0)
    assert selection.is_panicking("web")
    assert not selection.is_panicking("mail")
    assert not selection.is_panicking("*")


# ---- apps ----------------------------------------------------------------------------------------


def test_an_app_chooses_among_its_own_and_no_app_among_all() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(app="web"), 5)
    selection.put(1, backend(app="mail"), 0)
    assert choose(selection, app="web").slot == 0
    assert choose(selection, app="mail").slot == 1
    assert choose(selection, app="*").slot == 1
    assert selection.choose("ftp", "DE", "eu", 0.0) is None


def test_a_backend_whose_app_is_an_asterisk_stands_in_the_pool_of_all_once() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(app="*"), 0)
    selection.put(1, backend(app="web"), 0)
    shares = Counter(_slot(selection.choose("*", "DE", "eu", draw)) for draw in _sweep(2, 10))
    assert shares == {0: 10, 1: 10}
    selection.set_connections(0, 1)
    assert choose(selection).slot == 1
    selection.discard(0)
    assert choose(selection, app="web").slot == 1
    assert selection.eligible("*", 0, 0) is None


def test_a_pool_asked_for_late_knows_all_counts() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(), 0)
    selection.put(1, backend(), 0)
    selection.set_connections(0, 3)
    assert choose(selection, app="web").slot == 1


# ---- ties ----------------------------------------------------------------------------------------


def _slot(chosen: Chosen | None) -> int:
    assert chosen is not None
    return chosen.slot


def _sweep(candidates: int, each: int) -> list[float]:
    """Draws spread evenly over [0, 1), so that a fair choice gives each candidate exactly ``each``."""
    total = candidates * each
    return [(number + 0.5) / total for number in range(total)]


@pytest.mark.feature("selection.nearest")
@pytest.mark.parametrize("candidates", [1, 2, 3, 7, 100])
def test_equal_scores_are_drawn_from_with_equal_chance(candidates: int) -> None:
    selection = Selection(POP_REGION)
    for slot in range(candidates):
        selection.put(slot, backend(f"b{slot}"), 4)
    selection.put(candidates, backend("loaded"), 5)
    shares = Counter(_slot(selection.choose("*", "DE", "eu", draw)) for draw in _sweep(candidates, 13))
    assert shares == dict.fromkeys(range(candidates), 13)


def test_equal_scores_in_different_distances_are_drawn_from_with_equal_chance() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend("same country, loaded"), 100)
    selection.put(1, backend("same region, idle", country="FR"), 0)
    selection.put(2, backend("same region, idle too", country="IT"), 0)
    shares = Counter(_slot(selection.choose("*", "DE", "eu", draw)) for draw in _sweep(3, 20))
    assert shares == {0: 20, 1: 20, 2: 20}


def test_the_highest_draw_below_one_is_still_a_candidate() -> None:
    selection = Selection(POP_REGION)
    for slot in range(3):
        selection.put(slot, backend(f"b{slot}"), 0)
    assert _slot(selection.choose("*", "DE", "eu", 1 - 2**-53)) in range(3)


# ---- what is tried, and what is put again --------------------------------------------------------


def test_what_was_tried_is_left_out_of_that_choice_only() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(), 0)
    selection.put(1, backend(), 9)
    chosen = selection.choose("*", "DE", "eu", 0.0, tried=(0, 0, 77))
    assert _slot(chosen) == 1
    assert selection.choose("*", "DE", "eu", 0.0, tried=[0, 1]) is None
    assert choose(selection).slot == 0


def test_a_row_put_again_replaces_the_old_one() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(app="web", country="DE"), 0)
    assert choose(selection, app="web").score == 0
    selection.put(0, backend(app="mail", country="FR"), 1)
    assert selection.choose("web", "DE", "eu", 0.0) is None
    assert choose(selection, app="mail").score == 101


def test_unknown_slots_are_ignored() -> None:
    selection = Selection(POP_REGION)
    selection.discard(3)
    selection.set_connections(3, 1)
    selection.judge(3, OUT)
    assert selection.choose("*", "DE", "eu", 0.0) is None


def test_memory_does_not_grow_with_the_number_of_loads_there_have_been() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend(soft_limit=100, weight=3), 0)
    selection.put(1, backend(), 0)
    for connections in range(1, 10_000):
        selection.set_connections(0, connections)
    pool = selection._pool("*")
    for connections in range(10_000, 11_000):
        selection.set_connections(0, connections)
        assert choose(selection).slot == 1
    queue = pool._trusted._everywhere
    assert len(queue._heap) == len(queue._buckets) <= 2 * 2 + 65
    assert choose(selection).slot == 1


def test_several_are_the_best_in_their_order_and_stay_candidates() -> None:
    selection = Selection(POP_REGION)
    for slot, connections in enumerate([5, 1, 3, 0]):
        selection.put(slot, backend(f"b{slot}", hard_limit=9), connections)
    selection.put(4, backend("full", hard_limit=9), 9)
    several = selection.choose_several("*", "DE", "eu", 3, lambda: 0.0)
    assert [(chosen.slot, chosen.score) for chosen in several] == [(3, 0.0), (1, 1.0), (2, 3.0)]
    assert len(selection.choose_several("*", "DE", "eu", 10, lambda: 0.0)) == 4
    assert choose(selection).slot == 3


def test_a_loaded_neighbour_still_wins_against_a_loaded_one_farther_away() -> None:
    selection = Selection(POP_REGION)
    selection.put(0, backend("near", country="DE"), 150)
    selection.put(1, backend("farther", country="FR"), 60)
    assert choose(selection).backend.id == "near"
