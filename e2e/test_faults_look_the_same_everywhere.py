"""testkit's faults: who asks sees the same of them on simulated nodes, on processes and in containers.

Simulated nodes have their turn in testkit's own tests.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from e2e.hosts.images import HOST
from e2e.hosts.world import World
from packages.testkit.tests.integration.cluster.stories import (
    CLOCK_SOURCE,
    ECHO_SOURCE,
    one_clock,
    tell,
    tell_of_clocks,
    two_echoes,
)
from testkit.cluster.cluster import Cluster
from testkit.cluster.containers import ContainerCluster
from testkit.cluster.processes import ProcessCluster
from testkit.cluster.topology import Topology


@pytest.mark.planted(source=ECHO_SOURCE.replace("write(piece)", "write(piece[::-1])"))
def test_the_same_scenarios_give_the_same_observations(
    request: pytest.FixtureRequest, substrate: str, tmp_path: Path, seed: int, planted: dict[str, str]
) -> None:
    cluster = cluster_of(request, substrate, two_echoes(HOST, **planted), tmp_path, seed)
    asyncio.run(tell(cluster))


@pytest.mark.usefixtures("program_clock")  # or it is skipped
@pytest.mark.planted(source=CLOCK_SOURCE.replace("time.time()", "time.monotonic()"))
def test_clocks_jump_for_one_program_and_for_nobody_else(
    request: pytest.FixtureRequest, substrate: str, tmp_path: Path, seed: int, planted: dict[str, str]
) -> None:
    cluster = cluster_of(request, substrate, one_clock(HOST, **planted), tmp_path, seed)
    asyncio.run(tell_of_clocks(cluster, time.time))


def cluster_of(
    request: pytest.FixtureRequest, substrate: str, topology: Topology, folder: Path, seed: int
) -> Cluster:
    if substrate == "processes":
        return ProcessCluster(topology, folder, seed=seed)
    world: World = request.getfixturevalue("world")
    return ContainerCluster(topology, world.engine, labels=world.labels, seed=seed)
