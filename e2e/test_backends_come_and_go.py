"""An operator edits the routing table, and backends fail, while clients come and go."""

from __future__ import annotations

import pytest

from e2e.pop import Pop
from testkit.faults.vocabulary import Kill
from testkit.wait import wait_until


@pytest.mark.feature("table.sqlite")
@pytest.mark.planted("edits are not seen")
def test_an_edit_with_sql_moves_clients_and_leaves_open_connections_alone(pop: Pop) -> None:
    pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "FR"})
    proxy = pop.start_proxy()
    client = pop.client("DE")

    with client.connect(proxy) as before:
        assert before.ask() == "mock-eu-1"
        pop.step("the operator marks it unhealthy")
        pop.sql("UPDATE backends SET healthy = 0 WHERE id = 'mock-eu-1'")
        wait_until(lambda: client.ask(proxy) == "mock-eu-2", reason="the client to move")
        assert before.ask() == "mock-eu-1"


@pytest.mark.feature("table.commands", "administration.show")
@pytest.mark.planted("edits are not seen")
def test_the_command_line_adds_changes_and_removes_backends_of_a_running_proxy(pop: Pop) -> None:
    pop.edgeproxy("db", "init")
    proxy = pop.start_proxy()
    client = pop.client("DE")
    for name, country in (("mock-eu-1", "FR"), ("mock-eu-2", "DE")):
        backend = pop.start_backend(name)
        pop.edgeproxy(
            *("backends", "add", backend.id, "--app", "test", "--region", "eu", "--country", country),
            *("--host", backend.address, "--port", str(backend.port)),
        )
    # A client that nobody has bound yet, for the one that asks along is bound to what it saw first.
    wait_until(lambda: len(pop.open_connections()) == 2, reason="the proxy to know both")
    assert client.ask(proxy) == "mock-eu-2"

    pop.edgeproxy("backends", "set", "mock-eu-2", "--unhealthy")
    wait_until(lambda: client.ask(proxy) == "mock-eu-1", reason="the client to leave the unhealthy one")

    pop.edgeproxy("backends", "set", "mock-eu-2", "--healthy")
    pop.edgeproxy("backends", "remove", "mock-eu-1")
    wait_until(lambda: client.ask(proxy) == "mock-eu-2", reason="the client to leave the removed one")


@pytest.mark.feature("connecting.elsewhere")
@pytest.mark.planted("one backend is tried")
def test_clients_do_not_notice_that_a_backend_is_killed_or_stopped(pop: Pop) -> None:
    backends = pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "FR", "mock-us-1": "US"})
    # A machine that is gone answers nothing, so the time of a connect is what finding out takes.
    pop.configure(pool_connect_timeout_secs="0.5", retry_budget_percent="100")
    proxy = pop.start_proxy()
    client = pop.client("DE")
    assert client.ask(proxy) == "mock-eu-1"

    # Not one request is lost: each next one is answered, by the next best.
    pop.step("the nearest is killed")
    backends["mock-eu-1"].inject(Kill())
    assert [client.ask(proxy) for _ in range(5)] == ["mock-eu-2"] * 5

    pop.step("the next is stopped")
    backends["mock-eu-2"].stop()
    assert [client.ask(proxy) for _ in range(5)] == ["mock-us-1"] * 5
