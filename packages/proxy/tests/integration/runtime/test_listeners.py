"""One address, several sockets, one owner."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from edgeproxy.errors import ListenError
from edgeproxy.runtime.listeners import activated_listeners, adopt_listeners, open_listeners

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


def accepted(listeners: list[socket.socket]) -> list[int]:
    """Take in all who wait; return how many each socket had."""
    counts = []
    for listener in listeners:
        listener.setblocking(False)
        count = 0
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
        counts.append(count)
    return counts


def test_all_sockets_share_the_port_and_the_clients() -> None:
    with closing(open_listeners("127.0.0.1", 0, 3)) as listeners:
        assert {sock.getsockname() for sock in listeners.sockets} == {("127.0.0.1", listeners.port)}
        assert listeners.address == f"127.0.0.1:{listeners.port}"
        clients = [socket.create_connection(("127.0.0.1", listeners.port)) for _ in range(60)]
        counts = accepted(listeners.sockets)
        assert sum(counts) == 60
        assert min(counts) > 0
        for client in clients:
            client.close()


def test_accepted_sockets_send_without_delay() -> None:
    with closing(open_listeners("127.0.0.1", 0, 1)) as listeners:
        with socket.create_connection(("127.0.0.1", listeners.port)):
            taken, _ = listeners.sockets[0].accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_after_close_clients_are_refused_and_the_address_is_free() -> None:
    listeners = open_listeners("127.0.0.1", 0, 2)
    listeners.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listeners.port))
    open_listeners("127.0.0.1", listeners.port, 2).close()


def test_an_address_that_is_claimed_is_refused_until_its_owner_is_gone() -> None:
    owner = open_listeners("127.0.0.1", 0, 1)
    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{owner.port}: another process has"):
        open_listeners("127.0.0.1", owner.port, 1)
    # Who tried took no client.
    with socket.create_connection(("127.0.0.1", owner.port)):
        assert accepted(owner.sockets) == [1]
    owner.close()
    open_listeners("127.0.0.1", owner.port, 1).close()


@needs_ipv6
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("127.0.0.1", "::"),
        ("::", "0.0.0.0"),
        ("0.0.0.0", "::"),
        ("::1", "::"),
    ],
)
def test_an_address_that_overlaps_is_refused(first: str, second: str) -> None:
    with closing(open_listeners(first, 0, 1)) as owner, pytest.raises(ListenError, match="another process"):
        open_listeners(second, owner.port, 1)


@needs_ipv6
@pytest.mark.parametrize(
    ("first", "second"), [("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "::1"), ("0.0.0.0", "::1")]
)
def test_addresses_apart_may_have_one_port(first: str, second: str) -> None:
    with (
        closing(open_listeners(first, 0, 1)) as one,
        closing(open_listeners(second, one.port, 1)) as other,
    ):
        assert one.port == other.port


@needs_ipv6
def test_the_ipv6_wildcard_takes_ipv4_clients_too() -> None:
    with closing(open_listeners("::", 0, 1)) as listeners:
        assert listeners.address == f"[::]:{listeners.port}"
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, listeners.port)).close()
        assert accepted(listeners.sockets) == [2]


def test_a_port_of_another_program_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        with pytest.raises(ListenError, match=rf"ss -tlnp 'sport = :{port}'"):
            open_listeners("127.0.0.1", port, 2)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:0: no interface of this machine has that address"):
        open_listeners("192.0.2.1", 0, 1)


def test_a_port_for_root_is_refused_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_sock: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, who is refused nothing.
    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(ListenError, match=r"127\.0\.0\.1:80: ports below 1024 need root or CAP_NET_BIND"):
        open_listeners("127.0.0.1", 80, 1)


def test_any_other_refusal_is_told_in_the_systems_words() -> None:
    with pytest.raises(ListenError, match=r"no\.such\.host\.invalid:0: .+; set EDGEPROXY_LISTEN_ADDR"):
        open_listeners("no.such.host.invalid", 0, 1)


def test_who_takes_over_opens_what_is_missing_and_closes_none() -> None:
    with closing(open_listeners("127.0.0.1", 0, 2)) as former:
        inherited = [socket.socket(fileno=os.dup(fd)) for fd in former.descriptors]
        with closing(adopt_listeners(inherited, 3)) as later:
            assert {sock.getsockname() for sock in later.sockets} == {("127.0.0.1", former.port)}
            assert len(later.sockets) == 3
            assert later.share(0, 2) == [later.sockets[0], later.sockets[2]]
            assert later.share(1, 2) == [later.sockets[1], later.sockets[0]]


def test_sockets_of_a_service_manager_are_shared_where_none_can_be_added() -> None:
    theirs = socket.create_server(("127.0.0.1", 0), reuse_port=False)
    with closing(activated_listeners([theirs])) as listeners:
        assert listeners.sockets == [theirs]
        assert [listeners.share(place, 2) for place in range(2)] == [[theirs], [theirs]]
        with socket.create_connection(("127.0.0.1", listeners.port)):
            taken, _ = theirs.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        inherited = [socket.socket(fileno=os.dup(fd)) for fd in listeners.descriptors]
        with closing(adopt_listeners(inherited, 2)) as later:
            assert later.sockets == inherited[:1]


def test_a_socket_of_a_service_manager_is_served_by_one_proxy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        with (
            closing(activated_listeners([theirs.dup()])),
            pytest.raises(ListenError, match="another process has the port"),
        ):
            activated_listeners([theirs])
        activated_listeners([theirs.dup()]).close()
