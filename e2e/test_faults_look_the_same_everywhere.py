"""testkit's faults, told of containers: what who asks sees is what simulated nodes and processes show him.

Processes and simulated nodes have their turn in testkit's own tests.
"""

from __future__ import annotations

import asyncio

import pytest

from e2e.hosts.images import HOST
from e2e.hosts.world import World
from packages.testkit.tests.integration.cluster.stories import (
    KILLED_NODE,
    KILLED_OBSERVED,
    PAUSED_NODE,
    PAUSED_OBSERVED,
    every_fault_of_links,
    two_echoes,
    unanswered_or_away,
)
from testkit.cluster.containers import ContainerCluster
from testkit.faults.scenario import run

pytestmark = pytest.mark.blank(processes="testkit's own tests tell it of processes and of simulated nodes")


def test_the_same_scenarios_give_the_same_observations(world: World, seed: int) -> None:
    async def story() -> None:
        scenario, expected = every_fault_of_links()
        async with ContainerCluster(two_echoes(HOST), world.engine, seed=seed) as cluster:
            assert (await run(scenario, cluster)).observations == expected
            cluster.journal.entries.clear()
            assert (await run(PAUSED_NODE, cluster)).observations == PAUSED_OBSERVED
            cluster.journal.entries.clear()
            assert unanswered_or_away((await run(KILLED_NODE, cluster)).observations) == KILLED_OBSERVED

    asyncio.run(story())
