"""Where metrics are served, and the errors when they cannot be."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from edgeproxy.config import Address
from edgeproxy.errors import ListenError
from edgeproxy.inbound.metrics_port import MetricsPort


def test_an_address_that_nobody_chose_is_on_loopback() -> None:
    port = MetricsPort(Address("0.0.0.0", 0), is_default=True)
    with closing(port.socket):
        assert port.socket.getsockname()[0] == "127.0.0.1"
        assert port.address == f"127.0.0.1:{port.socket.getsockname()[1]}"


def test_an_address_that_was_chosen_is_taken_as_it_is() -> None:
    port = MetricsPort(Address("0.0.0.0", 0), is_default=False)
    with closing(port.socket):
        assert port.socket.getsockname()[0] == "0.0.0.0"


def test_an_ipv6_address_takes_ipv4_clients_too() -> None:
    port = MetricsPort(Address("::", 0), is_default=False)
    with closing(port.socket):
        assert port.address.startswith("[::]:")
        assert not port.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ListenError, match=r"cannot serve metrics on 192\.0\.2\.1:0: .*EDGEPROXY_METRICS"):
        MetricsPort(Address("192.0.2.1", 0), is_default=False)
