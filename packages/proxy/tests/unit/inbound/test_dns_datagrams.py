"""Failures of a socket that a loopback interface cannot show; the rest is in the integration tests."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest

from edgeproxy.inbound.dns_datagrams import BATCH, DatagramEndpoint

PEER = ("192.0.2.1", 0)


class Socket:
    """Has datagrams waiting, and cannot send to everybody."""

    family = socket.AF_INET

    def __init__(self, waiting: int, *, sending_fails: bool = False) -> None:
        self.waiting = waiting
        self.sent: list[bytes] = []
        self._sending_fails = sending_fails

    def recvmsg(self, *_: int) -> tuple[bytes, list[Any], int, tuple[str, int]]:
        if not self.waiting:
            raise BlockingIOError
        self.waiting -= 1
        return b"query", [], 0, PEER

    def sendmsg(self, buffers: list[bytes], _ancillary: object, _flags: int, _peer: object) -> None:
        if self._sending_fails:
            raise OSError("Invalid argument")
        self.sent += buffers

    def setblocking(self, _blocking: bool) -> None: ...

    def setsockopt(self, *_: int) -> None: ...


class Loop:
    """Keeps the reader, to call it by hand."""

    def add_reader(self, _sock: object, reader: Any) -> None:
        self.read = reader


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    return loop


def started(sock: Socket) -> DatagramEndpoint:
    endpoint = DatagramEndpoint(cast(socket.socket, sock), lambda query, _peer: query)
    endpoint.start()
    return endpoint


def test_a_reply_that_cannot_be_sent_is_counted_and_nothing_else(loop: Loop) -> None:
    sock = Socket(waiting=2, sending_fails=True)
    endpoint = started(sock)
    loop.read()
    assert (sock.waiting, endpoint.unsent) == (0, 2)


def test_many_queries_let_the_loop_do_something_else_in_between(loop: Loop) -> None:
    sock = Socket(waiting=BATCH + 3)
    started(sock)
    loop.read()
    assert (sock.waiting, len(sock.sent)) == (3, BATCH)
    loop.read()
    assert (sock.waiting, len(sock.sent)) == (0, BATCH + 3)
