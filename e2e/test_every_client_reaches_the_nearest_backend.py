"""A client gets a backend of its country, else of its region, else of the POP's region, else any."""

from __future__ import annotations

from functools import partial

import pytest

from e2e.clients import Client
from e2e.processes import Pop, Proxy
from testkit.wait import wait_until


@pytest.mark.feature("selection.nearest", "explain")
def test_a_client_falls_back_step_by_step_as_nearer_backends_go(pop: Pop) -> None:
    pop.start_backends(
        ("in-brazil", "sa", "BR"),
        ("in-chile", "sa", "CL"),
        ("in-germany", "eu", "DE"),
        ("in-japan", "ap", "JP"),
    )
    proxy = pop.start_proxy()
    client = Client.of("BR")

    for nearest, place in (
        ("in-brazil", "same country"),
        ("in-chile", "same region"),
        ("in-germany", "region of this POP"),
        ("in-japan", "elsewhere"),
    ):
        wait_until(partial(_reaches, client, proxy, nearest), reason=f"the client to reach {nearest}")
        (best,) = (each for each in pop.explain(client.address)["candidates"] if each["is_best"])
        assert (best["backend"], best["place"]) == (nearest, place)
        pop.sql(f"UPDATE backends SET healthy = 0 WHERE id = '{nearest}'")


def _reaches(client: Client, proxy: Proxy, backend: str) -> bool:
    return client.ask(proxy) == backend


@pytest.mark.feature("geography.country", "testing.mock_backend")
def test_everybody_has_a_nearest_backend_of_their_own(pop: Pop) -> None:
    pop.start_backends(("in-brazil", "sa", "BR"), ("in-germany", "eu", "DE"), ("in-the-us", "us", "US"))
    proxy = pop.start_proxy()

    assert {
        country: Client.of(country).ask(proxy) for country in ("BR", "DE", "PT", "US", "CA", "JP", "")
    } == {
        "BR": "in-brazil",
        "DE": "in-germany",
        "PT": "in-germany",
        "US": "in-the-us",
        "CA": "in-the-us",
        # No backend in Asia, and no country at all: the region of the POP serves them.
        "JP": "in-germany",
        "": "in-germany",
    }
