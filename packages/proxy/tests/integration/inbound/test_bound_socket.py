"""Which errors of binding are told how."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing

import pytest

from edgeproxy.config import Address
from edgeproxy.errors import ListenError
from edgeproxy.inbound.bound_socket import bind_socket


def refused(address: Address, kind: socket.SocketKind = socket.SOCK_STREAM) -> str:
    with pytest.raises(ListenError) as told:
        bind_socket(address, to="be", variable="EDGEPROXY_X", kind=kind, if_taken="; by whom")
    return str(told.value)


@pytest.mark.parametrize(("kind", "flag"), [(socket.SOCK_STREAM, "t"), (socket.SOCK_DGRAM, "u")])
def test_port_that_is_taken_is_told_with_the_command_that_finds_by_whom(
    kind: socket.SocketKind, flag: str
) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        assert refused(Address("127.0.0.1", port), kind) == (
            f"cannot be on 127.0.0.1:{port}: another process has the port "
            f"(see `ss -{flag}lnp 'sport = :{port}'`; by whom); set EDGEPROXY_X"
        )


def test_address_of_another_machine_is_refused() -> None:
    told = refused(Address("2001:db8::1", 0))
    assert told.startswith("cannot be on [2001:db8::1]:0: no interface of this machine has that address")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.EACCES, "ports below 1024 need root or CAP_NET_BIND_SERVICE"),
        (errno.ENOBUFS, os.strerror(errno.ENOBUFS)),
    ],
)
def test_what_the_system_says_is_told(monkeypatch: pytest.MonkeyPatch, code: int, told: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert told in refused(Address("127.0.0.1", 80))


def test_address_of_ipv6_takes_clients_of_ipv4_too() -> None:
    with closing(bind_socket(Address("::", 0), to="be", variable="EDGEPROXY_X")) as sock:
        assert not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
