"""SIGTERM ends the proxy in good order: who is in the middle of something may finish."""

from __future__ import annotations

import pytest

from e2e.pop import Pop
from testkit.wait import wait_until

pytestmark = pytest.mark.new_interpreters


@pytest.mark.feature("process.stop")
@pytest.mark.planted(shutdown_timeout_secs="0")
def test_a_request_in_flight_is_answered_and_new_clients_are_refused(pop: Pop) -> None:
    pop.start_backends({"mock-eu-1": "DE"})
    proxy = pop.start_proxy()
    client = pop.client("DE")

    with client.connect(proxy) as connection:
        connection.putrequest("GET", "/api/latency")
        wait_until(
            lambda: pop.open_connections() == {"mock-eu-1": 1},
            reason="the connection to be routed",
            interval_s=0.2,
        )

        pop.step("the proxy is asked to stop")
        proxy.begin_stop()
        wait_until(lambda: proxy.events("draining"), reason="the proxy to drain")
        wait_until(lambda: client.is_refused(proxy), reason="the port to be closed")
        assert proxy.running

        pop.step("the client sends the rest of its request")
        connection.endheaders()
        assert connection.answer() == "mock-eu-1"

    proxy.wait_stopped()
    (stopped,) = proxy.events("stopped")
    assert stopped["sessions_reset"] == 0


@pytest.mark.planted(shutdown_timeout_secs="25")
def test_whoever_stays_beyond_the_shutdown_timeout_is_reset(pop: Pop) -> None:
    pop.start_backends({"mock-eu-1": "DE"})
    pop.configure(shutdown_timeout_secs="0.2")
    proxy = pop.start_proxy()

    with pop.client("DE").connect(proxy) as connection:
        assert connection.ask() == "mock-eu-1"
        proxy.begin_stop()
        wait_until(lambda: not proxy.running, reason="the proxy to wait no longer")
        with pytest.raises(ConnectionResetError):
            connection.sock.recv(1)
    proxy.wait_stopped()
    (stopped,) = proxy.events("stopped")
    assert stopped["sessions_reset"] == 1
