"""What one look at the POP shows of backends and countries."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from edgeproxy.core.controlplane.overview import (
    BackendState,
    BackendView,
    CountryView,
    Overview,
    backend_views,
    country_views,
)
from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.controlplane.traffic import TrafficTotals
from edgeproxy.core.dataplane.connects import Connects
from edgeproxy.core.model import Backend, Verdict
from edgeproxy.core.wire.frames import Report, Traffic

BACKEND = Backend("one", "web", "eu", "DE", "192.0.2.1", 80, True, 2, 100, 3)


def placed(slot: int = 0, verdict: Verdict | None = None, **changes: object) -> PlacedBackend:
    return PlacedBackend(slot, msgspec.structs.replace(BACKEND, **changes), verdict or Verdict())


def traffic(
    *rows: Traffic, errors: Mapping[str, int] | None = None, connects: Mapping[str, Connects] | None = None
) -> TrafficTotals:
    totals = TrafficTotals()
    totals.add(0, Report(rows, {}, dict(errors or {}), (), 0, connects=dict(connects or {})))
    return totals


@pytest.mark.parametrize(
    ("row", "connections", "state"),
    [
        (placed(), 2, BackendState.READY),
        (placed(), 3, BackendState.FULL),
        (placed(hard_limit=0), 3, BackendState.READY),
        (placed(verdict=Verdict(is_good=False)), 0, BackendState.EJECTED),
        (placed(verdict=Verdict(is_good=False), healthy=False), 0, BackendState.DOWN),
    ],
)
def test_a_state_says_what_keeps_a_backend_from_clients(
    row: PlacedBackend, connections: int, state: BackendState
) -> None:
    (view,) = backend_views([row], lambda _slot: connections, traffic())
    assert (view.state, view.connections) == (state, connections)


def test_a_view_holds_the_row_and_the_traffic_of_all_countries() -> None:
    connects = Connects()
    connects.add(0.1, from_affinity=True)
    totals = traffic(
        Traffic("BR", "one", 3, 1, 9.0, 10, 100),
        Traffic("", "one", 1, 1, 9.0, 1, 2),
        errors={"one": 4},
        connects={"one": connects},
    )
    (view,) = backend_views([placed(slot=5)], {5: 2}.__getitem__, totals)
    assert (view.id, view.app, view.region, view.country) == ("one", "web", "eu", "DE")
    assert (view.weight, view.soft_limit, view.hard_limit, view.connections) == (2, 100, 3, 2)
    assert (view.opened, view.active, view.bytes_received, view.bytes_sent) == (4, 2, 11, 102)
    assert (view.errors, view.connects.count, view.connects.from_affinity) == (4, 1, 1)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    views = backend_views([placed(), placed(1, id="six", host="2001:db8::1")], lambda _slot: 0, traffic())
    assert [view.address for view in views] == ["192.0.2.1:80", "[2001:db8::1]:80"]


def test_a_backend_that_left_the_table_is_gone_but_not_its_traffic() -> None:
    totals = traffic(Traffic("BR", "old", 2, 1, 0.0, 10, 20), errors={"never": 1})
    views = backend_views([placed()], lambda _slot: 0, totals)
    assert [(view.id, view.state, view.opened, view.errors) for view in views] == [
        ("never", BackendState.GONE, 0, 1),
        ("old", BackendState.GONE, 2, 0),
        ("one", BackendState.READY, 0, 0),
    ]


def test_countries_come_in_the_order_of_their_connections() -> None:
    totals = traffic(
        Traffic("BR", "one", 1, 0, 0.0, 0, 0),
        Traffic("DE", "one", 2, 2, 0.0, 5, 6),
        Traffic("DE", "two", 1, 0, 0.0, 1, 1),
        Traffic("", "two", 1, 0, 0.0, 0, 0),
    )
    assert country_views(totals) == [
        CountryView("DE", 3, 1, 6, 7),
        CountryView("", 1, 1),
        CountryView("BR", 1, 1),
    ]


def test_refused_are_those_without_a_backend() -> None:
    closes = {"complete": 9, "no_backend": 1, "at_limit": 2, "unreachable": 4, "client_reset": 8}
    overview = Overview(
        version="1",
        node="n",
        region="eu",
        started_at_s=0,
        uptime_s=0,
        workers=1,
        worker_restarts=0,
        table_version=1,
        table_age_s=0,
        bad_rows=0,
        clients=24,
        closes=closes,
        backends=[],
        countries=[],
        dns=None,
    )
    assert overview.refused == 7


@pytest.mark.parametrize("view", [BackendView, CountryView])
def test_what_nobody_has_counted_is_nothing(view: type[msgspec.Struct]) -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(view)}
    counted = [default for default in defaults.values() if default is not msgspec.NODEFAULT]
    assert len(counted) >= 4
    assert not any(counted)
