from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

import pytest

from testkit.ports import free_port, reserved_port


def listen(port: int, *options: int, address: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in options:
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((address, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


ADDRESSES = ["127.0.0.1", "0.0.0.0", *(["::1", "::"] if socket.has_dualstack_ipv6() else [])]


@pytest.mark.parametrize("address", ADDRESSES)
def test_server_may_listen_on_a_reserved_port(address: str) -> None:
    with reserved_port() as port, listen(port, socket.SO_REUSEADDR, address=address):
        target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
        socket.create_connection((target, port), timeout=5).close()


def test_several_listeners_may_share_a_reserved_port() -> None:
    with reserved_port() as port, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(listen(port, socket.SO_REUSEPORT))


@pytest.mark.parametrize("address", ADDRESSES)
def test_nobody_gets_a_reserved_port_by_chance(address: str) -> None:
    with reserved_port() as port, pytest.raises(OSError, match="in use") as info:
        listen(port, address=address)
    assert info.value.errno == errno.EADDRINUSE


def test_connecting_is_refused_until_somebody_listens() -> None:
    with reserved_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_port_is_given_back_at_the_end() -> None:
    with reserved_port() as port:
        pass
    listen(port).close()


def test_machine_without_ipv6_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with reserved_port() as port, pytest.raises(OSError, match="in use"):
        listen(port)


def test_free_ports_differ_and_stay_reserved() -> None:
    ports = {free_port() for _ in range(20)}
    assert len(ports) == 20
    for port in ports:
        with pytest.raises(OSError, match="in use"):
            listen(port)
