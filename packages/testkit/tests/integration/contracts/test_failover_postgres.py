"""The contract of failover, held by real PostgreSQL servers with streaming replication."""

from __future__ import annotations

import pytest

from testkit.contracts.failover import FailoverContract
from testkit.contracts.references.failover import WatchedCluster
from testkit.postgres_nodes import PostgresNodes


class PostgresHarness:
    deadline_s = 30.0

    def __init__(self, nodes: PostgresNodes) -> None:
        self.nodes = nodes

    def cluster(self) -> WatchedCluster:
        return WatchedCluster(self.nodes)


SMALL = {
    FailoverContract.test_backup_can_be_restored_to_a_point_in_time.__name__,
    FailoverContract.test_damaged_backup_is_found_out.__name__,
    FailoverContract.test_former_primary_comes_back_as_a_replica.__name__,
    FailoverContract.test_lag_grows_while_a_replica_is_cut_off_and_is_made_up_for.__name__,
    FailoverContract.test_primary_that_comes_back_in_time_stays.__name__,
    FailoverContract.test_replica_that_has_most_is_chosen.__name__,
    FailoverContract.test_writes_go_on_after_the_primary_has_died.__name__,
}
"""What runs without ``--full``: each test starts two servers or three."""


class TestPostgres(FailoverContract, level=2):
    @pytest.fixture
    def harness(self, request: pytest.FixtureRequest) -> PostgresHarness:
        if request.node.originalname not in SMALL and not request.config.getoption("full", True):
            pytest.skip("only with --full, as in the session contracts")
        return PostgresHarness(request.getfixturevalue("postgres_nodes"))
