"""The data plane as a whole: tables, drains, and defects that end one connection and no more."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.wire.frames import TableChanged
from edgeproxy.worker import plane as plane_module
from edgeproxy.worker.relay_copy import Side
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    Countries,
    ThreadedPlane,
    is_reset,
    is_turned_away,
    read_exactly,
    row,
    whole_table,
)


def serves(plane: ThreadedPlane, backend: Backends) -> None:
    """Check that a new client reaches ``backend``."""
    with plane.connect() as client, backend.accept() as served:
        client.sendall(b"?")
        assert read_exactly(served, 1) == b"?"


# ---- tables --------------------------------------------------------------------------------------


def test_a_changed_table_holds_for_new_connections_only(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    with plane.connect() as client, backend.accept() as served:
        plane.call(lambda: plane.plane.change_table(whole_table(row("a", backend.port, healthy=False))))
        assert is_turned_away(plane.address)
        client.sendall(b"still here")
        assert read_exactly(served, 10) == b"still here"


def test_a_change_alters_the_rows_it_names(start_plane: StartPlane, backend: Backends) -> None:
    other = Backends()
    plane = start_plane(row("a", backend.port), row("gone", backend.port, healthy=False))
    newcomer = PlacedBackend(2, row("b", other.port))
    sick = PlacedBackend(0, row("a", backend.port, healthy=False))
    change = TableChanged(2, whole=False, upserts=(sick, newcomer), removed_slots=(1, 99))
    plane.call(lambda: plane.plane.change_table(change))
    serves(plane, other)
    assert plane.plane._backends.keys() == {0, 2}
    other.close()


def test_a_whole_table_replaces_all_rows(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", 9, healthy=False), row("b", 9), row("c", 9))
    plane.call(lambda: plane.plane.change_table(whole_table(row("a", backend.port))))
    serves(plane, backend)
    assert plane.plane._backends.keys() == {0}


# ---- drains --------------------------------------------------------------------------------------


def test_a_drain_ends_with_the_last_connection(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    with plane.connect() as client, backend.accept() as served:
        plane.call(lambda: plane.plane.drain(plane.loop.stop))
        client.sendall(b"go on")
        assert read_exactly(served, 5) == b"go on"
    plane.wait_for_loop_end()
    assert plane.plane.ledger.report().closes == {"complete": 1}


def test_who_waits_to_be_accepted_when_a_drain_begins_is_served(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("a", backend.port))

    def drain_with_one_waiting() -> socket.socket:
        client = plane.connect()
        plane.plane.drain(plane.loop.stop)
        return client

    with plane.call(drain_with_one_waiting) as client, backend.accept() as served:
        served.sendall(b"served")
        assert read_exactly(client, 6) == b"served"
    plane.wait_for_loop_end()


def test_what_is_open_can_be_reset(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    with plane.connect() as client, backend.accept() as served:
        client.sendall(b"?")
        read_exactly(served, 1)
        assert plane.call(plane.plane.reset_all) == 1
        assert is_reset(client)
        assert is_reset(served)
    assert plane.report(1).closes == {"shutdown": 1}


# ---- descriptors ---------------------------------------------------------------------------------


def test_clients_that_were_shed_are_counted_and_told_again_after_a_while(start_plane: StartPlane) -> None:
    plane = start_plane()

    def shed_for(seconds: float) -> None:
        plane.plane._shed()
        plane.plane._shed()
        plane.loop.now_s += seconds
        plane.plane._shed()

    plane.call(lambda: shed_for(plane_module._NOTICE_INTERVAL_S - 1.0))
    assert len(plane.notices) == 1
    plane.call(lambda: shed_for(plane_module._NOTICE_INTERVAL_S * 3))
    assert len(plane.notices) >= 2
    assert plane.report(6).closes == {"overload": 6}


# ---- defects -------------------------------------------------------------------------------------


class FailingCountries(Countries):
    def country(self, address: str) -> str:
        if address == "127.0.0.66":
            raise LookupError("the database has a hole")
        return super().country(address)


def test_a_client_that_a_look_up_chokes_on_is_reset_and_others_are_served(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("a", backend.port), countries=FailingCountries())
    for _ in range(3):
        assert is_turned_away(plane.address, source="127.0.0.66")
    serves(plane, backend)
    report = plane.report(4)
    assert report.closes["internal"] == 3
    (notice,) = plane.notices
    assert (notice.level, notice.event) == ("error", "a defect ended a connection")
    assert str(notice.fields["what"]).startswith("LookupError at test_plane.py:")
    assert notice.fields["message"] == "the database has a hole"


def test_a_defect_while_choosing_ends_that_connection_only(
    start_plane: StartPlane, backend: Backends
) -> None:
    plane = start_plane(row("a", backend.port))
    original = plane.plane.dispatcher.dispatch

    def fail_once(*arguments: object) -> object:
        plane.plane.dispatcher.dispatch = original  # type: ignore[method-assign]
        raise ValueError("no choice")

    plane.call(lambda: setattr(plane.plane.dispatcher, "dispatch", fail_once))
    assert is_turned_away(plane.address)
    serves(plane, backend)
    assert plane.report(2).closes["internal"] == 1


def test_a_defect_in_the_relay_ends_that_connection_only(start_plane: StartPlane, backend: Backends) -> None:
    plane = start_plane(row("a", backend.port))
    with ExitStack() as at_end:
        client, served, other, served_other = (
            at_end.enter_context(sock)
            for sock in (plane.connect(), backend.accept(), plane.connect(), backend.accept())
        )
        for one, another in ((client, served), (other, served_other)):
            one.sendall(b"?")
            read_exactly(another, 1)
        plane.call(lambda: setattr(plane.plane.relay, "pump", lambda *_, **__: 1 // 0))
        client.sendall(b"trigger")
        assert is_reset(served)
        assert is_reset(client)
        plane.call(lambda: delattr(plane.plane.relay, "pump"))
        other.sendall(b"alive")
        assert read_exactly(served_other, 5) == b"alive"
    report = plane.report(2)
    assert report.closes == {"internal": 1, "complete": 1}
    assert plane.state.connections(0) == 0
    assert [notice.fields["message"] for notice in plane.notices] == ["integer division or modulo by zero"]


def test_defects_are_told_once_for_each_place_and_not_without_end(start_plane: StartPlane) -> None:
    plane = start_plane()

    def defect(kind: str) -> None:
        try:
            raise type(kind, (Exception,), {})("message")
        except Exception as error:  # noqa: BLE001
            plane.plane._tell_defect(error)

    for number in range(100):
        defect(f"Defect{number}")
        defect(f"Defect{number}")
    assert len(plane.notices) == plane_module._DEFECTS_TOLD
    assert len({str(notice.fields["what"]) for notice in plane.notices}) == plane_module._DEFECTS_TOLD


def test_a_defect_while_a_connection_ends_ends_the_loop(start_plane: StartPlane, backend: Backends) -> None:
    """Its lease may be held for ever; the successor of the process begins without it."""
    plane = start_plane(row("a", backend.port))

    def fail(*arguments: object, **named: object) -> None:
        raise ValueError("no account")

    with plane.connect() as client, backend.accept() as served:
        client.sendall(b"?")
        read_exactly(served, 1)
        plane.call(lambda: setattr(plane.plane.ledger, "closed", fail))
        client.close()
        served.close()
        plane.wait_for_loop_end()
    assert isinstance(plane.error, ValueError)
    plane.error = None
    for connection in list(plane.plane._connections):
        for side in (connection._client, connection._backend):
            assert isinstance(side, Side)
            side.sock.close()


def test_a_defect_outside_of_connections_ends_the_loop(start_plane: StartPlane) -> None:
    plane = start_plane()

    def fail() -> None:
        raise ValueError("not about any connection")

    plane._calls.put(fail)
    plane._waker.send(b"!")
    plane.wait_for_loop_end()
    assert isinstance(plane.error, ValueError)
    plane.error = None
    plane.plane.drain(lambda: None)
