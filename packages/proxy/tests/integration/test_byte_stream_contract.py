"""A running proxy, from its clients' sockets to those of its backends, holds the contract of byte streams.

Each relay by itself, with TLS and without, is in worker/test_relay.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from packages.proxy.tests.integration.proxies import Proxy, StartProxy, row
from testkit.contracts.byte_stream import ByteStreamContract
from testkit.contracts.socket_ends import SocketStreams, connected, listening

HELD_BY_THE_RELAY = 2 << 20


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with listening() as sock:
        yield sock


@pytest.fixture(scope="module")
def proxy(start_shared_proxy: StartProxy, listener: socket.socket) -> Proxy:
    return start_shared_proxy([row("b", listener.getsockname()[1])])


@pytest.mark.feature("relay.copy")
class TestProxy(ByteStreamContract):
    @pytest.fixture
    def harness(self, proxy: Proxy, listener: socket.socket) -> Iterator[SocketStreams]:
        address = "127.0.0.1", proxy.port
        with SocketStreams(
            lambda small: connected(address, small=small), listener, held_bytes=HELD_BY_THE_RELAY
        ) as streams:
            yield streams
