from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from edgeproxy.errors import ListenError
from edgeproxy.inbound import dns_port
from edgeproxy.inbound.dns_port import DnsPort


def test_a_free_port_is_the_same_for_both_transports() -> None:
    with closing(DnsPort("127.0.0.1", 0)) as port:
        assert port.streams.getsockname() == port.datagrams.getsockname() == ("127.0.0.1", port.port)
        assert port.address == f"127.0.0.1:{port.port}"
        assert port.streams.type == socket.SOCK_STREAM
        assert port.datagrams.type == socket.SOCK_DGRAM


def test_an_ipv6_address_is_written_in_brackets_and_takes_ipv4_clients_too() -> None:
    with closing(DnsPort("::", 0)) as port:
        assert port.address == f"[::]:{port.port}"
        assert not port.streams.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        assert not port.datagrams.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@pytest.mark.parametrize(("kind", "name"), [(socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")])
def test_a_port_that_is_taken_for_one_transport_is_refused(
    port_factory: Callable[[], int], kind: socket.SocketKind, name: str
) -> None:
    with (
        taken(port_factory, kind) as number,
        pytest.raises(
            ListenError, match=rf"cannot answer DNS over {name} on 127\.0\.0\.1:{number}: "
        ) as told,
    ):
        DnsPort("127.0.0.1", number)
    assert str(told.value).endswith("set EDGEPROXY_DNS_LISTEN_ADDR")
    with closing(DnsPort("127.0.0.1", number)):
        pass  # neither transport was left bound


@contextmanager
def taken(port_factory: Callable[[], int], kind: socket.SocketKind) -> Iterator[int]:
    """A port that nobody has for TCP, whoever has it for UDP, but that is served for one transport."""
    while True:
        number = port_factory()
        with socket.socket(socket.AF_INET, kind) as server:
            if kind is socket.SOCK_STREAM:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("127.0.0.1", number))
            except OSError:  # for UDP nothing is reserved
                continue
            if kind is socket.SOCK_STREAM:
                server.listen()
            yield number
            return


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ListenError, match=r"\[2001:db8::1\]:0: no interface of this machine"):
        DnsPort("2001:db8::1", 0)


@pytest.mark.parametrize(("unlucky_tries", "succeeds"), [(1, True), (15, True), (16, False)])
def test_a_given_port_that_is_taken_for_udp_is_given_back_for_another(
    monkeypatch: pytest.MonkeyPatch, unlucky_tries: int, succeeds: bool
) -> None:
    bound, tries = dns_port._bound, []

    def often_unlucky(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
        if kind is socket.SOCK_DGRAM:
            tries.append(port)
            if len(tries) <= unlucky_tries:
                raise ListenError("taken")
        return bound(host, port, kind)

    monkeypatch.setattr(dns_port, "_bound", often_unlucky)
    if succeeds:
        with closing(DnsPort("127.0.0.1", 0)):
            assert len(tries) == unlucky_tries + 1
    else:
        with pytest.raises(ListenError):
            DnsPort("127.0.0.1", 0)
