"""The same scenarios on simulated nodes; on processes and containers they are end-to-end stories."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from packages.testkit.tests.integration.cluster.stories import (
    one_clock,
    tell,
    tell_of_clocks,
    two_echoes,
)
from testkit.cluster.processes import ProcessCluster
from testkit.cluster.simulated import SimulatedCluster
from testkit.faults.scenario import Inject, Look, Scenario, missing
from testkit.faults.vocabulary import ClockJump, Latency, Loss, UnavailableError
from testkit.virtual_time import run as run_in_virtual_time


def test_on_simulated_nodes() -> None:
    async def story() -> None:
        await tell(SimulatedCluster(two_echoes(), seed=5))

    run_in_virtual_time(story())


def test_clocks_jump_on_simulated_nodes() -> None:
    async def story() -> None:
        await tell_of_clocks(SimulatedCluster(one_clock()), asyncio.get_running_loop().time)

    run_in_virtual_time(story())


@pytest.mark.usefixtures("program_clock")  # or it is skipped
async def test_clocks_jump_on_processes(tmp_path: Path) -> None:
    await tell_of_clocks(ProcessCluster(one_clock(), tmp_path), time.time)


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
        with pytest.raises(
            UnavailableError, match=r"more than .* can: Loss.*kernel.*ClockJump.*movable_clock=True"
        ):
            await cluster.run(scenario)
        assert len(cluster.journal.entries) == before


async def test_nothing_is_in_force_after_a_scenario_that_fails(tmp_path: Path) -> None:
    broken = Scenario("names what is not there", (Inject("client>far", Latency(60)), Look("client>nobody")))
    async with ProcessCluster(two_echoes(), tmp_path) as cluster:
        with pytest.raises(KeyError):
            await cluster.run(broken)
        assert (await cluster.look("client>far")).value == "answered"
