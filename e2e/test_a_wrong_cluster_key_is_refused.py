"""A POP that has another key than the others: nobody listens to it, and people are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.hosts.cluster import KEY, TIMEOUT_S, HostCluster
from e2e.hosts.pop import HostPop
from testkit.wait import wait_until

_OTHER = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture
def cluster(host_pop: HostPop) -> Iterator[HostCluster]:
    """POPs of which the one in ``us`` was given another key."""
    cluster = HostCluster(host_pop)
    cluster.start({"sa": KEY, "us": _OTHER, "eu": KEY})
    yield cluster
    cluster.close()


@pytest.mark.feature("replication.keys", "replication.shown")
@pytest.mark.blank(
    processes="told of them by packages/proxy/tests/integration/test_replication_running.py, by forgers"
)
@pytest.mark.planted(replication_keys=f"{KEY},{_OTHER}")
def test_a_pop_with_another_key_is_refused_and_taken_in_once_it_has_the_right_one(
    host_pop: HostPop, cluster: HostCluster
) -> None:
    pops = cluster.pops
    cluster.wait_heard("eu", "connected to a peer", "sa")

    host_pop.step("rows are added at the stranger and at one of the others")
    pops["us"].start_backends({"mock-us-1": "US"})
    pops["sa"].start_backends({"mock-sa-1": "BR"})
    cluster.settles("eu", "BR", "mock-sa-1")
    cluster.settles("us", "US", "mock-us-1")

    host_pop.step("its packets are refused, and counted")
    for region, proxy in cluster.proxies.items():
        wait_until(
            lambda proxy=proxy: proxy.events("a datagram is refused"),  # type: ignore[misc]
            reason=f"{region} to refuse the other key",
            timeout_s=TIMEOUT_S,
        )
    for region, members in (("eu", {"sa", "eu"}), ("us", {"us"})):
        shown = cluster.shown(region, "replication")
        assert shown["refused_datagrams"]["wrong_key"] > 0
        instances = {pops[each].place.instance for each in members}
        assert {each["node"] for each in shown["members"]} == instances
    assert "mock-us-1" not in cluster.rows("eu") + cluster.rows("sa")
    assert "mock-sa-1" not in cluster.rows("us")
    # Of its country there is no backend here: the one that there is serves.
    assert pops["eu"].client("US").ask(cluster.proxies["eu"]) == "mock-sa-1"

    host_pop.step("it is given the right key")
    cluster.proxies["us"].stop()
    cluster.start({"us": KEY})
    cluster.wait_rows(lambda rows: len(set(rows.values())) == 1, "all tables to be the same")
    cluster.settles("us", "BR", "mock-sa-1")
    assert pops["us"].client("US", 2).ask(cluster.proxies["us"]) == "mock-us-1"
