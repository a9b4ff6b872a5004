"""Connections kept ready for clients: over real sockets, in one plane and over worker processes."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from time import monotonic

import pytest
from msgspec.structs import replace

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.backend_rules import BackendRule, ProxyVersion
from edgeproxy.core.dataplane.warm import WarmTerms
from edgeproxy.core.model import Backend, Verdict
from edgeproxy.core.wire.frames import Ready, Start, TableChanged
from edgeproxy.worker import warm
from edgeproxy.worker.shared_state import SharedState, create_segment
from packages.proxy.tests.integration.worker.conftest import StartPlane, StartWorker
from packages.proxy.tests.integration.worker.tls_clients import TlsServer, backend_tls
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    RealWorker,
    ThreadedPlane,
    bound_listener,
    connected,
    is_reset,
    read_exactly,
    read_to_end,
    reset,
    row,
    start_frame,
    whole_table,
)
from testkit.faults.listeners import unanswering_port
from testkit.pki import Pki
from testkit.wait import wait_until


def warming(per_worker: int = 2, idle_s: float = 60.0, lifetime_s: float = 300.0, most: int = 9) -> Start:
    terms = WarmTerms(max_per_backend=most, per_worker=per_worker, idle_s=idle_s, lifetime_s=lifetime_s)
    return replace(start_frame(), warm=terms)


def wait_for_warm(state: SharedState, count: int, slot: int = 0) -> None:
    wait_until(lambda: state.warm.count(slot) == count, reason=f"{count} warm connections")


def ready(plane: ThreadedPlane) -> int:
    """How many could be taken now."""
    keeper = plane.plane.warm
    return plane.call(lambda: sum(len(stock.ready) for stock in keeper._stocks.values()) if keeper else 0)


def wait_for_ready(plane: ThreadedPlane, count: int) -> None:
    wait_until(lambda: ready(plane) == count, reason=f"{count} ready connections")


def is_ended(sock: socket.socket) -> bool:
    """Wait for the end of what the other side sends, in order and with nothing before it."""
    return sock.recv(1) == b""


class Served:
    """A client, and the backend's end of its connection; what else the backend has taken in is warm."""

    def __init__(self, plane: ThreadedPlane, backend: Backends, warm_sockets: list[socket.socket]) -> None:
        self.client = connected(plane.address)
        self.client.sendall(b"?")
        self.server = find(backend, warm_sockets)

    def close(self) -> None:
        self.client.close()
        self.server.close()


def find(backend: Backends, warm_sockets: list[socket.socket]) -> socket.socket:
    """The connection that carries something; takes in new ones until there is one."""
    while True:
        readable = select.select([*warm_sockets, backend.listener], [], [], 10)[0]
        assert readable, "no connection carries anything"
        for sock in readable:
            if sock is backend.listener:
                warm_sockets.append(backend.accept())
            elif sock.recv(1, socket.MSG_PEEK) == b"?":
                warm_sockets.remove(sock)
                return sock


@pytest.fixture
def warm_sockets(at_end: ExitStack) -> list[socket.socket]:
    """What the backend has taken in and carries no client yet."""
    sockets: list[socket.socket] = []

    def close() -> None:
        for sock in sockets:
            sock.close()

    at_end.callback(close)
    return sockets


def take_in(backend: Backends, warm_sockets: list[socket.socket], count: int) -> None:
    while len(warm_sockets) < count:
        warm_sockets.append(backend.accept())


@pytest.mark.feature("connecting.warm")
def test_after_its_first_client_a_backend_has_connections_ready_and_the_next_client_takes_one(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming())
    assert plane.state.warm.count(0) == 0
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 2)
        take_in(backend, warm_sockets, 2)
        already_there = list(warm_sockets)
        with closing(Served(plane, backend, warm_sockets)) as second:
            assert second.server in already_there
            second.server.sendall(b"answer")
            assert read_exactly(second.client, 6) == b"answer"
            assert plane.state.connections(0) == 2
            wait_for_ready(plane, 2)  # what was taken is made up for
    report = plane.report(2)
    assert (report.connects["a"].count, report.connects["a"].from_warm) == (2, 1)


def test_what_a_client_has_used_is_closed_with_it(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming(per_worker=1))
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 1)
        for _ in range(3):
            with closing(Served(plane, backend, warm_sockets)) as served:
                assert served.server.recv(9) == b"?"
                served.client.close()
                assert is_ended(served.server)
            wait_for_ready(plane, 1)


def test_a_greeting_of_the_backend_is_kept_for_the_client(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming(per_worker=1))
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 1)
        take_in(backend, warm_sockets, 1)
        warm_sockets[0].sendall(b"220 ready")
        with connected(plane.address) as client:
            assert read_exactly(client, 9) == b"220 ready"


@pytest.mark.parametrize("end", ["orderly", "reset", "orderly behind a greeting"])
def test_one_that_the_backend_ends_is_noticed_and_no_client_gets_it(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket], end: str
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming(per_worker=1))
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 1)
        take_in(backend, warm_sockets, 1)
        ended = warm_sockets.pop()
        if end == "reset":
            reset(ended)
        else:
            ended.sendall(b"bye" if end != "orderly" else b"")
            ended.close()
        wait_for_warm(plane.state, 0)
        with closing(Served(plane, backend, warm_sockets)) as served:
            served.server.sendall(b"answer")
            assert read_exactly(served.client, 6) == b"answer"


def test_one_that_has_just_ended_is_not_handed_out_though_nobody_was_told_yet(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming(per_worker=1))
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 1)
        take_in(backend, warm_sockets, 1)
        keeper = plane.plane.warm
        assert keeper is not None
        ours = plane.call(lambda: next(iter(keeper._stocks[0].ready)).sock)

        def end_and_take() -> socket.socket | None:
            """In one turn of the loop, so that it cannot hear of the end before."""
            warm_sockets.pop().close()
            wait_until(lambda: not warm._stands(ours), reason="the kernel to know")
            return keeper.take(0, row("a", backend.port))

        assert plane.call(end_and_take) is None


def test_a_client_that_never_used_it_and_a_backend_that_expects_a_proxy_header(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    settings = replace(warming(per_worker=1), backend_rules=(BackendRule(proxy_protocol=ProxyVersion.V1),))
    plane = start_plane(row("a", backend.port), settings=settings)
    first = connected(plane.address)
    with first, backend.accept() as server:
        assert server.recv(6) == b"PROXY "
        wait_for_ready(plane, 1)
        take_in(backend, warm_sockets, 1)
        assert not select.select(warm_sockets, [], [], 0)[0]
        with connected(plane.address) as client:
            client.sendall(b"hello")
            port = client.getsockname()[1]
            expected = f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {plane.address[1]}\r\nhello".encode()
            assert read_exactly(warm_sockets[0], len(expected)) == expected


def test_one_of_a_backend_that_speaks_tls_shakes_hands_when_the_client_comes(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    pki = Pki()
    plane = start_plane(row("a", backend.port), settings=backend_tls(warming(per_worker=1), pki))
    with connected(plane.address), TlsServer(backend.accept(), pki.server("127.0.0.1")):
        wait_for_ready(plane, 1)
        take_in(backend, warm_sockets, 1)
        assert not select.select(warm_sockets, [], [], 0)[0]
        with connected(plane.address) as client:
            client.sendall(b"question")
            with TlsServer(warm_sockets.pop(), pki.server("127.0.0.1")) as server:
                assert read_exactly(server, 8) == b"question"
                server.sendall(b"answer")
                assert read_exactly(client, 6) == b"answer"
    assert plane.report(2).connects["a"].from_warm == 1


def test_they_go_when_no_client_has_come_for_a_while(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming())
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 2)
        take_in(backend, warm_sockets, 2)
        plane.call(lambda: plane.plane.change_settings(warming(idle_s=0.01)))
        plane.call(plane.loop._look_at_deadlines)
        assert [is_ended(sock) for sock in warm_sockets] == [True, True]
        wait_for_warm(plane.state, 0)


def test_each_is_replaced_at_a_certain_age(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming(per_worker=1))
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 1)
        take_in(backend, warm_sockets, 1)
        plane.call(lambda: plane.plane.change_settings(warming(per_worker=1, lifetime_s=0.05)))
        plane.call(plane.loop._look_at_deadlines)
        assert is_ended(warm_sockets[0])
        take_in(backend, warm_sockets, 2)
        assert is_ended(warm_sockets[1])


def changed(*rows: Backend, verdict: Verdict | None = None) -> TableChanged:
    placed = tuple(PlacedBackend(slot, backend, verdict or Verdict()) for slot, backend in enumerate(rows))
    return TableChanged(2, whole=False, upserts=placed, removed_slots=())


@pytest.mark.parametrize("why", ["drained", "ejected", "removed", "moved"])
def test_they_go_with_what_made_the_backend_good_for_clients(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket], why: str
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming())
    change = {
        "drained": changed(row("a", backend.port, healthy=False)),
        "ejected": changed(row("a", backend.port), verdict=Verdict(is_good=False)),
        "removed": TableChanged(2, whole=False, upserts=(), removed_slots=(0,)),
        "moved": changed(row("a", backend.port, host="127.0.0.2")),
    }[why]
    with closing(Served(plane, backend, warm_sockets)) as served:
        wait_for_ready(plane, 2)
        take_in(backend, warm_sockets, 2)
        plane.call(lambda: plane.plane.change_table(change))
        assert [is_ended(sock) for sock in warm_sockets] == [True, True]
        assert plane.state.warm.count(0) == 0
        served.server.sendall(b"still")
        assert read_exactly(served.client, 5) == b"still"


def test_none_are_made_for_a_backend_that_clients_are_sent_to_in_panic(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming())
    doubted = changed(row("a", backend.port), verdict=Verdict(is_good=False))
    plane.call(lambda: plane.plane.change_table(doubted))
    with closing(Served(plane, backend, warm_sockets)):
        plane.call(lambda: None)  # the turn in which they would have been made is over
        assert plane.state.warm.count(0) == 0


def test_another_weight_leaves_them_and_another_limit_those_that_it_leaves_room_for(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming())
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 2)
        roomy = row("a", backend.port, hard_limit=3)
        plane.call(lambda: plane.plane.change_table(changed(roomy)))
        assert plane.state.warm.count(0) == 2
        plane.call(lambda: plane.plane.change_table(changed(row("a", backend.port, hard_limit=2))))
        assert plane.state.warm.count(0) == 1


def test_nobody_looks_for_others_without_a_limit_that_all_share(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming())
    keeper = plane.plane.warm
    assert keeper is not None
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 2)
        assert plane.call(keeper._looks.next_at) is None
        plane.call(lambda: plane.plane.change_table(changed(row("a", backend.port, hard_limit=9))))
        assert plane.call(keeper._looks.next_at) is not None
        plane.call(lambda: plane.plane.change_table(changed(row("a", backend.port))))
        wait_until(lambda: plane.call(keeper._looks.next_at) is None, reason="looking to end")


def test_they_follow_the_addresses_of_a_name(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port, host="backend.test"), settings=warming(per_worker=1))
    plane.call(lambda: plane.plane.resolved("backend.test", ("127.0.0.1",)))
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 1)
        take_in(backend, warm_sockets, 1)
        plane.call(lambda: plane.plane.resolved("other.test", ("127.0.0.9",)))
        plane.call(lambda: plane.plane.resolved("backend.test", ("127.0.0.1", "127.0.0.9")))
        assert plane.state.warm.count(0) == 1
        plane.call(lambda: plane.plane.resolved("backend.test", ("127.0.0.9",)))
        assert is_ended(warm_sockets[0])


def test_a_name_that_resolves_no_more_gets_none(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port, host="backend.test"), settings=warming())
    keeper = plane.plane.warm
    assert keeper is not None
    assert plane.call(lambda: keeper.take(0, row("a", backend.port, host="backend.test"))) is None
    plane.call(lambda: None)  # the turn in which they would have been made is over
    assert plane.state.warm.count(0) == 0


@pytest.mark.parametrize("problem", ["refused", "no answer", "no such family", "no descriptor"])
def test_what_cannot_be_made_ready_is_not_tried_again_at_once(
    start_plane: StartPlane,
    backend: Backends,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    at_end: ExitStack,
) -> None:
    settings = replace(warming(per_worker=1), connect_timeout_s=0.05)
    port, host = backend.port, "127.0.0.1"
    if problem == "refused":
        backend.close()
    elif problem == "no answer":
        port = at_end.enter_context(unanswering_port())
    elif problem == "no such family":
        host = "fe80::1"  # needs a scope, so that connecting fails at once
    plane = start_plane(row("a", port, host=host), settings=settings)
    keeper = plane.plane.warm
    assert keeper is not None
    with monkeypatch.context() as patch:
        if problem == "no descriptor":
            patch.setattr(socket, "socket", _no_descriptor)
        plane.call(lambda: keeper.take(0, row("a", port, host=host)))
        wait_until(lambda: plane.call(lambda: keeper._stocks[0]._failed_s is not None), reason="the failure")
    assert plane.state.warm.count(0) == 0
    assert plane.call(lambda: keeper._stocks[0].missing(keeper._terms, plane.loop.now_s)) == 0


def _no_descriptor(*_: object) -> socket.socket:
    raise OSError(24, "too many open files")


def test_when_descriptors_run_out_they_go_first(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming())
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 2)
        plane.call(plane.plane.overloaded)
        assert plane.state.warm.count(0) == 0
        with closing(Served(plane, backend, warm_sockets)):
            plane.call(lambda: None)  # the turn in which they would have been made is over
            assert plane.state.warm.count(0) == 0
            keeper = plane.plane.warm
            assert keeper is not None
            keeper._resumes_s -= warm.SHORTAGE_S
            with closing(Served(plane, backend, warm_sockets)):
                wait_for_ready(plane, 2)


def test_a_flood_beyond_the_descriptors_costs_no_more_clients_than_without_them(
    start_worker: StartWorker, backend: Backends, at_end: ExitStack
) -> None:
    limit = 64
    worker = start_worker(row("a", backend.port), settings=warming(per_worker=8), descriptors=limit)
    free = limit - sum(number < limit for number in worker.descriptors())

    counting = at_end.enter_context(closing(CountingBackend(backend)))

    def is_served() -> bool:
        client = at_end.enter_context(connected(worker.address))
        outcomes: list[bytes] = []

        def is_decided() -> bool:
            if not select.select([client], [], [], 0)[0]:
                return False
            try:
                outcomes.append(client.recv(1))
            except ConnectionResetError:
                outcomes.append(b"")
            return True

        with suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(b"?")
        counting.serve_until(is_decided)
        return outcomes == [b"!"]

    served = sum(is_served() for _ in range(free // 2 + 2))
    assert served >= free // 2 - 1
    assert worker.state.warm.count(0) == 0


def test_a_drain_drops_them_and_clients_that_come_to_an_end_are_served(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port), settings=warming())
    with closing(Served(plane, backend, warm_sockets)):
        wait_for_ready(plane, 2)
        keeper = plane.plane.warm
        assert keeper is not None
        plane.call(lambda: plane.plane.drain(lambda: None))
        assert plane.state.warm.count(0) == 0
        assert plane.call(lambda: keeper.take(0, row("a", backend.port))) is None
        assert plane.call(lambda: keeper.must_yield(None, 0, 1)) is False  # type: ignore[arg-type]
        plane.call(lambda: plane.plane.change_settings(start_frame()))
        plane.call(lambda: plane.plane.change_settings(warming()))
        assert plane.plane.warm is None


def test_the_terms_change_while_they_are_kept(
    start_plane: StartPlane, backend: Backends, warm_sockets: list[socket.socket]
) -> None:
    plane = start_plane(row("a", backend.port))
    with closing(Served(plane, backend, warm_sockets)):
        plane.call(lambda: plane.plane.change_settings(warming(per_worker=2)))
        assert plane.state.warm.count(0) == 0
        with closing(Served(plane, backend, warm_sockets)):
            wait_for_ready(plane, 2)
            plane.call(lambda: plane.plane.change_settings(warming(per_worker=1)))
            assert plane.state.warm.count(0) == 1
            plane.call(lambda: plane.plane.change_settings(start_frame()))
            assert plane.state.warm.count(0) == 0


@pytest.fixture
def limited(start_plane: StartPlane, backend: Backends) -> ThreadedPlane:
    """A plane whose backend takes one connection."""
    return start_plane(row("a", backend.port, hard_limit=1), settings=warming())


def test_a_client_waits_until_another_worker_has_made_room(limited: ThreadedPlane, backend: Backends) -> None:
    elsewhere = SharedState(limited._segment_fd, worker=1).warm
    assert elsewhere.acquire(0, most=9, hard_limit=1)
    asked = elsewhere.times_asked()
    with connected(limited.address) as client:
        wait_until(lambda: elsewhere.times_asked() != asked, reason="room to be asked for")
        assert not select.select([backend.listener], [], [], 0)[0]
        elsewhere.release(0)
        with backend.accept() as server:
            server.sendall(b"!")
            assert read_exactly(client, 1) == b"!"


def test_a_client_does_not_wait_for_ever(
    limited: ThreadedPlane, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "YIELD_TIMEOUT_S", 0.02)
    elsewhere = SharedState(limited._segment_fd, worker=1).warm
    assert elsewhere.acquire(0, most=9, hard_limit=1)
    with connected(limited.address) as client, backend.accept() as server:
        server.sendall(b"!")
        assert read_exactly(client, 1) == b"!"
    elsewhere.release(0)


def test_a_client_that_goes_away_meanwhile_leaves_nothing_behind(
    limited: ThreadedPlane, backend: Backends
) -> None:
    elsewhere = SharedState(limited._segment_fd, worker=1).warm
    assert elsewhere.acquire(0, most=9, hard_limit=1)
    client = connected(limited.address)
    wait_until(lambda: limited.state.connections(0) == 1, reason="the client to have a place")
    reset(client)
    assert limited.report(1).closes == {"client_reset": 1}
    elsewhere.release(0)
    assert not select.select([backend.listener], [], [], 0)[0]


def test_a_defect_while_it_connects_then_costs_that_client_alone(
    limited: ThreadedPlane, backend: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = SharedState(limited._segment_fd, worker=1).warm
    assert elsewhere.acquire(0, most=9, hard_limit=1)
    monkeypatch.setattr(limited.plane.targets, "of", lambda _backend: 1 // 0)
    with connected(limited.address) as client:
        wait_until(lambda: limited.state.connections(0) == 1, reason="the client to have a place")
        elsewhere.release(0)
        assert is_reset(client)
    monkeypatch.undo()
    with connected(limited.address), backend.accept():
        pass


def test_a_limit_holds_over_workers_with_those_that_are_kept_warm(backend: Backends) -> None:
    """One worker has connections ready when clients come to the other for all the backend's places."""
    limit, kept, rounds = 8, 4, 4
    with ExitStack() as at_end:
        segment_fd = create_segment(workers=2, affinity_capacity=64)
        at_end.callback(os.close, segment_fd)
        state = SharedState(segment_fd)
        workers = []
        for number in range(2):
            listener = at_end.enter_context(bound_listener())
            worker = at_end.enter_context(closing(RealWorker(listener=listener, segment_fd=segment_fd)))
            settings = replace(warming(per_worker=kept), worker=number)
            worker.send(settings, whole_table(row("a", backend.port, hard_limit=limit)))
            workers.append(worker)
        for worker in workers:
            worker.take(Ready)
        counting = at_end.enter_context(closing(CountingBackend(backend)))
        for turn in range(rounds):
            one, other = workers[turn % 2], workers[1 - turn % 2]
            with ExitStack() as at_end_of_turn:

                def come(worker: RealWorker, at_end_of_turn: ExitStack = at_end_of_turn) -> None:
                    client = at_end_of_turn.enter_context(connected(worker.address))
                    client.sendall(b"?")
                    counting.serve_until(lambda: counting.is_answered(client))

                come(one)
                counting.serve_until(lambda: state.warm.count(0) >= kept)
                for _ in range(limit - 1):
                    come(other)
                assert counting.most <= limit
            counting.serve_until(lambda: state.connections(0) == 0)
        assert counting.most == limit
        assert state.warm.times_asked() >= rounds


class CountingBackend:
    """Answers each connection's first byte, and counts how many are open at a time."""

    def __init__(self, backend: Backends) -> None:
        self._listener = backend.listener
        self._open: set[socket.socket] = set()
        self.most = 0

    def is_answered(self, client: socket.socket) -> bool:
        return bool(select.select([client], [], [], 0)[0]) and client.recv(1) == b"!"

    def serve_until(self, is_done: Callable[[], bool]) -> None:
        deadline_s = monotonic() + 10
        while not is_done():
            assert monotonic() < deadline_s
            readable = select.select([self._listener, *self._open], [], [], 0.005)[0]
            # Ends first: a connection that was closed to make room for another is gone when that comes.
            for sock in sorted(readable, key=lambda each: each is self._listener):
                if sock is self._listener:
                    self._open.add(sock.accept()[0])
                    self.most = max(self.most, len(self._open))
                elif not sock.recv(9):
                    self._open.discard(sock)
                    sock.close()
                else:
                    sock.sendall(b"!")

    def close(self) -> None:
        for sock in self._open:
            sock.close()


def test_without_the_switch_nothing_is_kept(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    with connected(plane.address) as client, backend.accept() as server:
        server.close()
        assert read_to_end(client) == b""
        assert plane.plane.warm is None
        assert not select.select([backend.listener], [], [], 0)[0]
