from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.flood import FloodLimit

ALICE, BOB, CAROL = 1, 2, 3


def test_burst_is_admitted_at_once_and_no_more() -> None:
    limit = FloodLimit(per_s=10, burst=3)
    assert [limit.wait_s(ALICE, 100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limit.wait_s(ALICE, 100.0) > 0


def test_refused_client_is_admitted_after_the_time_it_was_told() -> None:
    limit = FloodLimit(per_s=10, burst=1)
    assert limit.wait_s(ALICE, 100.0) == 0.0
    wait_s = limit.wait_s(ALICE, 100.0)
    assert abs(wait_s - 0.1) < 1e-6
    assert limit.wait_s(ALICE, 100.0 + 0.9 * wait_s) > 0
    assert limit.wait_s(ALICE, 100.0 + wait_s) == 0.0


def test_being_refused_costs_nothing() -> None:
    limit = FloodLimit(per_s=10, burst=1)
    limit.wait_s(ALICE, 100.0)
    for _ in range(1000):
        limit.wait_s(ALICE, 100.0)
    assert limit.wait_s(ALICE, 100.11) == 0.0


def test_clients_do_not_share_a_bucket() -> None:
    limit = FloodLimit(per_s=1, burst=1)
    assert limit.wait_s(ALICE, 100.0) == 0.0
    assert limit.wait_s(BOB, 100.0) == 0.0


def test_idle_client_has_its_burst_again_and_not_more() -> None:
    limit = FloodLimit(per_s=1, burst=2)
    limit.wait_s(ALICE, 0.0)
    assert [limit.wait_s(ALICE, 1e6) == 0.0 for _ in range(3)] == [True, True, False]


def test_client_admitted_longest_ago_is_forgotten_for_a_new_one() -> None:
    limit = FloodLimit(per_s=1, burst=1, clients_max=2)
    limit.wait_s(BOB, 0.0)
    limit.wait_s(ALICE, 0.1)
    limit.wait_s(BOB, 1.0)
    limit.wait_s(CAROL, 1.1)
    assert limit.wait_s(BOB, 1.2) > 0
    assert limit.wait_s(CAROL, 1.2) > 0
    assert limit.wait_s(ALICE, 1.09) == 0.0


def test_0_is_no_limit_also_when_it_comes_later() -> None:
    limit = FloodLimit(per_s=1, burst=1)
    assert [limit.delay_s(ALICE, 100.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    limit.change(per_s=0, burst=0)
    assert {limit.wait_s(ALICE, 100.0) + limit.delay_s(BOB, 100.0) for _ in range(1000)} == {0.0}


def test_another_limit_counts_for_what_was_used_before() -> None:
    limit = FloodLimit(per_s=10, burst=3)
    assert [limit.wait_s(ALICE, 100.0) for _ in range(3)] == [0.0] * 3
    limit.change(per_s=10, burst=5)
    assert [limit.wait_s(ALICE, 100.0) == 0.0 for _ in range(3)] == [True, True, False]


def test_what_is_counted_in_any_case_waits_its_turn() -> None:
    limit = FloodLimit(per_s=10, burst=10)
    assert [limit.delay_s(ALICE, 100.0) for _ in range(10)] == [0.0] * 10
    assert [round(limit.delay_s(ALICE, 100.0), 6) for _ in range(3)] == [0.1, 0.2, 0.3]
    assert round(limit.delay_s(ALICE, 100.1), 6) == 0.3


def test_of_the_clients_that_wait_the_one_heard_longest_ago_is_forgotten() -> None:
    limit = FloodLimit(per_s=1, burst=1, clients_max=2)
    for client in (ALICE, BOB, CAROL):
        limit.delay_s(client, 0.0)
    assert limit.delay_s(BOB, 0.0) > 0
    assert limit.delay_s(ALICE, 0.0) == 0.0


@given(
    per_s=st.integers(1, 1000),
    burst=st.integers(1, 50),
    gaps_s=st.lists(st.floats(0, 0.5), max_size=200),
)
def test_never_more_than_rate_and_burst_and_never_less_than_the_rate(
    per_s: int, burst: int, gaps_s: list[float]
) -> None:
    limit = FloodLimit(per_s, burst)
    now_s, admitted = 1000.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        admitted += limit.wait_s(ALICE, now_s) == 0.0
        assert admitted <= burst + (now_s - 1000.0) * per_s + 1e-3
    # Whoever waits for as long as a request costs is never refused.
    assert limit.wait_s(ALICE, now_s + 1 / per_s) == 0.0
