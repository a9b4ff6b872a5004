"""What a successor is given, and what it makes of a handover that it cannot use."""

from __future__ import annotations

import socket
from contextlib import closing

import msgspec
import pytest

from edgeproxy.errors import EdgeproxyError
from edgeproxy.ports import HANDOVER_VARIABLE
from edgeproxy.runtime.handover import Bequest, Estate, Inheritance, receive, written


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_sockets_go_to_who_asks_for_their_address_and_the_rest_is_closed() -> None:
    wanted, unwanted = listening(), listening()
    address, forgotten = wanted.getsockname(), unwanted.getsockname()
    inheritance = Inheritance(
        (
            Bequest("listener", "127.0.0.1:1", (wanted.detach(),)),
            Bequest("dns", "127.0.0.1:2", (unwanted.detach(),)),
        )
    )
    assert inheritance.take("dns", "127.0.0.1:1") == []
    (taken,) = inheritance.take("listener", "127.0.0.1:1")
    with closing(taken):
        assert inheritance.take("listener", "127.0.0.1:1") == []
        inheritance.close()
        assert taken.getsockname() == address
        with socket.create_connection(address, 10):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(forgotten, 10)


def test_nobody_is_succeeded_without_the_variable() -> None:
    assert receive({}) is None


def test_a_variable_that_names_no_handover_is_refused_and_removed() -> None:
    environ = {HANDOVER_VARIABLE: "x"}
    with pytest.raises(EdgeproxyError, match="HANDOVER_FD=x names no handover"):
        receive(environ)
    assert environ == {}


def test_a_handover_of_an_unknown_form_is_refused_to_its_sender() -> None:
    ours, theirs = socket.socketpair()
    estate = Estate(pid=1, version="9.9", segment_fd=3, slots={}, bequests=(), format=2)
    with ours:
        ours.sendall(written(estate))
        with pytest.raises(EdgeproxyError, match=r"version 9\.9 hands over in a way"):
            receive({HANDOVER_VARIABLE: str(theirs.detach())})
        ours.settimeout(10)
        answer = msgspec.msgpack.decode(ours.recv(65536))
    assert "hands over in a way this version does not know" in answer["why"]
