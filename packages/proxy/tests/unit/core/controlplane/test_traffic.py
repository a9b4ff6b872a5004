"""The totals are what the reports add up to, whatever order they come in and whoever dies."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.traffic import FORGOTTEN, TrafficRow, TrafficTotals
from edgeproxy.core.dataplane.connects import Connects
from edgeproxy.core.dataplane.times import Times
from edgeproxy.core.wire.frames import KernelCounts, Report, Traffic


def report(
    *traffic: Traffic,
    closes: dict[str, int] | None = None,
    connect_errors: dict[str, int] | None = None,
) -> Report:
    return Report(traffic, closes or {}, connect_errors or {}, sessions=(), sessions_dropped=0)


def moved(
    country: str = "BR",
    backend: str = "one",
    opened: int = 0,
    closed: int = 0,
    score_sum: float = 0.0,
    received: int = 0,
    sent: int = 0,
) -> Traffic:
    return Traffic(country, backend, opened, closed, score_sum, received, sent)


def test_there_is_nothing_before_the_first_report() -> None:
    totals = TrafficTotals()
    assert (totals.rows(), totals.closes, totals.connect_errors) == ([], {}, {})


def test_reports_of_all_workers_add_up() -> None:
    totals = TrafficTotals()
    totals.add(0, report(moved(opened=3, closed=1, score_sum=30.0, received=10, sent=100)))
    totals.add(1, report(moved(opened=1, score_sum=70.0)))
    totals.add(0, report(moved(closed=1, received=5, sent=50)))
    assert totals.rows() == [
        TrafficRow("BR", "one", opened=4, active=2, score_mean=25.0, bytes_received=15, bytes_sent=150)
    ]


def test_waits_of_all_workers_add_up() -> None:
    totals = TrafficTotals()
    for worker, seconds in enumerate((0.25, 0.5)):
        waits = Times()
        waits.note(seconds)
        totals.add(worker, msgspec.structs.replace(report(), waits=waits))
    totals.add(0, report())
    assert (totals.waits.count, totals.waits.seconds_sum) == (2, 0.75)


def test_what_the_kernel_relays_is_kept_by_worker_and_counted_beyond_its_death() -> None:
    totals = TrafficTotals()
    for worker, kernel in (
        (0, KernelCounts(2, 5)),
        (1, KernelCounts(1, 1)),
        (0, KernelCounts(1, 6)),
        (2, None),
    ):
        totals.add(worker, msgspec.structs.replace(report(), kernel=kernel))
    assert totals.kernel == {0: KernelCounts(1, 6), 1: KernelCounts(1, 1)}
    assert totals.in_kernel == 2
    assert totals.promotions == 7
    totals.worker_died(0)
    assert totals.kernel == {1: KernelCounts(1, 1)}
    assert totals.in_kernel == 1
    assert totals.promotions == 7
    totals.add(0, msgspec.structs.replace(report(), kernel=KernelCounts(0, 1)))
    assert totals.promotions == 8


def test_each_country_and_backend_has_a_row_of_its_own_in_their_order() -> None:
    totals = TrafficTotals()
    totals.add(0, report(moved("US", "one", opened=1), moved("", "two", opened=1)))
    totals.add(0, report(moved("US", "a", opened=1), moved("", "two", opened=1)))
    assert [(row.country, row.backend, row.opened) for row in totals.rows()] == [
        *(("", "two", 2), ("US", "a", 1), ("US", "one", 1)),
    ]


def test_a_row_that_saw_only_ends_has_no_mean_score() -> None:
    totals = TrafficTotals()
    totals.add(0, report(moved(closed=1)))
    assert totals.rows()[0].score_mean == 0.0


def test_close_reasons_and_failing_backends_add_up() -> None:
    totals = TrafficTotals()
    totals.add(0, report(closes={"complete": 2, "no_backend": 1}, connect_errors={"one": 1}))
    totals.add(1, report(closes={"complete": 3}, connect_errors={"one": 1, "two": 4}))
    assert totals.closes == {"complete": 5, "no_backend": 1}
    assert totals.connect_errors == {"one": 2, "two": 4}


def test_connections_of_a_dead_worker_are_active_no_more() -> None:
    totals = TrafficTotals()
    totals.add(0, report(moved(opened=3, received=7)))
    totals.add(1, report(moved(opened=2)))
    totals.worker_died(0)
    (row,) = totals.rows()
    assert (row.active, row.opened, row.bytes_received) == (2, 5, 7)


def test_the_successor_of_a_dead_worker_begins_at_nothing() -> None:
    totals = TrafficTotals()
    totals.add(0, report(moved(opened=3)))
    totals.worker_died(0)
    totals.add(0, report(moved(opened=1)))
    totals.worker_died(0)
    assert totals.rows()[0].active == 0


def test_the_death_of_a_worker_that_never_reported_changes_nothing() -> None:
    totals = TrafficTotals()
    totals.worker_died(3)
    assert totals.rows() == []


events = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.sampled_from(["BR", ""]), st.integers(0, 9), st.integers(0, 9)),
        st.integers(0, 2),
    )
)


@given(events)
def test_active_is_the_sum_over_the_workers_that_live(
    history: list[tuple[int, str, int, int] | int],
) -> None:
    totals = TrafficTotals()
    active: dict[tuple[int, str], int] = {}
    for event in history:
        if isinstance(event, int):
            totals.worker_died(event)
            active = {key: count for key, count in active.items() if key[0] != event}
        else:
            worker, country, opened, closed = event
            totals.add(worker, report(moved(country, opened=opened, closed=closed)))
            active[worker, country] = active.get((worker, country), 0) + opened - closed
    for row in totals.rows():
        assert row.active == sum(count for (_, country), count in active.items() if country == row.country)


def test_clients_are_those_with_a_backend_and_those_that_ended_without_one() -> None:
    totals = TrafficTotals()
    totals.add(0, report(moved(opened=3, closed=1), closes={"complete": 1, "no_backend": 4}))
    totals.add(1, report(moved(closed=1), closes={"client_reset": 1}))
    totals.worker_died(0)
    assert totals.clients == 7


def test_connects_add_up_by_backend() -> None:
    totals = TrafficTotals()
    for backend in ("one", "two", "one"):
        connects = Connects()
        connects.add(0.1, from_affinity=True)
        totals.add(0, msgspec.structs.replace(report(), connects={backend: connects}))
    assert {backend: connects.count for backend, connects in totals.connects.items()} == {"one": 2, "two": 1}


# ---- backends that are gone --------------------------------------------------------------------------


@pytest.fixture
def few_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.core.controlplane.traffic.GONE_MAX", 1)


def totals_of(*backends: str) -> TrafficTotals:
    totals = TrafficTotals()
    for weight, backend in enumerate(backends, 1):
        one = moved("BR", backend, opened=weight, closed=weight, score_sum=weight, received=10, sent=1)
        connects = Connects()
        connects.add(0.1, from_affinity=False)
        more = report(one, connect_errors={backend: weight})
        totals.add(0, msgspec.structs.replace(more, connects={backend: connects}))
    return totals


@pytest.mark.usefixtures("few_remembered")
def test_backends_that_went_first_are_summed_up() -> None:
    totals = totals_of("a", "b", "c", "d")
    clients = totals.clients
    totals.forget({"d"})
    assert [(row.backend, row.opened, row.score_mean) for row in totals.rows()] == [
        *((FORGOTTEN, 3, 1.0), ("c", 3, 1.0), ("d", 4, 1.0)),
    ]
    assert totals.rows()[0].bytes_received == 20
    assert totals.clients == clients
    assert totals.connect_errors == {FORGOTTEN: 3, "c": 3, "d": 4}
    assert {backend: each.count for backend, each in totals.connects.items()} == {
        FORGOTTEN: 2,
        "c": 1,
        "d": 1,
    }
    totals.forget(set())
    assert [row.backend for row in totals.rows()] == [FORGOTTEN, "d"]
    totals.worker_died(0)
    assert [row.active for row in totals.rows()] == [0, 0]


@pytest.mark.usefixtures("few_remembered")
def test_backend_with_open_connections_is_remembered() -> None:
    totals = totals_of("a", "b", "c")
    totals.add(1, report(moved("US", "a", opened=1)))
    totals.forget(set())
    assert [(row.backend, row.country) for row in totals.rows()] == [
        *((FORGOTTEN, "BR"), ("a", "BR"), ("c", "BR"), ("a", "US")),
    ]


@pytest.mark.usefixtures("few_remembered")
def test_backend_that_only_failed_is_forgotten_too() -> None:
    totals = TrafficTotals()
    totals.add(0, report(connect_errors={"a": 2}))
    totals.add(0, report(moved("US", "b", received=5), connect_errors={"c": 1}))
    totals.forget(set())
    assert totals.connect_errors == {FORGOTTEN: 2, "c": 1}
    assert [(row.backend, row.score_mean) for row in totals.rows()] == [(FORGOTTEN, 0.0)]


def test_those_that_went_lately_are_remembered() -> None:
    totals = totals_of("a", "b")
    totals.forget(set())
    assert [row.backend for row in totals.rows()] == ["a", "b"]
