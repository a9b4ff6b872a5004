"""What a worker counts, and that a report empties it."""

from __future__ import annotations

import msgspec
import pytest

from edgeproxy.core.wire.frames import Report, SessionRecord, Traffic
from edgeproxy.worker import ledger as ledger_module
from edgeproxy.worker.ledger import Ledger

RECORD = SessionRecord(
    client="192.0.2.1",
    country="DE",
    backend="eu-1",
    score=1.5,
    from_affinity=False,
    bytes_received=10,
    bytes_sent=200,
    duration_s=0.5,
    reason="complete",
    tries=1,
)


def record(**changes: object) -> SessionRecord:
    return msgspec.structs.replace(RECORD, **changes)


def test_traffic_adds_up_by_country_and_backend() -> None:
    ledger = Ledger(access_log_every=0)
    ledger.opened("DE", "eu-1", 1.5)
    ledger.opened("DE", "eu-1", 2.0)
    ledger.opened("US", "eu-1", 300.0)
    ledger.closed(record(), was_opened=True)
    ledger.closed(record(bytes_received=1, bytes_sent=2), was_opened=True)
    report = ledger.report()
    assert set(report.traffic) == {
        Traffic("DE", "eu-1", 2, 2, 3.5, 11, 202),
        Traffic("US", "eu-1", 1, 0, 300.0, 0, 0),
    }
    assert report.closes == {"complete": 2}


def test_a_session_without_a_backend_is_an_ending_and_no_traffic() -> None:
    ledger = Ledger(access_log_every=0)
    ledger.closed(record(backend="", reason="no_backend"), was_opened=False)
    ledger.shed("overload")
    ledger.shed("overload")
    report = ledger.report()
    assert report.traffic == ()
    assert report.closes == {"no_backend": 1, "overload": 2}


def test_a_connection_reset_unused_is_closed_and_counts_as_a_failed_connect() -> None:
    failures: list[None] = []
    for on_failure, outcomes in ((None, {}), (lambda: failures.append(None), {"eu-1": "cd"})):
        ledger = Ledger(access_log_every=0, on_failure=on_failure)
        ledger.opened("DE", "eu-1", 1.5)
        ledger.rejected("DE", "eu-1")
        report = ledger.report()
        assert report.traffic == (Traffic("DE", "eu-1", 1, 1, 1.5, 0, 0),)
        assert report.connect_errors == {"eu-1": 1}
        assert report.closes == {}
        assert report.outcomes == outcomes
    assert len(failures) == 1


def test_failed_connects_are_counted_by_backend() -> None:
    ledger = Ledger(access_log_every=0)
    for backend in ("a", "b", "a"):
        ledger.connect_failed(backend)
    assert ledger.report().connect_errors == {"a": 2, "b": 1}


def test_a_report_empties_the_ledger() -> None:
    ledger = Ledger(access_log_every=1)
    assert ledger.is_empty()
    ledger.opened("DE", "eu-1", 0.0)
    ledger.closed(record(), was_opened=True)
    assert not ledger.is_empty()
    ledger.report()
    assert ledger.is_empty()
    assert ledger.report() == Report((), {}, {}, (), 0)


@pytest.mark.parametrize("count", ["opened", "shed", "connect_failed"])
def test_anything_counted_is_worth_a_report(count: str) -> None:
    ledger = Ledger(access_log_every=0)
    if count == "opened":
        ledger.opened("DE", "eu-1", 0.0)
    elif count == "shed":
        ledger.shed("overload")
    else:
        ledger.connect_failed("eu-1")
    assert not ledger.is_empty()


@pytest.mark.feature("logs.access")
@pytest.mark.parametrize(("every", "kept"), [(0, []), (1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6])])
def test_the_access_log_gets_each_nth_session(every: int, kept: list[int]) -> None:
    ledger = Ledger(every)
    for number in range(1, 8):
        ledger.closed(record(tries=number), was_opened=True)
    assert [session.tries for session in ledger.report().sessions] == kept


def test_counting_to_the_next_record_goes_on_over_reports() -> None:
    ledger = Ledger(access_log_every=3)
    ledger.closed(record(tries=1), was_opened=True)
    ledger.closed(record(tries=2), was_opened=True)
    assert ledger.report().sessions == ()
    ledger.closed(record(tries=3), was_opened=True)
    assert [session.tries for session in ledger.report().sessions] == [3]


def test_records_that_nobody_fetches_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "_MAX_PENDING_SESSIONS", 2)
    ledger = Ledger(access_log_every=1)
    for _ in range(5):
        ledger.closed(record(), was_opened=True)
    report = ledger.report()
    assert len(report.sessions) == 2
    assert report.sessions_dropped == 3
    assert report.closes == {"complete": 5}
    assert ledger.report().sessions_dropped == 0


class Calls:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_outcomes_are_noted_in_their_order_when_somebody_wants_to_know() -> None:
    ledger = Ledger(access_log_every=0, on_failure=Calls())
    ledger.opened("DE", "eu-1", 0.0)
    ledger.connect_failed("eu-2")
    ledger.opened("DE", "eu-1", 0.0)
    ledger.closed(record(), was_opened=True)
    ledger.closed(record(reason="backend_reset", bytes_sent=0), was_opened=True)
    assert ledger.report().outcomes == {"eu-1": "ccsd", "eu-2": "f"}
    assert ledger.report().outcomes == {}


def test_outcomes_are_not_noted_for_nobody() -> None:
    ledger = Ledger(access_log_every=0)
    ledger.opened("DE", "eu-1", 0.0)
    ledger.connect_failed("eu-1")
    ledger.closed(record(), was_opened=True)
    assert ledger.report().outcomes == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"bytes_sent": 1, "reason": "backend_reset"}, "s"),
        ({"bytes_sent": 1, "reason": "client_reset"}, "s"),
        ({"bytes_sent": 0, "reason": "client_reset"}, ""),
        ({"bytes_sent": 0, "reason": "complete"}, ""),
        ({"bytes_sent": 0, "reason": "shutdown"}, ""),
    ],
)
def test_only_a_reset_before_the_first_byte_speaks_against_a_backend(
    changes: dict[str, object], expected: str
) -> None:
    failed = Calls()
    ledger = Ledger(access_log_every=0, on_failure=failed)
    ledger.closed(record(**changes), was_opened=True)
    assert ledger.report().outcomes.get("eu-1", "") == expected
    assert failed.count == 0


def test_each_failure_is_told_at_once_and_after_it_was_counted() -> None:
    reports: list[Report] = []
    ledger = Ledger(access_log_every=0, on_failure=lambda: reports.append(ledger.report()))
    ledger.opened("DE", "eu-1", 0.0)
    ledger.connect_failed("eu-1")
    ledger.closed(record(reason="backend_reset", bytes_sent=0), was_opened=True)
    assert [report.outcomes for report in reports] == [{"eu-1": "cf"}, {"eu-1": "d"}]
    assert reports[0].connect_errors == {"eu-1": 1}
    assert reports[1].closes == {"backend_reset": 1}


def test_a_session_that_never_got_a_backend_speaks_against_none() -> None:
    failed = Calls()
    ledger = Ledger(access_log_every=0, on_failure=failed)
    ledger.closed(record(backend="", reason="no_backend", bytes_sent=0), was_opened=False)
    assert ledger.report().outcomes == {}
    assert failed.count == 0


def test_connects_are_counted_by_backend() -> None:
    ledger = Ledger(access_log_every=0)
    ledger.opened("DE", "eu-1", 0.0)
    ledger.connected("eu-1", connect_s=0.004, from_affinity=False)
    ledger.opened("US", "eu-1", 0.0)
    ledger.connected("eu-1", connect_s=2.0, from_affinity=True)
    connects = ledger.report().connects["eu-1"]
    assert (connects.count, connects.from_affinity, connects.seconds_sum) == (2, 1, 2.004)
    assert ledger.report().connects == {}


def test_how_many_sessions_are_logged_may_change() -> None:
    ledger = Ledger(access_log_every=0)
    ledger.closed(record(tries=1), was_opened=True)
    ledger.log_each(2)
    for number in (2, 3, 4):
        ledger.closed(record(tries=number), was_opened=True)
    ledger.log_each(0)
    ledger.closed(record(tries=5), was_opened=True)
    assert [session.tries for session in ledger.report().sessions] == [3]
