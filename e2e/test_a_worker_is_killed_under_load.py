"""``kill -9`` of a worker costs the connections that it carried, and nothing else."""

from __future__ import annotations

import os
import signal

import pytest

from e2e.clients import keep_coming
from e2e.processes import LocalPop
from testkit.wait import wait_until

_CLIENTS = 8


@pytest.mark.feature("workers.replaced")
@pytest.mark.blank(containers="workers are the proxy's own: their death looks the same on every substrate")
@pytest.mark.planted(binding_ttl_secs="0.01")
def test_others_serve_on_a_new_one_comes_and_nothing_is_left_behind(local_pop: LocalPop) -> None:
    pop = local_pop
    pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "FR"})
    proxy = pop.start_proxy()
    before = proxy.workers

    clients = [pop.client("PT", number) for number in range(1, _CLIENTS + 1)]
    with keep_coming(proxy, clients) as load:
        load.wait_more(50)
        assert not load.failures
        os.kill(before[0], signal.SIGKILL)
        wait_until(
            lambda: len(proxy.workers) == len(before) and before[0] not in proxy.workers,
            reason="a new worker",
        )
        # As many again after the kill; half of them come to the new worker, so it serves.
        load.wait_more(200)

    # Each client had at most one connection in the worker that died.
    assert len(load.failures) <= _CLIENTS, load.failures
    # Affinity was kept: nobody ever saw a second backend.
    assert len(set(load.answers)) == _CLIENTS, set(load.answers)
    # No lease is left behind.
    wait_until(
        lambda: pop.open_connections() == {"mock-eu-1": 0, "mock-eu-2": 0},
        reason="all leases to be given back",
    )
    (death,) = proxy.events("a worker died, starting another")
    assert death["pid"] == before[0]
