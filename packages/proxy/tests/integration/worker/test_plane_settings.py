"""Settings that change under a running worker: it is then as one that was started with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgspec
import pytest

from edgeproxy.core.dataplane.admission import AccessLists
from edgeproxy.core.dataplane.backend_rules import BackendRule, ProxyVersion
from edgeproxy.core.dataplane.caps import Caps
from edgeproxy.core.dataplane.lifetime import Lifetimes
from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.core.dataplane.waiting import QueueTerms
from edgeproxy.core.dataplane.warm import WarmTerms
from edgeproxy.core.wire.frames import Start, TlsSettings
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.plane import Plane
from edgeproxy.worker.shared_state import SharedState, create_segment
from packages.proxy.tests.integration.worker.workers import Countries, start_frame

OTHER = msgspec.structs.replace(
    start_frame(),
    opening_timeout_s=3.0,
    connect_timeout_s=4.0,
    binding_ttl_s=50.0,
    lifetimes=Lifetimes(40.0, 30.0, 20.0),
    retry_budget_percent=35,
    access_log_every=7,
    panic_threshold=0.25,
    caps=Caps(90, 9),
    queue=QueueTerms(10, 2.0),
    tls=TlsSettings(handshake_timeout_s=6.0, max_handshakes=5),
    app_by_server_name={"shop.example": "shop"},
    proxy_protocol_trusted=("192.0.2.0/24", "2001:db8::/32"),
    backend_rules=(BackendRule(proxy_protocol=ProxyVersion.V2),),
    access=AccessLists(deny_countries=("US",)),
    rate_limit=TokenBucket(burst=20, per_s=1.5),
    warm=WarmTerms(4, 2, 8.0, 9.0),
)
SEEN: dict[str, Callable[[Plane], object]] = {
    "openings": lambda plane: plane.openings.duration_s,
    "connects": lambda plane: plane.connects.duration_s,
    "looks": lambda plane: plane.looks.duration_s,
    "bindings": lambda plane: plane.dispatcher.binding_ttl_s,
    "lifetimes": lambda plane: plane.lifetimes,
    "retries": lambda plane: plane.retries.percent,
    "access log": lambda plane: (plane.ledger._access_log_every, plane.ledger._until_next_record),
    "panic": lambda plane: plane._selection._panic_threshold,
    "caps": lambda plane: (plane.door.caps, plane._is_capped),
    "queue": lambda plane: plane.waiting_room.is_open,
    "length of the queue": lambda plane: plane.waiting_room._lines.length,
    "time in the queue": lambda plane: plane.waiting_room._timeouts.duration_s,
    "handshakes": lambda plane: plane.tls and plane.tls._with_clients._limit,
    "time of handshakes": lambda plane: plane.tls and plane.tls._with_clients._deadlines.duration_s,
    "apps": lambda plane: plane.server_names.app_of("shop.example"),
    "trusted": lambda plane: plane.networks_trusted.hold("192.0.2.1"),
    "rules": lambda plane: plane.backend_rules is None,
    "lists": lambda plane: (plane._admission is None, plane._is_guarded),
    "rate": lambda plane: plane._rate_limit,
    "warm": lambda plane: plane.warm and plane.warm._terms,
    "warm connects": lambda plane: plane.warm and plane.warm._connects.duration_s,
    "warm lifetimes": lambda plane: plane.warm and plane.warm._lifetimes.duration_s,
    "warm idle": lambda plane: plane.warm and plane.warm._idles.duration_s,
}

MakePlane = Callable[[Start], Plane]


@pytest.fixture
def make_plane() -> Iterator[MakePlane]:
    """Put planes together without running them."""
    with ExitStack() as at_end:

        def make(settings: Start) -> Plane:
            fd = create_segment(workers=1, affinity_capacity=8, clients_capacity=8)
            at_end.callback(os.close, fd)
            state = SharedState(fd, 0)
            loop = Loop()
            at_end.callback(loop._epoll.close)
            return Plane(loop, settings, Countries(), state, lambda _notice: None, lambda: None)

        yield make


def seen(plane: Plane) -> dict[str, object]:
    return {name: look(plane) for name, look in SEEN.items()}


@pytest.mark.parametrize("way", ["there", "and back"])
def test_a_plane_whose_settings_change_is_as_one_that_was_started_with_them(
    make_plane: MakePlane, way: str
) -> None:
    # TLS comes and stays: who terminates it is told at the start.
    before, after = msgspec.structs.replace(start_frame(), tls=TlsSettings()), OTHER
    if way == "and back":
        before, after = after, before
    plane, fresh = make_plane(before), make_plane(after)
    had, wanted = seen(plane), seen(fresh)
    assert [name for name in SEEN if had[name] == wanted[name]] == []
    plane.change_settings(after)
    assert seen(plane) == wanted


def test_rate_or_lists_alone_guard_a_plane(make_plane: MakePlane) -> None:
    assert not make_plane(start_frame())._is_guarded
    assert make_plane(msgspec.structs.replace(start_frame(), rate_limit=OTHER.rate_limit))._is_guarded
    assert make_plane(msgspec.structs.replace(start_frame(), access=OTHER.access))._is_guarded
