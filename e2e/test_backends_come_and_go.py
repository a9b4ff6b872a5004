"""An operator edits the routing table, and backends fail, while clients come and go."""

from __future__ import annotations

import pytest

from e2e.clients import Client
from e2e.processes import Pop
from testkit.wait import wait_until

_CLIENT = Client.of("DE")


@pytest.mark.feature("table.sqlite")
def test_an_edit_with_sql_moves_clients_and_leaves_open_connections_alone(pop: Pop) -> None:
    pop.start_backends(("mock-eu-1", "eu", "DE"), ("mock-eu-2", "eu", "FR"))
    proxy = pop.start_proxy()

    with _CLIENT.connect(proxy) as before:
        assert before.ask() == "mock-eu-1"
        pop.sql("UPDATE backends SET healthy = 0 WHERE id = 'mock-eu-1'")
        wait_until(lambda: _CLIENT.ask(proxy) == "mock-eu-2", reason="the client to move")
        assert before.ask() == "mock-eu-1"


@pytest.mark.feature("table.commands", "administration.show")
def test_the_command_line_adds_changes_and_removes_backends_of_a_running_proxy(pop: Pop) -> None:
    pop.edgeproxy("db", "init")
    proxy = pop.start_proxy()
    backends = [pop.start_backend(name, "eu") for name in ("first", "second")]

    for backend, country in zip(backends, ("FR", "DE"), strict=True):
        pop.edgeproxy(
            *("backends", "add", backend.id, "--app", "test", "--region", "eu", "--country", country),
            *("--host", "127.0.0.1", "--port", str(backend.port)),
        )
    # A client that nobody has bound yet, for the one that asks along is bound to what it saw first.
    wait_until(lambda: len(pop.open_connections()) == 2, reason="the proxy to know both")
    assert _CLIENT.ask(proxy) == "second"

    pop.edgeproxy("backends", "set", "second", "--unhealthy")
    wait_until(lambda: _CLIENT.ask(proxy) == "first", reason="the client to leave the unhealthy one")

    pop.edgeproxy("backends", "set", "second", "--healthy")
    pop.edgeproxy("backends", "remove", "first")
    wait_until(lambda: _CLIENT.ask(proxy) == "second", reason="the client to leave the removed one")


@pytest.mark.feature("connecting.elsewhere")
def test_clients_do_not_notice_that_a_backend_is_killed_or_stopped(pop: Pop) -> None:
    backends = pop.start_backends(
        ("mock-eu-1", "eu", "DE"), ("mock-eu-2", "eu", "FR"), ("mock-us-1", "us", "US")
    )
    proxy = pop.start_proxy()
    assert _CLIENT.ask(proxy) == "mock-eu-1"

    # Not one request is lost: each next one is answered, by the next best.
    backends["mock-eu-1"].process.kill()
    backends["mock-eu-1"].process.wait_exit()
    assert [_CLIENT.ask(proxy) for _ in range(5)] == ["mock-eu-2"] * 5

    backends["mock-eu-2"].stop()
    assert [_CLIENT.ask(proxy) for _ in range(5)] == ["mock-us-1"] * 5
