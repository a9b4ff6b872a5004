"""Clients of the stories: sockets with an address of their own, and what came back on them."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Protocol, Self

from testkit.wait import wait_until

TIMEOUT_S = 20.0


class Address(Protocol):
    """Where something listens; the proxy's is that of its main listener."""

    host: str
    port: int


class Dial(Protocol):
    """Makes a connected socket on the client's host."""

    def __call__(
        self, source: str, to: tuple[str, int], *, kind: str = "tcp", timeout_s: float = ...
    ) -> socket.socket:
        """Connect ``source``; ``kind`` is ``tcp`` or ``udp``.

        Raises:
            OSError: what connecting ended with.
        """
        ...


def dial_from_here(
    source: str, to: tuple[str, int], *, kind: str = "tcp", timeout_s: float = TIMEOUT_S
) -> socket.socket:
    """Connect from an address of this machine."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    try:
        made.settimeout(timeout_s)
        made.bind((source, 0))
        made.connect(to)
    except BaseException:
        made.close()
        raise
    return made


class Connection(http.client.HTTPConnection):
    """One connection through the proxy; each :meth:`ask` is a request on it."""

    sock: socket.socket

    @classmethod
    def over(cls, sock: socket.socket) -> Self:
        """Speak HTTP over a socket that is connected."""
        connection = cls("backend")
        connection.sock = sock
        # Once it has ended it stays so: what connects anew would do it from an address of this machine.
        connection.auto_open = 0
        return connection

    def ask(self) -> str:
        """Send a request and return the id of the backend that answered.

        Raises:
            OSError: refused, reset, or ended without an answer.
        """
        self.request("GET", "/api/latency")
        return self.answer()

    def answer(self) -> str:
        """Wait for the answer to what was sent and return the id of the backend that gave it."""
        response = self.getresponse()
        response.read()
        assert response.status == 200
        backend = response.getheader("X-Backend-ID")
        assert backend is not None
        return backend

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody at an address; comes back with the same address each time."""

    address: str
    dial: Dial = dial_from_here

    def socket(
        self, proxy: Address, port: int | None = None, *, kind: str = "tcp", timeout_s: float = TIMEOUT_S
    ) -> socket.socket:
        """Connect to the proxy, by default to its main listener."""
        return self.dial(self.address, (proxy.host, port or proxy.port), kind=kind, timeout_s=timeout_s)

    def connect(self, proxy: Address, port: int | None = None) -> Connection:
        """Connect to the proxy, and send nothing yet."""
        return Connection.over(self.socket(proxy, port))

    def ask(self, proxy: Address, port: int | None = None) -> str:
        """Connect, send a request, and return the id of the backend that answered."""
        with self.connect(proxy, port) as connection:
            return connection.ask()

    def is_refused(self, proxy: Address) -> bool:
        """Whether the port of the proxy is closed."""
        try:
            self.socket(proxy).close()
        except ConnectionRefusedError:
            return True
        return False


@dataclass
class Load:
    """What clients saw that come again and again, each with one request a connection."""

    answers: list[tuple[str, str]] = field(default_factory=list)
    """At which address, and from which backend."""
    failures: list[str] = field(default_factory=list)

    def wait_more(self, answers: int) -> None:
        """Wait for so many more answers."""
        target = len(self.answers) + answers
        wait_until(lambda: len(self.answers) >= target, reason=f"{answers} more answers", timeout_s=60)


@contextmanager
def keep_coming(proxy: Address, clients: list[Client]) -> Iterator[Load]:
    """Have clients connect, ask and go, again and again, until the block ends."""
    load, stop = Load(), Event()

    def come_again_and_again(client: Client) -> None:
        while not stop.is_set():
            try:
                backend = client.ask(proxy)
            except (OSError, http.client.HTTPException) as error:
                load.failures.append(repr(error))
            else:
                load.answers.append((client.address, backend))

    threads = [Thread(target=come_again_and_again, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()
