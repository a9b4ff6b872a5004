"""What keeps clients from one another, and away from backends that fail: over real sockets."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing

import pytest
from msgspec.structs import replace

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.core.model import Backend, Verdict
from edgeproxy.core.wire.frames import Report, TableApplied, TableChanged
from edgeproxy.core.wire.proxy_protocol import encode_v1
from edgeproxy.worker.process import REPORTS_AHEAD
from edgeproxy.worker.shared_state import create_segment
from packages.proxy.tests.integration.worker.conftest import StartPlane, StartWorker
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    RealWorker,
    ThreadedPlane,
    bound_listener,
    connected,
    is_reset,
    read_exactly,
    reset,
    row,
    start_frame,
    whole_table,
)
from testkit.faults.listeners import refusing_port

LIMITED = replace(start_frame(), rate_limit=TokenBucket(burst=3, per_s=1e-6))
WATCHED = replace(start_frame(), watch_outcomes=True)


def is_refused(plane: ThreadedPlane, source: str = "127.0.0.1", first: bytes = b"?") -> bool:
    # The reset may overtake any of these.
    try:
        with connected(plane.address, source) as client:
            client.sendall(first)
            return is_reset(client)
    except (ConnectionResetError, BrokenPipeError):
        return True


def is_served(
    plane: ThreadedPlane, backend: Backends, source: str = "127.0.0.1", first: bytes = b"?"
) -> bool:
    with connected(plane.address, source) as client:
        client.sendall(first)
        with backend.accept() as server:
            server.sendall(b"hello")
            return read_exactly(client, 5) == b"hello"


def closes(plane: ThreadedPlane) -> dict[str, int]:
    return plane.call(plane.plane.ledger.report).closes


# ---- rate limit ----------------------------------------------------------------------------------


@pytest.mark.feature("admission.rate_limit")
def test_a_client_that_comes_too_often_is_reset_and_counted(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("a", backend.port), settings=LIMITED)
    assert [is_served(plane, backend) for _ in range(3)] == [True] * 3
    assert [is_refused(plane) for _ in range(4)] == [True] * 4
    assert closes(plane)["rate_limited"] == 4


def test_the_limit_of_one_address_is_not_that_of_another(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port), settings=LIMITED)
    for _ in range(3):
        is_served(plane, backend)
    assert is_refused(plane)
    assert is_served(plane, backend, "127.0.0.2")


def test_without_a_limit_everybody_comes_in(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    assert all(is_served(plane, backend) for _ in range(30))


def test_another_limit_holds_at_once(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port), settings=LIMITED)
    assert all(is_served(plane, backend) for _ in range(3))
    assert is_refused(plane)
    settings = replace(LIMITED, rate_limit=TokenBucket(burst=5, per_s=1e6))
    plane.call(lambda: plane.plane.change_settings(settings))
    assert is_served(plane, backend)


@pytest.fixture
def balanced(start_plane: StartPlane, backend: Backends) -> ThreadedPlane:
    """A plane with a limit, whose clients come through a load balancer on 127.0.0.1."""
    settings = replace(
        LIMITED, listeners=(Listening(proxy_protocol=True),), proxy_protocol_trusted=("127.0.0.1/32",)
    )
    return start_plane(row("a", backend.port), settings=settings)


def header(source: str) -> bytes:
    return encode_v1(source, 4711, "198.51.100.1", 443)


def test_behind_a_balancer_each_client_has_a_bucket_of_its_own(
    balanced: ThreadedPlane, backend: Backends
) -> None:
    for _ in range(3):
        assert is_served(balanced, backend, first=header("203.0.113.7"))
    assert is_refused(balanced, first=header("203.0.113.7"))
    for _ in range(3):
        assert is_served(balanced, backend, first=header("203.0.113.8"))
    assert closes(balanced)["rate_limited"] == 1


def test_who_may_not_speak_for_others_is_limited_himself(balanced: ThreadedPlane, backend: Backends) -> None:
    for _ in range(3):
        assert is_served(balanced, backend, "127.0.0.9")
    assert is_refused(balanced, "127.0.0.9")


# ---- verdicts ------------------------------------------------------------------------------------


def judged(slot: int, backend: Backend, verdict: Verdict, version: int = 2) -> TableChanged:
    return TableChanged(
        version, whole=False, upserts=(PlacedBackend(slot, backend, verdict),), removed_slots=()
    )


def test_a_backend_found_bad_gets_no_client_until_it_is_found_good(
    start_plane: StartPlane, backend: Backends
) -> None:
    with refusing_port() as port:
        near, far = row("near", backend.port), row("far", port, country="FR")
        plane = start_plane(near, far)
        assert is_served(plane, backend)
        plane.call(lambda: plane.plane.change_table(judged(0, near, Verdict(is_good=False))))
        assert is_refused(plane), "the other one refuses"
        plane.call(lambda: plane.plane.change_table(judged(0, near, Verdict(), version=3)))
        assert is_served(plane, backend)


def test_the_panic_threshold_comes_with_the_settings(start_plane: StartPlane, backend: Backends) -> None:
    only = row("a", backend.port)
    with_panic = start_plane(only, settings=replace(start_frame(), panic_threshold=0.5))
    without = start_plane(only, settings=replace(start_frame(), panic_threshold=0.0))
    with_panic.call(lambda: with_panic.plane.change_table(judged(0, only, Verdict(is_good=False))))
    without.call(lambda: without.plane.change_table(judged(0, only, Verdict(is_good=False))))
    assert is_served(with_panic, backend)
    assert is_refused(without)
    without.call(lambda: without.plane.change_settings(replace(start_frame(), panic_threshold=0.5)))
    assert is_served(without, backend)


def test_a_trial_is_exact_over_workers(at_end: ExitStack, backend: Backends) -> None:
    """Of a burst on two workers as many as were granted reach the backend on trial; others go elsewhere."""
    other = at_end.enter_context(closing(Backends()))
    segment_fd = create_segment(workers=2, affinity_capacity=1024)
    at_end.callback(os.close, segment_fd)
    tried, good = row("tried", backend.port), row("good", other.port, country="FR")
    table = whole_table(tried, good, row("good-2", other.port, country="FR"))
    workers = [
        at_end.enter_context(
            closing(RealWorker(listener=at_end.enter_context(bound_listener()), segment_fd=segment_fd))
        )
        for _ in range(2)
    ]
    workers[0].state.grant_trial(0, 3)
    for number, worker in enumerate(workers):
        worker.send(start_frame(worker=number), table, judged(0, tried, Verdict(is_good=False, trial=1)))
    for worker in workers:
        worker.take(TableApplied)

    # Each client has an address of its own, or affinity would send it where it has been.
    clients = [
        at_end.enter_context(connected(worker.address, f"127.55.0.{number}"))
        for number in range(1, 26)
        for worker in workers
    ]
    reached = [at_end.enter_context(backend.accept()) for _ in range(3)]
    served = [at_end.enter_context(other.accept()) for _ in range(len(clients) - len(reached))]
    assert len(reached) + len(served) == len(clients)
    backend.listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        backend.listener.accept()


# ---- outcomes ------------------------------------------------------------------------------------


def test_every_kind_of_outcome_is_noted(start_plane: StartPlane, backend: Backends) -> None:
    with refusing_port() as port:
        plane = start_plane(row("b", backend.port), settings=WATCHED)
        is_served(plane, backend)
        with plane.connect() as client:
            reset(backend.accept())
            assert is_reset(client)
        plane.sessions(2)
        plane.call(lambda: plane.plane.change_table(judged(0, row("b", port), Verdict())))
        assert is_refused(plane)
    assert plane.reports_wanted == 2, "one for each failure"


def outcomes(reports: list[Report], backend: str) -> str:
    return "".join(report.outcomes.get(backend, "") for report in reports)


def test_a_worker_reports_failures_without_delay_and_in_their_order(
    start_worker: StartWorker, backend: Backends
) -> None:
    worker = start_worker(row("b", backend.port), settings=WATCHED)
    with connected(worker.address) as client, backend.accept() as server:
        server.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
    reports = worker.reports(ended=1)
    assert outcomes(reports, "b") == "cs"
    with refusing_port() as port:
        worker.send(judged(0, row("b", port), Verdict()))
        worker.take(TableApplied)
        with connected(worker.address) as client:
            assert is_reset(client)
        # The session ends after the report of its failed connect has gone.
        failure = worker.take(Report)
        assert failure.outcomes == {"b": "f"}
        assert failure.closes == {}


def test_a_flood_of_failures_is_reported_in_bounded_pieces(start_worker: StartWorker) -> None:
    failures = 20 * REPORTS_AHEAD
    with refusing_port() as port:
        worker = start_worker(row("b", port), settings=WATCHED)
        with ExitStack() as held:
            for client in [held.enter_context(connected(worker.address)) for _ in range(failures)]:
                assert is_reset(client)
        reports = worker.reports(ended=failures)
    assert sum(report.connect_errors.get("b", 0) for report in reports) == failures
    assert len(reports) < failures / 4
