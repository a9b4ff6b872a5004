"""The networks between regions fail: each goes on by itself, and all agree once they reach each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from e2e.hosts.between import Between
from e2e.hosts.cluster import KEY, HostCluster
from e2e.hosts.pop import HostPop
from testkit.faults.vocabulary import Partition


@pytest.fixture
def cluster(host_pop: HostPop) -> Iterator[HostCluster]:
    """Three POPs that are connected with each other, and have no rows."""
    cluster = HostCluster(host_pop)
    cluster.start(dict.fromkeys(cluster.pops, KEY))
    yield cluster
    cluster.close()


@pytest.mark.feature("replication.changes", "replication.membership", "replication.shown")
@pytest.mark.blank(
    processes="told of them by packages/proxy/tests/integration/test_replication_running.py, through a relay"
)
@pytest.mark.planted("what others missed is not given")
def test_each_side_of_a_partition_serves_and_takes_writes_and_all_agree_when_it_heals(
    host_pop: HostPop, cluster: HostCluster
) -> None:
    world, pops = host_pop.world, cluster.pops
    for region in pops:
        cluster.wait_heard(region, "connected to a peer", *(other for other in pops if other != region))

    host_pop.step("a row is added at each POP")
    for region, country in (("sa", "BR"), ("us", "US"), ("eu", "DE")):
        pops[region].start_backends({f"mock-{region}-1": country})
    cluster.settles("us", "BR", "mock-sa-1")
    cluster.settles("eu", "US", "mock-us-1")
    cluster.settles("sa", "DE", "mock-eu-1")

    host_pop.step("sa and us are cut from each other; both reach eu")
    Between(world, "sa", "us").inject(Partition())
    _replace(pops["us"], "mock-us-1", "mock-us-2", "US")
    cluster.wait_rows(lambda rows: "mock-us-2" in rows["sa"], "the row to come to sa by way of eu", "sa")

    host_pop.step("sa is cut from eu, too")
    Between(world, "sa", "eu").inject(Partition())
    cluster.wait_heard("sa", "a POP is gone", "us", "eu")
    cluster.wait_heard("eu", "a POP is gone", "sa")
    cluster.wait_states("eu", eu="self", us="alive", sa="dead")
    _replace(pops["sa"], "mock-sa-1", "mock-sa-2", "BR")
    _replace(pops["eu"], "mock-eu-1", "mock-eu-2", "DE")
    for region, weight in (("sa", 5), ("us", 9)):
        pops[region].sql(f"UPDATE backends SET weight = {weight} WHERE id = 'mock-us-2'")
    cluster.settles("sa", "BR", "mock-sa-2")
    cluster.settles("us", "DE", "mock-eu-2")
    cluster.settles("eu", "US", "mock-us-2")
    assert "mock-eu-2" not in cluster.rows("sa")
    assert "mock-sa-2" not in cluster.rows("us") + cluster.rows("eu")

    host_pop.step("all reach each other again")
    world.heal()
    cluster.wait_rows(
        lambda rows: len(set(rows.values())) == 1 and "mock-eu-2" in rows["sa"] and "mock-sa-2" in rows["eu"],
        "all tables to be the same",
    )
    # Of two writes to the same, the later stands.
    assert re.search(r"^mock-us-2\|.*\|9$", cluster.rows("sa"), re.MULTILINE)
    cluster.settles("us", "BR", "mock-sa-2")
    cluster.settles("eu", "BR", "mock-sa-2")
    cluster.settles("sa", "DE", "mock-eu-2")
    cluster.wait_states("eu", eu="self", us="alive", sa="alive")
    shown = cluster.shown("eu", "replication")
    assert not any(shown["lag"].values())
    assert shown["refused_rows"] == {}


def _replace(pop: HostPop, old: str, new: str, country: str) -> None:
    """Take a backend out, and have another one serve its country."""
    pop.start_backends({new: country})
    pop.sql(f"UPDATE backends SET healthy = 0 WHERE id = '{old}'")
