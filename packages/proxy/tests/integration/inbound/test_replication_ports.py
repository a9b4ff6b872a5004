"""Where datagrams of other POPs arrive, and where these are told to send them."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from edgeproxy.config import Address
from edgeproxy.errors import ListenError
from edgeproxy.inbound.replication_ports import ReplicationPort

pytestmark = pytest.mark.feature("replication.peers")


def port(address: str = "0.0.0.0", *, is_exposable: bool = True) -> ReplicationPort:
    return ReplicationPort(Address(address, 0), to="gossip", variable="THAT", is_exposable=is_exposable)


def test_listens_to_the_world_only_where_that_is_safe() -> None:
    with closing(port()) as open_, closing(port(is_exposable=False)) as closed:
        assert open_.address.host == "0.0.0.0"
        assert closed.address.host == "127.0.0.1"
        assert closed.socket.type == socket.SOCK_DGRAM


def test_a_port_that_is_taken_is_named_with_its_setting() -> None:
    with (
        closing(port("127.0.0.1")) as first,
        pytest.raises(ListenError, match=r"cannot gossip on .*set THAT"),
    ):
        ReplicationPort(first.address, to="gossip", variable="THAT", is_exposable=True)


def test_an_inherited_socket_is_taken_as_it_is() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    made = ReplicationPort(
        Address("0.0.0.0", 1), to="gossip", variable="THAT", is_exposable=True, inherited=[sock]
    )
    with closing(made):
        assert made.address == Address(*sock.getsockname())


def test_others_are_told_what_was_chosen_or_what_is_bound() -> None:
    chosen = Address("192.0.2.7", 4001)
    with closing(port("127.0.0.1")) as made:
        assert made.advertised(chosen, None) == chosen
        assert made.advertised(None, None) == made.address


def test_for_all_addresses_others_are_told_that_from_which_they_are_reached() -> None:
    with closing(port()) as made:
        found = made.advertised(None, Address("127.0.0.1", 4001))
        assert found == Address("127.0.0.1", made.address.port)
        assert made.advertised(None, Address("::1", 4001)).host == "127.0.0.1", (
            "of no use to a socket of IPv4"
        )
        assert made.advertised(None, None).host != "0.0.0.0"
        assert made.advertised(None, Address("no-such-host.invalid", 1)).host == "127.0.0.1"
