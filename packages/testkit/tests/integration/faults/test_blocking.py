"""Links for tests without an event loop, and the ports that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from testkit.faults.blocking import BlockingLinks
from testkit.faults.listeners import refusing_port, silent_port, unanswering_port
from testkit.faults.vocabulary import Blackhole, Loss, Partition, Refuse, UnavailableError
from testkit.wait import wait_until

_TIMEOUT_S = 10.0


@pytest.fixture
def echo_port() -> Iterator[int]:
    """Of a server that sends back what comes, one connection after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    while data := sock.recv(1024):
                        sock.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_link_is_used_without_a_loop(fault_links: BlockingLinks, echo_port: int) -> None:
    link = fault_links.tcp("127.0.0.1", echo_port)
    with socket.create_connection((link.host, link.port), timeout=_TIMEOUT_S) as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        with link.during(Partition()):
            sock.sendall(b"held")
            sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                sock.recv(100)
            sock.settimeout(_TIMEOUT_S)
        assert sock.recv(100) == b"held"
    assert [entry.what for entry in link.journal.entries] == ["inject", "recover"]


def test_faults_end_though_the_block_fails(fault_links: BlockingLinks, echo_port: int) -> None:
    link = fault_links.tcp("127.0.0.1", echo_port, name="to the echo")
    with pytest.raises(ConnectionRefusedError), link.during(Blackhole(), Refuse()):
        socket.create_connection((link.host, link.port), timeout=_TIMEOUT_S)
    with socket.create_connection((link.host, link.port), timeout=_TIMEOUT_S) as sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
    assert "to the echo" in str(fault_links.journal)


def test_datagrams_too(fault_links: BlockingLinks) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        for sock in (server, client):
            sock.settimeout(_TIMEOUT_S)
        server.bind(("127.0.0.1", 0))
        link = fault_links.udp("127.0.0.1", server.getsockname()[1])
        with link.during(Loss(1.0)):
            client.sendto(b"lost", (link.host, link.port))
            # Not before the link has seen it.
            wait_until(lambda: link.lost, reason="it to be lost")
        client.sendto(b"arrives", (link.host, link.port))
        assert server.recv(100) == b"arrives"


def test_what_a_link_cannot_do_is_said_here_too(fault_links: BlockingLinks) -> None:
    with pytest.raises(UnavailableError):
        fault_links.tcp("127.0.0.1", 9).inject(Loss(0.1))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("port", "said"),
    [(refusing_port, ConnectionRefusedError), (unanswering_port, TimeoutError)],
)
def test_ports_that_do_not_take_connections(
    port: Callable[[str], AbstractContextManager[int]], said: type[OSError], host: str
) -> None:
    with port(host) as number, pytest.raises(said):
        socket.create_connection((host, number), timeout=0.05)


def test_a_port_that_says_nothing() -> None:
    with silent_port() as port, socket.create_connection(("127.0.0.1", port), timeout=0.05) as sock:
        sock.sendall(b"is anybody there?")
        with pytest.raises(TimeoutError):
            sock.recv(1)
