"""Between regions there is distance, which a client feels when it is served from the other side of it."""

from __future__ import annotations

import time

import pytest

from e2e.hosts import atlas
from e2e.hosts.pop import HostPop

pytestmark = pytest.mark.blank(processes="on the loopback interface no region is far from another")


def _next_to_everybody(pop: HostPop) -> None:
    """A world without distance, as all networks of one machine are."""
    distance = pop.world.distances["eu"].container
    distance.kill()
    pop.host.undo(distance.start)


@pytest.mark.planted(by=_next_to_everybody)
def test_what_is_far_answers_later(host_pop: HostPop) -> None:
    pop = host_pop
    pop.start_backends({"mock-eu-1": "DE", "mock-us-1": "US"})
    proxy = pop.start_proxy()

    def seconds(country: str, backend_id: str) -> float:
        with pop.client(country).connect(proxy) as connection:
            assert connection.ask() == backend_id
            began_s = time.monotonic()
            assert connection.ask() == backend_id
            return time.monotonic() - began_s

    assert seconds("US", "mock-us-1") >= atlas.delays_from("eu")["us"]
    assert min(seconds("DE", "mock-eu-1") for _ in range(10)) < atlas.delays_from("eu")["us"]
