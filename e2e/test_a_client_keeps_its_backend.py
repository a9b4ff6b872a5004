"""A client that comes back gets the backend it had, whatever happened to the proxy in between."""

from __future__ import annotations

import os
import signal

import pytest

from e2e.pop import Pop, Proxy
from e2e.processes import LocalPop
from testkit.wait import wait_until

_CLIENTS = 20


def _ask_all(pop: Pop, proxy: Proxy) -> dict[str, str]:
    # Of a country without a backend, so that two backends are equally near to them.
    clients = (pop.client("PT", number) for number in range(1, _CLIENTS + 1))
    return {client.address: client.ask(proxy) for client in clients}


@pytest.mark.feature("affinity.kept", "affinity.saved")
@pytest.mark.planted(binding_ttl_secs="0.01")
def test_clients_keep_their_backends_over_reconnects_and_through_a_restart(pop: Pop) -> None:
    backends = pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "FR"})
    pop.configure(state_dir=pop.folder_of("state"))
    proxy = pop.start_proxy()

    pop.step("they come for the first time")
    at_first = _ask_all(pop, proxy)
    # Two equally near backends without load: a draw decides, so 20 clients on one are a chance of 2 ** -19.
    assert set(at_first.values()) == set(backends)
    pop.step("they come back")
    assert _ask_all(pop, proxy) == at_first

    proxy.stop()
    pop.step("they come back after a restart")
    assert _ask_all(pop, pop.start_proxy()) == at_first


@pytest.mark.blank(containers="workers are the proxy's own: their death looks the same on every substrate")
@pytest.mark.planted(binding_ttl_secs="0.01")
def test_clients_keep_their_backends_through_the_death_of_all_workers(local_pop: LocalPop) -> None:
    pop = local_pop
    pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "FR"})
    proxy = pop.start_proxy()
    at_first = _ask_all(pop, proxy)

    for victim in proxy.workers:
        os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(proxy.events("a worker died, starting another")) == 2, reason="both deaths")
    assert _ask_all(pop, proxy) == at_first


@pytest.mark.blank(containers="hosts always have a state folder: the user data that ships names one")
@pytest.mark.planted(state_dir="state")
def test_without_a_state_folder_a_restart_forgets(local_pop: LocalPop) -> None:
    pop = local_pop
    pop.start_backends({"mock-eu-1": "DE"})
    proxy = pop.start_proxy()
    assert {*_ask_all(pop, proxy).values()} == {"mock-eu-1"}

    proxy.stop()
    pop.start_backends({"mock-eu-2": "FR"})
    # That nobody of 20 who may have either gets the other is a chance of one in a million.
    assert {*_ask_all(pop, pop.start_proxy()).values()} == {"mock-eu-1", "mock-eu-2"}
