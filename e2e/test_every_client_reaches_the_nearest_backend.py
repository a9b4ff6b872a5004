"""A client gets a backend of its country, else of its region, else of the POP's region, else any."""

from __future__ import annotations

from functools import partial

import pytest

from e2e.clients import Client
from e2e.pop import Pop, Proxy
from testkit.wait import wait_until


@pytest.mark.feature("selection.nearest", "explain")
@pytest.mark.planted("edits are not seen")
def test_a_client_falls_back_step_by_step_as_nearer_backends_go(pop: Pop) -> None:
    pop.start_backends({"mock-sa-1": "BR", "mock-sa-2": "CL", "mock-eu-1": "DE", "mock-ap-1": "JP"})
    proxy = pop.start_proxy()
    client = pop.client("BR")

    for nearest, place in (
        ("mock-sa-1", "same country"),
        ("mock-sa-2", "same region"),
        ("mock-eu-1", "region of this POP"),
        ("mock-ap-1", "elsewhere"),
    ):
        pop.step(f"the nearest is {nearest}: {place}")
        wait_until(partial(_reaches, client, proxy, nearest), reason=f"the client to reach {nearest}")
        (best,) = (each for each in pop.explain(client.address)["candidates"] if each["is_best"])
        assert (best["backend"], best["place"]) == (nearest, place)
        pop.sql(f"UPDATE backends SET healthy = 0 WHERE id = '{nearest}'")


def _reaches(client: Client, proxy: Proxy, backend: str) -> bool:
    return client.ask(proxy) == backend


@pytest.mark.feature("geography.country", "testing.mock_backend")
@pytest.mark.planted(deny_countries="BR")
def test_everybody_has_a_nearest_backend_of_their_own(pop: Pop) -> None:
    pop.start_backends({"mock-sa-1": "BR", "mock-eu-1": "DE", "mock-us-1": "US"})
    proxy = pop.start_proxy()

    assert {
        country: pop.client(country).ask(proxy) for country in ("BR", "DE", "PT", "US", "CA", "JP", "")
    } == {
        "BR": "mock-sa-1",
        "DE": "mock-eu-1",
        "PT": "mock-eu-1",
        "US": "mock-us-1",
        "CA": "mock-us-1",
        # No backend in Asia, and no country at all: the region of the POP serves them.
        "JP": "mock-eu-1",
        "": "mock-eu-1",
    }
