"""The same scenarios on simulated nodes and on processes; on containers in the stories of hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from packages.testkit.tests.integration.cluster.stories import (
    KILLED_NODE,
    KILLED_OBSERVED,
    PAUSED_NODE,
    PAUSED_OBSERVED,
    every_fault_of_links,
    two_echoes,
    unanswered_or_away,
)
from testkit.cluster.cluster import Cluster
from testkit.cluster.processes import ProcessCluster
from testkit.cluster.simulated import SimulatedCluster
from testkit.faults.scenario import Inject, Look, Scenario, missing, run
from testkit.faults.vocabulary import ClockJump, Latency, Loss, UnavailableError
from testkit.virtual_time import run as run_in_virtual_time


async def tell(cluster: Cluster) -> None:
    scenario, expected = every_fault_of_links()
    async with cluster:
        assert (await run(scenario, cluster)).observations == expected
        cluster.journal.entries.clear()
        assert (await run(PAUSED_NODE, cluster)).observations == PAUSED_OBSERVED
        cluster.journal.entries.clear()
        assert unanswered_or_away((await run(KILLED_NODE, cluster)).observations) == KILLED_OBSERVED


def test_on_simulated_nodes() -> None:
    async def story() -> None:
        await tell(SimulatedCluster(two_echoes(), seed=5))

    run_in_virtual_time(story())


async def test_on_processes(tmp_path: Path, seed: int) -> None:
    await tell(ProcessCluster(two_echoes(), tmp_path, seed=seed))


async def test_what_a_substrate_lacks_is_known_before_anything_is_done(tmp_path: Path) -> None:
    scenario = Scenario(
        "more than processes can",
        (
            Inject("client>far", Latency(1)),
            Inject("client>far", Loss(0.3)),
            Look("client>far"),
            Inject("far", ClockJump(60)),
        ),
    )
    async with ProcessCluster(two_echoes(), tmp_path) as cluster:
        before = len(cluster.journal.entries)
        assert len(missing(scenario, cluster)) == 2
        with pytest.raises(UnavailableError, match=r"more than .* can: Loss.*kernel.*ClockJump.*clock"):
            await run(scenario, cluster)
        assert len(cluster.journal.entries) == before


async def test_nothing_is_in_force_after_a_scenario_that_fails(tmp_path: Path) -> None:
    broken = Scenario("names what is not there", (Inject("client>far", Latency(60)), Look("client>nobody")))
    async with ProcessCluster(two_echoes(), tmp_path) as cluster:
        with pytest.raises(KeyError):
            await run(broken, cluster)
        assert (await cluster.look("client>far")).value == "answered"
