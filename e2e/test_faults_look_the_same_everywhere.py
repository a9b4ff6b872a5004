"""testkit's faults: who asks sees the same of them on simulated nodes, on processes and in containers.

Simulated nodes have their turn in testkit's own tests.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from e2e.hosts.images import HOST
from e2e.hosts.world import World
from packages.testkit.tests.integration.cluster.stories import ECHO_SOURCE, tell, two_echoes
from testkit.cluster.cluster import Cluster
from testkit.cluster.containers import ContainerCluster
from testkit.cluster.processes import ProcessCluster


@pytest.mark.planted(source=ECHO_SOURCE.replace("write(piece)", "write(piece[::-1])"))
def test_the_same_scenarios_give_the_same_observations(
    request: pytest.FixtureRequest, substrate: str, tmp_path: Path, seed: int, planted: dict[str, str]
) -> None:
    topology = two_echoes(HOST, **planted)
    cluster: Cluster
    if substrate == "processes":
        cluster = ProcessCluster(topology, tmp_path, seed=seed)
    else:
        world: World = request.getfixturevalue("world")
        cluster = ContainerCluster(topology, world.engine, seed=seed)
    asyncio.run(tell(cluster))
