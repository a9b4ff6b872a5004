"""A client that comes back gets the backend it had, whatever happened to the proxy in between."""

from __future__ import annotations

import os
import signal

import pytest

from e2e.clients import Client
from e2e.processes import Pop, Proxy
from testkit.wait import wait_until

# Of a country without a backend, so that two backends are equally near to them.
_CLIENTS = [Client.of("PT", number) for number in range(1, 21)]


def _ask_all(proxy: Proxy) -> dict[str, str]:
    return {client.address: client.ask(proxy) for client in _CLIENTS}


@pytest.mark.feature("affinity.kept", "affinity.saved")
def test_clients_keep_their_backends_through_a_workers_death_and_a_restart(pop: Pop) -> None:
    backends = pop.start_backends(("mock-eu-1", "eu", "DE"), ("mock-eu-2", "eu", "FR"))
    pop.configure(state_dir="state")
    proxy = pop.start_proxy()

    at_first = _ask_all(proxy)
    # Two equally near backends without load: a draw decides, so 20 clients on one are a chance of 2 ** -19.
    assert set(at_first.values()) == set(backends)
    assert _ask_all(proxy) == at_first

    for victim in proxy.workers:
        os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(proxy.events("a worker died, starting another")) == 2, reason="both deaths")
    assert _ask_all(proxy) == at_first

    proxy.process.terminate()
    assert _ask_all(pop.start_proxy()) == at_first


def test_without_a_state_folder_a_restart_forgets(pop: Pop) -> None:
    pop.start_backends(("mock-eu-1", "eu", "DE"), ("mock-eu-2", "eu", "FR"))
    proxy = pop.start_proxy()
    at_first = _ask_all(proxy)

    proxy.process.terminate()
    # The same draw for 20 clients again is a chance of one in a million.
    assert _ask_all(pop.start_proxy()) != at_first
