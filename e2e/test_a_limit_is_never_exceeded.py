"""A backend's hard limit holds exactly, whichever workers the clients come to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from e2e.clients import Client, Connection
from e2e.pop import Pop, Proxy
from testkit.wait import wait_until

_LIMIT = 7
_WORKERS = 3
_CLIENTS = 60


def _knock(client: Client, proxy: Proxy) -> Connection | None:
    """Connect and ask; ``None`` when turned away."""
    with ExitStack() as on_failure:
        try:
            connection = on_failure.enter_context(client.connect(proxy))
            connection.ask()
        except OSError:
            return None
        on_failure.pop_all()
        return connection


@pytest.mark.feature("selection.hard_limit")
@pytest.mark.planted("limits are not read")
def test_a_burst_fills_the_only_backend_to_its_limit_and_not_beyond(pop: Pop) -> None:
    pop.add_row(pop.start_backend("mock-eu-1"), "DE", hard_limit=_LIMIT)
    pop.configure(workers=str(_WORKERS))
    proxy = pop.start_proxy()

    clients = [pop.client("DE", number) for number in range(1, _CLIENTS + 1)]
    with ExitStack() as held, ThreadPoolExecutor(20) as pool:
        pop.step("all knock at once")
        served = [each for each in pool.map(lambda client: _knock(client, proxy), clients) if each]
        for connection in served:
            held.enter_context(connection)
        assert len(served) == _LIMIT
        (candidate,) = pop.explain(pop.client("").address)["candidates"]
        assert candidate["connections"] == _LIMIT
        assert candidate["left_out"] == f"at its hard_limit of {_LIMIT}"

        pop.step("one goes, and one, not two, may come")
        served[0].close()
        wait_until(lambda: pop.open_connections() == {"mock-eu-1": _LIMIT - 1}, reason="the place to be free")
        again = [each for each in pool.map(lambda client: _knock(client, proxy), clients) if each]
        for connection in again:
            held.enter_context(connection)
        assert len(again) == 1


@pytest.mark.planted("limits are not read")
def test_who_finds_the_nearest_backend_full_gets_the_next(pop: Pop) -> None:
    pop.add_row(pop.start_backend("mock-eu-1"), "DE", hard_limit=2)
    pop.add_row(pop.start_backend("mock-us-1"), "US")
    proxy = pop.start_proxy()

    with ExitStack() as held:
        answers = [
            held.enter_context(pop.client("DE", number).connect(proxy)).ask() for number in range(1, 6)
        ]
    assert answers == ["mock-eu-1", "mock-eu-1", "mock-us-1", "mock-us-1", "mock-us-1"]
