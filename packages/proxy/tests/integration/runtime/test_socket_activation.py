"""Real descriptors, passed as systemd passes them."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from edgeproxy.config import Address
from edgeproxy.errors import ListenError
from edgeproxy.runtime.socket_activation import ActivatedSockets

Passed = Callable[..., ActivatedSockets]


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listening(cleanup: ExitStack, kind: int = socket.SOCK_STREAM, host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = cleanup.enter_context(socket.socket(family, kind))
    sock.bind((host, 0))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def address_of(sock: socket.socket) -> Address:
    return Address(*sock.getsockname()[:2])


def passed(fds: list[int], names: str | None = None, **environ: str) -> ActivatedSockets:
    """Each descriptor at the next number from some free one on."""
    first = fcntl.fcntl(fds[0], fcntl.F_DUPFD, 600)
    for number, fd in enumerate(fds[1:], first + 1):
        os.dup2(fd, number)
    variables = {"LISTEN_FDS": str(len(fds)), "LISTEN_PID": str(os.getpid()), **environ}
    if names is not None:
        variables["LISTEN_FDNAMES"] = names
    activated = ActivatedSockets(variables, first)
    assert variables == {}
    return activated


def test_a_socket_goes_to_the_listener_of_its_address(cleanup: ExitStack) -> None:
    one, two = listening(cleanup), listening(cleanup)
    activated = passed([one.fileno(), two.fileno()], "edgeproxy.socket:edgeproxy.socket")
    assert activated.take("main", Address("127.0.0.1", 1)) == []
    (taken,) = activated.take("", address_of(two))
    with taken:
        assert taken.getsockname() == two.getsockname()
        assert not taken.get_inheritable()
    (taken,) = activated.take("main", address_of(one))
    taken.close()
    activated.refuse_rest()


def test_a_name_counts_more_than_an_address(cleanup: ExitStack) -> None:
    main, tls = listening(cleanup), listening(cleanup)
    activated = passed([tls.fileno(), main.fileno()], "tls:main")
    (taken,) = activated.take("main", address_of(tls))
    with taken:
        assert taken.getsockname() == main.getsockname()
    (taken,) = activated.take("tls", Address("0.0.0.0", 8443))
    with taken:
        assert taken.getsockname() == tls.getsockname()


def test_several_sockets_may_have_one_name(cleanup: ExitStack) -> None:
    sockets = [listening(cleanup) for _ in range(3)]
    taken = passed([sock.fileno() for sock in sockets], "main:main:main").take("main", Address("::", 80))
    assert [sock.getsockname() for sock in taken] == [sock.getsockname() for sock in sockets]
    for sock in taken:
        sock.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_addresses_may_be_ipv6(cleanup: ExitStack) -> None:
    sock = listening(cleanup, host="::1")
    (taken,) = passed([sock.fileno()]).take("main", address_of(sock))
    taken.close()


def test_a_socket_that_belongs_to_none_is_named(cleanup: ExitStack) -> None:
    stray = listening(cleanup)
    where = f"127.0.0.1:{stray.getsockname()[1]}"
    with pytest.raises(ListenError, match=rf"listens on {where} \(called 'tls'\), where no listener"):
        passed([stray.fileno()], "tls").refuse_rest()
    with pytest.raises(ListenError, match=rf"listens on {where} \(without a name\)"):
        passed([stray.fileno()]).refuse_rest()


def test_what_takes_no_tcp_clients_is_refused(cleanup: ExitStack) -> None:
    datagrams = listening(cleanup, socket.SOCK_DGRAM)
    ours, theirs = socket.socketpair()
    cleanup.enter_context(ours)
    cleanup.enter_context(theirs)
    connected = cleanup.enter_context(socket.create_connection(listening(cleanup).getsockname()))
    for sock in (datagrams, ours, connected):
        with pytest.raises(ListenError, match=r"that TCP clients cannot be accepted on.*called 'main'"):
            passed([sock.fileno()], "main")


def test_what_is_no_socket_is_refused(cleanup: ExitStack) -> None:
    reader, writer = os.pipe()
    cleanup.callback(os.close, reader)
    cleanup.callback(os.close, writer)
    with pytest.raises(ListenError, match=r"a descriptor that is no socket: \d+ \(called 'fifo'\)"):
        passed([reader], "fifo")


@pytest.mark.parametrize("environ", [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": "many"}])
def test_what_is_meant_for_another_process_is_left_alone(cleanup: ExitStack, environ: dict[str, str]) -> None:
    sock = listening(cleanup)
    activated = passed([sock.fileno()], "main", **environ)
    assert activated.take("main", address_of(sock)) == []
    activated.refuse_rest()


def test_without_the_variables_nothing_was_passed() -> None:
    ActivatedSockets({}).refuse_rest()
