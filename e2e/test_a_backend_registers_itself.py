"""Backends come and go without an operator: each says that it is there, and is missed when it is not."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest

from e2e.clients import Client
from e2e.pop import Backend, Pop, Proxy, Sidecar
from testkit.faults.vocabulary import Kill
from testkit.wait import wait_until

_TTL_S = 3


class Api:
    """The API of a POP, and tokens for it."""

    def __init__(self, pop: Pop) -> None:
        address, self.port = pop.listen()
        self._pop = pop
        pop.edgeproxy("db", "init")
        # Made before the start: an API that anybody reaches needs a token.
        self._register = pop.edgeproxy("token", "create", "--scope", "register", "--app", "test").strip()
        self._admin = pop.edgeproxy("token", "create", "--scope", "admin", "--name", "operator").strip()
        pop.configure(api_enabled="true", api_listen_addr=address, heartbeat_ttl_secs=str(_TTL_S))

    def join(self, backend: Backend) -> Sidecar:
        """Have a backend register itself; return when it has."""
        return self._pop.start_sidecar(backend, self.port, self._register)

    def ask(self, proxy: Proxy, method: str, backend_id: str, **values: object) -> dict[str, Any]:
        """Look at a backend, or change it, as an operator's script would."""
        with self._pop.client("DE").connect(proxy, self.port) as connection:
            connection.request(
                method,
                f"/api/v1/backends/{backend_id}",
                json.dumps(values) if values else None,
                {"Authorization": f"Bearer {self._admin}", "Content-Type": "application/json"},
            )
            response = connection.getresponse()
            backend: dict[str, Any] = json.load(response)
        assert response.status == 200, backend
        return backend


@pytest.fixture
def api(pop: Pop) -> Api:
    """The API that the proxy has once it is started, with an empty table."""
    return Api(pop)


def _settles(client: Client, proxy: Proxy, backend_id: str) -> None:
    wait_until(
        lambda: client.ask(proxy) == backend_id,
        reason=f"{client.address} to reach {backend_id}",
        timeout_s=10 * _TTL_S,
        interval_s=0.05,
        swallow=(OSError,),
    )


@pytest.mark.feature("api.registration", "api.tokens")
@pytest.mark.planted("edits are not seen")
def test_a_fleet_serves_each_client_from_its_region_without_a_line_of_sql(pop: Pop, api: Api) -> None:
    proxy = pop.start_proxy()
    for region in ("eu", "us", "sa"):
        api.join(pop.start_backend(f"mock-{region}-1"))
    for country, backend_id in (("DE", "mock-eu-1"), ("US", "mock-us-1"), ("BR", "mock-sa-1")):
        numbers = count(1)
        wait_until(
            # Somebody else each time: who comes before the row is seen is bound to the backend of others.
            lambda: pop.client(country, next(numbers)).ask(proxy) == backend_id,  # noqa: B023
            reason=f"clients in {country} to reach {backend_id}",
            interval_s=0.2,
        )
    assert "mock-us-1" in pop.edgeproxy("backends", "list")


@pytest.mark.feature("api.leases")
@pytest.mark.planted(heartbeat_ttl_secs="600")
def test_a_machine_that_dies_is_missed_and_welcome_when_it_is_back(pop: Pop, api: Api) -> None:
    pop.configure(pool_connect_timeout_secs="1")
    proxy = pop.start_proxy()
    near, far = pop.start_backend("mock-eu-1"), pop.start_backend("mock-us-1")
    api.join(far)
    sidecar = api.join(near)
    assert pop.client("DE").ask(proxy) == "mock-eu-1"

    pop.step("the machine is gone, and nobody was told")
    sidecar.die()
    near.inject(Kill())
    _settles(pop.client("DE"), proxy, "mock-us-1")
    wait_until(
        lambda: api.ask(proxy, "GET", "mock-eu-1")["healthy"] is False,
        reason="its lease to end",
        timeout_s=10 * _TTL_S,
        interval_s=0.1,
    )

    pop.step("it is back")
    near.recover()
    api.join(near)
    # Who moved stays where he is; who comes now gets the nearest again.
    _settles(pop.client("DE", 2), proxy, "mock-eu-1")


@pytest.mark.feature("api.operators")
@pytest.mark.planted("edits are not seen")
def test_an_operator_drains_a_backend_and_its_heartbeats_do_not_bring_it_back(pop: Pop, api: Api) -> None:
    proxy = pop.start_proxy()
    for region in ("eu", "us"):
        api.join(pop.start_backend(f"mock-{region}-1"))
    client = pop.client("DE")
    with client.connect(proxy) as before:
        assert before.ask() == "mock-eu-1"
        assert api.ask(proxy, "PATCH", "mock-eu-1", drain=True)["healthy"] is False
        _settles(client, proxy, "mock-us-1")
        assert before.ask() == "mock-eu-1"
        # For more than a TTL, the drained one goes on saying that it lives.
        drained_s = api.ask(proxy, "GET", "mock-eu-1")["registered_secs"]
        wait_until(
            lambda: api.ask(proxy, "GET", "mock-eu-1")["registered_secs"] > drained_s + _TTL_S,
            reason="more than a TTL to pass",
            timeout_s=10 * _TTL_S,
            interval_s=0.1,
        )
        assert api.ask(proxy, "GET", "mock-eu-1")["healthy"] is False
        assert client.ask(proxy) == "mock-us-1"
    api.ask(proxy, "PATCH", "mock-eu-1", drain=False)
    _settles(pop.client("DE", 2), proxy, "mock-eu-1")


@pytest.mark.planted("edits are not seen")
def test_a_restart_of_the_proxy_forgets_nobody(pop: Pop, api: Api) -> None:
    proxy = pop.start_proxy()
    sidecar = api.join(pop.start_backend("mock-eu-1"))
    assert pop.client("DE").ask(proxy) == "mock-eu-1"
    proxy.stop()

    assert pop.client("DE").ask(pop.start_proxy()) == "mock-eu-1"
    sidecar.stop()
    assert sidecar.log.splitlines()[-1] == "mock-eu-1: deregistered"
