"""A client that floods the POP, or holds all it can get, is held back; others do not notice."""

from __future__ import annotations

from contextlib import ExitStack
from http.client import HTTPException

import pytest

from e2e.clients import Client, keep_coming
from e2e.pop import Pop, Proxy
from testkit.wait import wait_until

_CAP = 3
_BURST = 5


def _is_turned_away(client: Client, proxy: Proxy) -> bool:
    try:
        client.ask(proxy)
    except (OSError, HTTPException):
        return True
    return False


@pytest.mark.feature("admission.rate_limit")
@pytest.mark.planted(rate_limit_enabled="false")
def test_a_flood_of_one_client_is_turned_away_and_hurts_nobody_else(pop: Pop) -> None:
    pop.start_backends({"mock-eu-1": "DE"})
    # So slow that nothing comes back to the bucket during the story.
    pop.configure(
        rate_limit_enabled="true",
        rate_limit_burst=str(_BURST),
        rate_limit_max_requests="1",
        rate_limit_window_secs="3600",
    )
    proxy = pop.start_proxy()
    flooder = pop.client("DE", 1)

    with keep_coming(proxy, [flooder]) as flood:
        wait_until(lambda: len(flood.failures) > 20, reason="the flood to be turned away")
        pop.step("others come during the flood")
        others = [pop.client("DE", number).ask(proxy) for number in range(2, 22)]
        assert others == ["mock-eu-1"] * 20
    assert len(flood.answers) == _BURST


@pytest.mark.feature("admission.caps")
@pytest.mark.planted(max_connections_per_client="0")
def test_a_client_holds_so_many_connections_and_no_more(pop: Pop) -> None:
    pop.start_backends({"mock-eu-1": "DE"})
    pop.configure(max_connections_per_client=str(_CAP))
    proxy = pop.start_proxy()
    greedy, modest = pop.client("DE", 1), pop.client("DE", 2)

    with ExitStack() as held:
        connections = [held.enter_context(greedy.connect(proxy)) for _ in range(_CAP)]
        assert [connection.ask() for connection in connections] == ["mock-eu-1"] * _CAP
        assert _is_turned_away(greedy, proxy)
        assert modest.ask(proxy) == "mock-eu-1"

        pop.step("the client gives one back")
        connections[0].close()
        wait_until(lambda: not _is_turned_away(greedy, proxy), reason="the place to be free again")
        assert [connection.ask() for connection in connections[1:]] == ["mock-eu-1"] * (_CAP - 1)
