"""Clients that may not connect are reset before anything is looked for on their behalf."""

from __future__ import annotations

import msgspec
import pytest

from edgeproxy.core.dataplane.admission import AccessLists
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.wire.proxy_protocol import encode_v1
from packages.proxy.tests.integration.worker.conftest import StartPlane
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    Countries,
    connected,
    is_reset,
    is_turned_away,
    read_exactly,
    row,
    start_frame,
)


@pytest.mark.feature("admission.lists")
def test_a_denied_client_is_reset_and_counted(start_plane: StartPlane, backend: Backends) -> None:
    settings = msgspec.structs.replace(
        start_frame(), access=AccessLists(deny=("127.0.0.2/32",), deny_countries=("FR",))
    )
    plane = start_plane(row("a", backend.port), settings=settings, countries=Countries(**{"127.0.0.3": "FR"}))
    assert is_turned_away(plane.address, "127.0.0.2")
    assert is_turned_away(plane.address, "127.0.0.3")
    with connected(plane.address, "127.0.0.4") as client, backend.accept() as server:
        client.sendall(b"question")
        assert read_exactly(server, 8) == b"question"
    assert plane.report(3).closes == {"denied": 2, "complete": 1}


def test_the_lists_are_about_those_whom_a_balancer_speaks_for(
    start_plane: StartPlane, backend: Backends
) -> None:
    settings = msgspec.structs.replace(
        start_frame(listening=Listening(proxy_protocol=True), proxy_protocol_trusted=("127.0.0.1/32",)),
        access=AccessLists(allow=("203.0.113.0/24",)),
    )
    plane = start_plane(row("a", backend.port), settings=settings)
    with plane.connect() as client:
        client.sendall(encode_v1("203.0.113.7", 4711, "198.51.100.1", 443) + b"question")
        with backend.accept() as server:
            assert read_exactly(server, 8) == b"question"
    with plane.connect() as client:
        client.sendall(encode_v1("198.51.100.7", 4711, "198.51.100.1", 443))
        assert is_reset(client)
    assert is_turned_away(plane.address, "127.0.0.2")
    assert plane.report(3).closes == {"complete": 1, "denied": 2}
