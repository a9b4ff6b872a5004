"""Backends come and go without an operator: each says that it is there, and is missed when it is not."""

from __future__ import annotations

import json
import signal
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from e2e.clients import Client
from e2e.processes import PROGRAM, LocalBackend, LocalPop, LocalProxy
from e2e.world import address_in
from testkit.process import Process, ProcessFactory
from testkit.wait import wait_until

_GERMAN, _AMERICAN, _BRAZILIAN = (Client(address_in(country, 1)) for country in ("DE", "US", "BR"))
_NEWCOMER = Client(address_in("DE", 2))
_TTL_S = 3

pytestmark = pytest.mark.blank(containers="sidecars of hosts are not told of yet")


class Fleet:
    """Mock backends that keep themselves registered with the POP's API, each through a sidecar."""

    def __init__(self, pop: LocalPop, start: ProcessFactory, folder: Path, api: str) -> None:
        self._pop = pop
        self._start = start
        self._folder = folder
        self.api = api

    def join(self, backend: LocalBackend, token: str) -> Process:
        """Start the sidecar of ``backend``; return when it is registered."""
        token_file = self._folder / f"{backend.id}.token"
        token_file.write_text(token)
        sidecar = self._start(
            [
                *(PROGRAM, "register", self.api, "--id", backend.id, "--app", "test"),
                *("--region", backend.region, "--ip", "127.0.0.1", "--port", str(backend.port)),
                *("--token-file", token_file),
            ],
            ready="registered",
            name=f"sidecar of {backend.id}",
        )
        sidecar.wait_ready()
        return sidecar

    def show(self, backend_id: str, token: str) -> dict[str, Any]:
        """What the API knows about a backend."""
        return self._ask("GET", backend_id, token)

    def adjust(self, backend_id: str, token: str, **values: object) -> dict[str, Any]:
        """Change a backend over the API, as an operator's script would."""
        return self._ask("PATCH", backend_id, token, json.dumps(values).encode())

    def _ask(self, method: str, backend_id: str, token: str, body: bytes | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.api}/api/v1/backends/{backend_id}",
            body,
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method=method,
        )
        answer: HTTPResponse
        with urllib.request.urlopen(request, timeout=20) as answer:
            backend: dict[str, Any] = json.load(answer)
            return backend


@pytest.fixture
def port_of_the_api(port: int) -> int:
    return port


@pytest.fixture
def proxy(local_pop: LocalPop, port_of_the_api: int) -> LocalProxy:
    """A proxy with an empty table and its API."""
    local_pop.edgeproxy("db", "init")
    local_pop.configure(
        api_enabled="true",
        api_listen_addr=f"127.0.0.1:{port_of_the_api}",
        heartbeat_ttl_secs=str(_TTL_S),
    )
    return local_pop.start_proxy()


@pytest.fixture
def fleet(
    local_pop: LocalPop,
    proxy: LocalProxy,
    process_factory: ProcessFactory,
    tmp_path: Path,
    port_of_the_api: int,
) -> Fleet:
    return Fleet(local_pop, process_factory, tmp_path, f"http://127.0.0.1:{port_of_the_api}")


@pytest.fixture
def token(local_pop: LocalPop, proxy: LocalProxy) -> str:
    """For backends of the app, made while the proxy runs."""
    return local_pop.edgeproxy("token", "create", "--scope", "register", "--app", "test").strip()


def settles(client: Client, proxy: LocalProxy, backend_id: str) -> None:
    wait_until(
        lambda: client.ask(proxy) == backend_id,
        reason=f"{client.address} to reach {backend_id}",
        timeout_s=10 * _TTL_S,
        swallow=(OSError,),
    )


@pytest.mark.feature("api.registration", "api.tokens")
def test_a_fleet_serves_each_client_from_its_region_without_a_line_of_sql(
    local_pop: LocalPop, proxy: LocalProxy, fleet: Fleet, token: str
) -> None:
    backends = {region: local_pop.start_backend(f"mock-{region}-1") for region in ("eu", "us", "sa")}
    for backend in backends.values():
        fleet.join(backend, token)
    assert [client.ask(proxy) for client in (_GERMAN, _AMERICAN, _BRAZILIAN)] == [
        *("mock-eu-1", "mock-us-1", "mock-sa-1"),
    ]
    assert "mock-us-1" in local_pop.edgeproxy("backends", "list")


@pytest.mark.feature("api.leases")
def test_a_machine_that_dies_is_missed_and_welcome_when_it_is_back(
    local_pop: LocalPop, proxy: LocalProxy, fleet: Fleet, token: str
) -> None:
    near, far = local_pop.start_backend("mock-eu-1"), local_pop.start_backend("mock-us-1")
    fleet.join(far, token)
    sidecar = fleet.join(near, token)
    assert _GERMAN.ask(proxy) == "mock-eu-1"

    # The machine is gone, and nobody was told.
    sidecar.kill(signal.SIGKILL)
    near.stop()
    settles(_GERMAN, proxy, "mock-us-1")

    # Who moved stays where he is; who comes now gets the nearest again.
    fleet.join(local_pop.start_backend("mock-eu-1"), token)
    settles(_NEWCOMER, proxy, "mock-eu-1")


@pytest.mark.feature("api.operators")
def test_an_operator_drains_a_backend_and_its_heartbeats_do_not_bring_it_back(
    local_pop: LocalPop, proxy: LocalProxy, fleet: Fleet, token: str
) -> None:
    for region in ("eu", "us"):
        fleet.join(local_pop.start_backend(f"mock-{region}-1"), token)
    admin = local_pop.edgeproxy("token", "create", "--scope", "admin", "--name", "operator").strip()
    with _GERMAN.connect(proxy) as before:
        assert before.ask() == "mock-eu-1"
        assert fleet.adjust("mock-eu-1", admin, drain=True)["healthy"] is False
        settles(_GERMAN, proxy, "mock-us-1")
        assert before.ask() == "mock-eu-1"
        # For more than a TTL, the drained one goes on saying that it lives.
        drained_s = fleet.show("mock-eu-1", admin)["registered_secs"]
        wait_until(
            lambda: fleet.show("mock-eu-1", admin)["registered_secs"] > drained_s + _TTL_S,
            reason="more than a TTL to pass",
            timeout_s=10 * _TTL_S,
        )
        assert fleet.show("mock-eu-1", admin)["healthy"] is False
        assert _GERMAN.ask(proxy) == "mock-us-1"
    fleet.adjust("mock-eu-1", admin, drain=False)
    settles(_NEWCOMER, proxy, "mock-eu-1")


def test_a_restart_of_the_proxy_forgets_nobody(
    local_pop: LocalPop, proxy: LocalProxy, fleet: Fleet, token: str
) -> None:
    sidecar = fleet.join(local_pop.start_backend("mock-eu-1"), token)
    assert _GERMAN.ask(proxy) == "mock-eu-1"
    proxy.process.terminate()

    successor = local_pop.start_proxy()
    assert _GERMAN.ask(successor) == "mock-eu-1"
    sidecar.terminate()
    assert sidecar.log.splitlines()[-1] == "mock-eu-1: deregistered"
