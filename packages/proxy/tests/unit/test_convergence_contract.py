"""The convergence contract, held by members in memory, and not held by members with a planted defect."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from packages.proxy.tests.convergence import Cluster, MemoryTable
from packages.proxy.tests.simulation.plants import Plant
from testkit.contracts.convergence import ConvergenceContract

pytestmark = pytest.mark.feature("replication.changes")

CONTRACT = [statement for name, statement in vars(ConvergenceContract).items() if name.startswith("test_")]


@pytest.fixture
def members() -> Cluster:
    return Cluster(MemoryTable)


class TestMembersInMemory(ConvergenceContract):
    pass


@pytest.mark.parametrize(
    "plant",
    [
        Plant.TOMBSTONES_COLLECTED_EARLY,
        Plant.CLOCK_NOT_MERGED,
        Plant.INCARNATION_REUSED,
        Plant.SNAPSHOT_REMOVES_NOTHING,
        Plant.LAST_TO_ARRIVE_WINS,
    ],
)
def test_members_with_a_planted_defect_do_not_hold_it(plant: Plant) -> None:
    assert any(breaks(statement, plant) for statement in CONTRACT)


def breaks(statement: Callable[[ConvergenceContract, Cluster], None], plant: Plant) -> bool:
    try:
        statement(ConvergenceContract(), Cluster(lambda node: MemoryTable(node, plant)))
    except AssertionError:
        return True
    return False
