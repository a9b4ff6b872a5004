"""A fleet keeps its routing table in PostgreSQL; while that is away, clients do not notice."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pytest

from e2e.clients import keep_coming
from e2e.pop import Pop
from testkit.postgres import PostgresServer
from testkit.wait import wait_until

_AWAY_ANSWERS = 300
_AWAY_FULL_S = 10.0
"""With ``--full``; else only as long as so many answers take."""


@pytest.mark.feature("table.postgres")
@pytest.mark.planted("edits are not seen")
def test_clients_are_served_while_postgres_is_away_and_edits_count_when_it_is_back(
    pop: Pop, postgres_factory: Callable[[], PostgresServer], full: bool
) -> None:
    server = postgres_factory()
    pop.configure(
        postgres_enabled="true",
        postgres_url=server.url(server.create_database(), address=pop.reach(server.port)),
        postgres_connect_timeout_secs="1",
        postgres_reload_secs="1",
    )
    pop.edgeproxy("db", "init")
    for name, country in (("mock-eu-1", "DE"), ("mock-eu-2", "FR")):
        backend = pop.start_backend(name)
        pop.edgeproxy(
            *("backends", "add", name, "--app", "test", "--region", "eu", "--country", country),
            *("--host", backend.address, "--port", str(backend.port)),
        )
    proxy = pop.start_proxy()
    assert pop.client("DE", 1).ask(proxy) == "mock-eu-1"

    clients = [pop.client("DE", number) for number in range(2, 6)]
    with keep_coming(proxy, clients) as load:
        pop.step("PostgreSQL is killed")
        back_at_s = monotonic() + (_AWAY_FULL_S if full else 0)
        server.kill()
        load.wait_more(_AWAY_ANSWERS)
        wait_until(lambda: monotonic() >= back_at_s, reason="it to be away long enough", timeout_s=60)
        # Not only those who are bound: somebody new is chosen for by the last table that was read.
        assert pop.client("FR", 1).ask(proxy) == "mock-eu-2"
        pop.step("PostgreSQL is back")
        server.start()
        pop.edgeproxy("backends", "set", "mock-eu-1", "--unhealthy")
        wait_until(
            lambda: pop.client("DE", 1).ask(proxy) == "mock-eu-2", reason="the edit to count", timeout_s=20
        )
    assert load.failures == []
