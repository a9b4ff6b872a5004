"""SIGTERM ends the proxy in good order: who is in the middle of something may finish."""

from __future__ import annotations

import signal

import pytest

from e2e.clients import Client
from e2e.processes import Pop, Proxy
from testkit.wait import wait_until

_CLIENT = Client.of("DE")


@pytest.mark.feature("process.stop")
def test_a_request_in_flight_is_answered_and_new_clients_are_refused(pop: Pop) -> None:
    pop.start_backends(("mock-eu-1", "eu", "DE"))
    proxy = pop.start_proxy()

    with _CLIENT.connect(proxy) as connection:
        connection.putrequest("GET", "/api/latency")
        wait_until(lambda: pop.open_connections() == {"mock-eu-1": 1}, reason="the connection to be routed")

        proxy.process.kill(signal.SIGTERM)
        proxy.process.wait_output('"event": "draining"')
        wait_until(lambda: _is_refused(_CLIENT, proxy), reason="the port to be closed")
        assert proxy.process.running

        connection.endheaders()
        assert connection.answer() == "mock-eu-1"

    assert proxy.process.wait_exit() == 0
    assert proxy.process.group() == []
    (stopped,) = proxy.events("stopped")
    assert stopped["sessions_reset"] == 0


def test_whoever_stays_beyond_the_shutdown_timeout_is_reset(pop: Pop) -> None:
    pop.start_backends(("mock-eu-1", "eu", "DE"))
    pop.configure(shutdown_timeout_secs="0.2")
    proxy = pop.start_proxy()

    with _CLIENT.connect(proxy) as connection:
        assert connection.ask() == "mock-eu-1"
        proxy.process.kill(signal.SIGTERM)
        assert proxy.process.wait_exit() == 0
        with pytest.raises(ConnectionResetError):
            connection.sock.recv(1)
    (stopped,) = proxy.events("stopped")
    assert stopped["sessions_reset"] == 1


def _is_refused(client: Client, proxy: Proxy) -> bool:
    try:
        client.connect(proxy).close()
    except ConnectionRefusedError:
        return True
    return False
