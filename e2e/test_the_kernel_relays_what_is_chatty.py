"""A session that talks much is relayed by the kernel, and nobody but the operator can tell."""

from __future__ import annotations

import json
from http.client import parse_headers
from typing import Any

import pytest

from e2e.clients import Connection
from e2e.pop import Pop
from testkit.wait import wait_until

_REQUEST = b"GET / HTTP/1.1\r\nHost: backend\r\n\r\n"
_AT_ONCE, _TIMES = 250, 40


@pytest.mark.feature("relay.kernel")
@pytest.mark.blank(
    containers="told by test_the_kernel_relays_in_a_container.py, of one with the powers that it takes"
)
@pytest.mark.planted(relay="auto")
def test_a_session_that_talks_much_bypasses_the_workers_until_more_comes_than_is_read(pop: Pop) -> None:
    pop.start_backends({"mock-eu-1": "DE"})
    pop.configure(relay="kernel")
    proxy = pop.start_proxy()
    if refused := proxy.events("the kernel relays no connections, workers do"):
        pytest.skip(refused[0]["why"])

    with pop.client("DE").connect(proxy) as connection:
        pop.step("a session proves chatty")
        wait_until(
            lambda: _answers(connection) == {"mock-eu-1"} and _relayed(pop)["connections"] == 1,
            reason="the kernel to relay the session",
        )
        assert _answers(connection) == {"mock-eu-1"}

        pop.step("it says more at once than the kernel has credit for")
        for _ in range(_TIMES):
            _say_much(connection)
        assert connection.ask() == "mock-eu-1"
    pop.step("it ends")
    wait_until(lambda: _relayed(pop)["connections"] == 0, reason="the end to be noticed")
    assert _relayed(pop)["promotions"] >= 1


def _answers(connection: Connection) -> set[str]:
    """Who answers, over many more turns than the kernel takes a session for."""
    return {connection.ask() for _ in range(300)}


def _relayed(pop: Pop) -> dict[str, Any]:
    relayed: dict[str, Any] = json.loads(pop.edgeproxy("ctl", "show", "stats", "--json"))["kernel_relay"]
    return relayed


def _say_much(connection: Connection) -> None:
    """Ask many times before the first answer is read, and read them all."""
    connection.sock.sendall(_REQUEST * _AT_ONCE)
    with connection.sock.makefile("rb") as received:
        for _ in range(_AT_ONCE):
            assert received.readline() == b"HTTP/1.1 200 OK\r\n"
            size = int(parse_headers(received)["Content-Length"])
            assert len(received.read(size)) == size
