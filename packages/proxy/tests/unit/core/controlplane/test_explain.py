"""explain shows what the data plane's selection does: no more, no less, and for every row why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.explain import Candidate, CapUse, Explanation, explain
from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.selection import ANY_APP, Selection
from edgeproxy.core.model import GOOD, Backend, Client, Verdict

BRAZILIAN = Client("200.160.2.3", "BR", "sa")
UNKNOWN = Client("127.0.0.1", "", "")


def backend(backend_id: str, **values: Any) -> Backend:
    place = {"app": "test", "region": "eu", "country": "DE", "host": "127.0.0.1", "port": 9001}
    usual = {**place, "healthy": True, "weight": 1, "soft_limit": 100, "hard_limit": 0}
    return Backend(id=backend_id, **{**usual, **values})


def explained(
    *backends: Backend,
    client: Client = BRAZILIAN,
    app: str = ANY_APP,
    pop_region: str = "eu",
    counts: dict[str, int] | None = None,
    bound_to: str | None = None,
) -> Explanation:
    table = [PlacedBackend(slot, each) for slot, each in enumerate(backends, start=7)]
    by_slot = {placed.slot: (counts or {}).get(placed.backend.id, 0) for placed in table}
    return explain(client, app, pop_region, table, by_slot.__getitem__, bound_to, counts_known=True)


def shown(explanation: Explanation) -> dict[str, Candidate]:
    return {candidate.backend: candidate for candidate in explanation.candidates}


# ---- agreement with the data plane ---------------------------------------------------------------

COUNTRIES = {"": "", "BR": "sa", "AR": "sa", "DE": "eu", "FR": "eu", "US": "us", "JP": "ap"}
regions = st.sampled_from(["sa", "eu", "us", "ap"])
apps = st.sampled_from(["shop", "blog", "*", ""])
backends = st.builds(
    backend,
    st.uuids().map(str),
    app=apps,
    region=regions,
    country=st.sampled_from(sorted(COUNTRIES)),
    healthy=st.booleans(),
    weight=st.integers(0, 3),
    soft_limit=st.integers(0, 3),
    hard_limit=st.integers(0, 3),
)
clients = st.sampled_from(sorted(COUNTRIES.items())).map(lambda place: Client("192.0.2.1", *place))


OUT = Verdict(is_good=False)
HALF_WARM = Verdict(weight_factor=0.5)
verdicts = st.sampled_from([GOOD, GOOD, GOOD, HALF_WARM, OUT])


@pytest.mark.feature("explain")
@given(st.lists(st.tuples(backends, st.integers(0, 4), verdicts), max_size=8), clients, apps, regions)
def test_shows_as_best_exactly_what_the_data_plane_draws_from(
    counted: list[tuple[Backend, int, Verdict]], client: Client, app: str, pop_region: str
) -> None:
    selection = Selection(pop_region)
    for slot, (each, count, verdict) in enumerate(counted):
        selection.put(slot, each, count, verdict)
    # More draws than there are backends, evenly spread: each that can be drawn is.
    draws = [selection.choose(app, client.country, client.region, draw / 64) for draw in range(64)]
    drawn = {chosen.backend.id for chosen in draws if chosen is not None}

    explanation = explain(
        client,
        app,
        pop_region,
        [PlacedBackend(slot, each, verdict) for slot, (each, _, verdict) in enumerate(counted)],
        lambda slot: counted[slot][1],
        bound_to=None,
        counts_known=True,
        why=lambda _backend_id: "its verdict",
    )

    assert {each.backend for each in explanation.candidates if each.is_best} == drawn
    assert len(explanation.candidates) == len(counted)
    eligible = {
        each.id
        for slot, (each, count, *_) in enumerate(counted)
        if selection.eligible(app, slot, count) is not None
    }
    assert {each.backend for each in explanation.candidates if each.left_out is None} == eligible
    assert explanation.is_panicking is selection.is_panicking(app)
    for chosen in draws:
        assert chosen is None or shown(explanation)[chosen.backend.id].score == chosen.score


# ---- each row ------------------------------------------------------------------------------------


def test_names_the_place_of_a_backend_as_seen_from_the_client() -> None:
    candidates = shown(
        explained(
            backend("near", country="BR", region="sa"),
            backend("region", country="AR", region="sa"),
            backend("pop", country="DE", region="eu"),
            backend("far", country="JP", region="ap"),
        )
    )
    assert {name: (each.place, each.score) for name, each in candidates.items()} == {
        "near": ("same country", 0.0),
        "region": ("same region", 100.0),
        "pop": ("region of this POP", 200.0),
        "far": ("elsewhere", 300.0),
    }


def test_an_unknown_client_is_near_to_nothing() -> None:
    places = [
        each.place
        for each in explained(backend("pop"), backend("far", region="sa"), client=UNKNOWN).candidates
    ]
    assert places == ["region of this POP", "elsewhere"]


def test_the_score_counts_the_connections_of_now() -> None:
    explanation = explained(backend("one", soft_limit=10, weight=2), counts={"one": 5})
    candidate = explanation.candidates[0]
    assert (candidate.connections, candidate.score) == (5, 200.25)


@pytest.mark.parametrize(
    ("values", "count", "why"),
    [
        ({"app": "blog"}, 0, "serves app 'blog', not 'shop'"),
        ({"healthy": False}, 0, "healthy = 0 in the routing table"),
        ({"hard_limit": 3}, 3, "at its hard_limit of 3"),
        ({"hard_limit": 3}, 4, "at its hard_limit of 3"),
    ],
)
def test_names_the_reason_why_a_row_is_left_out(values: dict[str, Any], count: int, why: str) -> None:
    explanation = explained(backend("one", **{"app": "shop", **values}), app="shop", counts={"one": count})
    (candidate,) = explanation.candidates
    assert candidate.left_out == why
    assert not candidate.is_best


def test_a_listener_without_an_app_takes_rows_of_all_apps() -> None:
    explanation = explained(backend("one", app="blog"), backend("two", app=""), app=ANY_APP)
    assert [each.left_out for each in explanation.candidates] == [None, None]


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", "10.0.0.1:9001"),
        ("fd00::1", "[fd00::1]:9001"),
        ("one.example.org", "one.example.org:9001"),
    ],
)
def test_writes_an_address_as_one_would_type_it(host: str, address: str) -> None:
    assert explained(backend("one", host=host)).candidates[0].address == address


def test_orders_the_best_first_and_those_left_out_last() -> None:
    explanation = explained(
        backend("b-far", region="ap"),
        backend("dead", country="BR", healthy=False),
        backend("b-near", country="BR"),
        backend("a-near", country="BR"),
        backend("dead-far", region="ap", healthy=False),
    )
    assert [each.backend for each in explanation.candidates] == [
        *("a-near", "b-near", "b-far"),
        *("dead", "dead-far"),
    ]


# ---- the decision --------------------------------------------------------------------------------


def test_says_which_backend_has_the_lowest_score() -> None:
    explanation = explained(backend("near", country="BR"), backend("far"), counts={"near": 25})
    assert explanation.decision == "near, with the lowest score of 0.25 (same country)"


def test_says_between_which_backends_is_drawn() -> None:
    explanation = explained(backend("b"), backend("a"), backend("far", region="ap"))
    assert explanation.decision == (
        "A draw among a, b, which share the lowest score of 200 (region of this POP)"
    )


@pytest.mark.parametrize("rows", [[], [backend("dead", healthy=False)]])
def test_says_that_there_is_no_backend(rows: list[Backend]) -> None:
    assert explained(*rows).decision == "No backend: the connection is reset"


def test_affinity_comes_before_the_score() -> None:
    explanation = explained(backend("near", country="BR"), backend("far", region="ap"), bound_to="far")
    assert explanation.bound_to == "far"
    assert explanation.decision == "far, because the client is bound to it (affinity)"
    assert [each.backend for each in explanation.candidates if each.is_best] == ["near"]


def test_says_why_a_binding_does_not_hold() -> None:
    explanation = explained(backend("near", country="BR"), backend("old", healthy=False), bound_to="old")
    assert explanation.decision == (
        "The client was bound to old, which is left out: healthy = 0 in the routing table. "
        "near, with the lowest score of 0 (same country)"
    )


def test_a_binding_to_a_row_that_is_gone_says_nothing() -> None:
    explanation = explained(backend("near", country="BR"), bound_to="gone")
    assert explanation.decision == "near, with the lowest score of 0 (same country)"


def test_tells_what_it_was_asked_and_whether_it_knew_the_counts() -> None:
    explanation = explain(
        BRAZILIAN, "shop", "eu", [], connections=lambda _slot: 0, bound_to=None, counts_known=False
    )
    assert (explanation.client, explanation.app, explanation.pop_region) == (BRAZILIAN, "shop", "eu")
    assert not explanation.counts_known


# ---- what this POP has found out -----------------------------------------------------------------


def explained_verdicts(*verdicts: Verdict, **options: Any) -> Explanation:
    """Backends ``b0``, ``b1`` … with these verdicts, each put into words as the name of its backend."""
    table = [
        PlacedBackend(slot, backend(f"b{slot}", country="BR", region="sa"), verdict)
        for slot, verdict in enumerate(verdicts)
    ]
    words = {placed.backend.id: f"why {placed.backend.id}" for placed in table if placed.verdict != GOOD}
    return explain(
        BRAZILIAN,
        ANY_APP,
        "eu",
        table,
        lambda _slot: 2,
        None,
        counts_known=True,
        why=lambda backend_id: words.get(backend_id, ""),
        **options,
    )


def test_a_backend_found_bad_is_left_out_for_its_verdict() -> None:
    explanation = explained_verdicts(OUT, GOOD)
    candidates = shown(explanation)
    assert (candidates["b0"].left_out, candidates["b0"].verdict) == ("why b0", "why b0")
    assert (candidates["b1"].left_out, candidates["b1"].verdict) == (None, "")
    assert not explanation.is_panicking


def test_a_backend_that_warms_up_is_a_candidate_with_less_weight() -> None:
    candidates = shown(explained_verdicts(HALF_WARM, GOOD))
    assert candidates["b0"].left_out is None
    assert candidates["b0"].verdict == "why b0"
    assert (candidates["b0"].score, candidates["b1"].score) == (0.04, 0.02)


def test_a_backend_on_trial_is_a_candidate() -> None:
    candidates = shown(explained_verdicts(Verdict(is_good=False, trial=1), GOOD))
    assert (candidates["b0"].left_out, candidates["b0"].verdict) == (None, "why b0")


def test_in_panic_verdicts_are_shown_but_leave_nobody_out() -> None:
    explanation = explained_verdicts(OUT, OUT, GOOD)
    assert explanation.is_panicking
    assert [candidate.left_out for candidate in explanation.candidates] == [None] * 3
    assert shown(explanation)["b0"].verdict == "why b0"


def test_the_panic_threshold_is_the_pops() -> None:
    explanation = explained_verdicts(OUT, OUT, GOOD, panic_threshold=0.25)
    assert not explanation.is_panicking
    assert shown(explanation)["b0"].left_out == "why b0"


@pytest.mark.parametrize(("allowed", "is_refused"), [(0.99, True), (1.0, False), (None, False)])
def test_a_client_beyond_its_limit_gets_no_backend(allowed: float | None, is_refused: bool) -> None:
    explanation = explained_verdicts(GOOD, connections_allowed=allowed)
    refusal = "No backend: the client opens more connections than the rate limit allows"
    assert (explanation.decision == refusal) is is_refused
    assert explanation.connections_allowed == allowed


@pytest.mark.parametrize(("open_", "is_refused"), [(4, False), (5, True), (6, True)])
def test_a_client_gets_no_backend_when_a_cap_is_full(open_: int, is_refused: bool) -> None:
    use = CapUse(open_, most=5)
    own = explained_verdicts(GOOD, client_connections=use, all_connections=CapUse(0, 1))
    of_all = explained_verdicts(GOOD, client_connections=CapUse(0, 1), all_connections=use)
    assert (
        own.decision == f"No backend: the client has {open_} connections, and may have no more"
    ) is is_refused
    assert (
        of_all.decision == f"No backend: clients have {open_} connections, and may have no more"
    ) is is_refused
    assert own.client_connections == of_all.all_connections == use


@pytest.mark.parametrize(
    ("queue", "decision"),
    [
        (None, "No backend: the connection is reset"),
        (CapUse(3, 4), "No backend yet: the client waits in the queue, where 3 of 4 are"),
        (CapUse(4, 4), "No backend: the connection is reset, because 4 wait already, and no more may"),
    ],
)
def test_when_all_are_full_a_client_waits_if_it_may(queue: CapUse | None, decision: str) -> None:
    full = [PlacedBackend(0, backend("a", hard_limit=1))]
    explanation = explain(BRAZILIAN, ANY_APP, "eu", full, lambda _: 1, None, counts_known=True, queue=queue)
    assert explanation.decision == decision
    assert explanation.queue == queue


def test_no_client_waits_for_backends_of_which_none_is_healthy() -> None:
    down = [PlacedBackend(0, backend("a", healthy=False))]
    explanation = explain(
        BRAZILIAN, ANY_APP, "eu", down, lambda _: 0, None, counts_known=True, queue=CapUse(0, 4)
    )
    assert explanation.decision == "No backend: the connection is reset"
