"""What a primary with its replicas must do: replicate, tell the lag, fail over, come back from backups.

Two parts are under test together: *nodes*, which hold rows and replicate (a database), and a *cluster*, which
watches them and decides (whatever does that for the database). Everything is waited for with deadlines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises
from testkit.contracts.contract import Contract, needs, since
from testkit.wait import wait_until

FAILED_CHECKS = 3
"""In a row, after which a cluster takes its primary for dead."""


class Role(StrEnum):
    PRIMARY = "primary"
    REPLICA = "replica"


class NodeDownError(Exception):
    """The node does not answer."""


class ReadOnlyError(Exception):
    """The node is a replica."""


class NoCandidateError(Exception):
    """There is no replica that could become the primary."""


class DamagedBackupError(Exception):
    """The backup is not what was written."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node as the cluster sees it."""

    role: Role
    is_up: bool
    lag: int | None
    """How far it is behind the primary, 0 when it has everything; ``None`` when that cannot be told."""


@dataclass(frozen=True, slots=True)
class Failover:
    """One change of the primary."""

    old: str
    new: str
    reason: str


class Nodes(Protocol):
    """Servers by name. Whatever asks a node that is down raises :class:`NodeDownError`."""

    def create_primary(self, name: str) -> None: ...

    def create_replica(self, name: str, of: str) -> None:
        """A node with all that ``of`` has, which follows it."""
        ...

    def remove(self, name: str) -> None: ...

    def crash(self, name: str) -> None: ...

    def start(self, name: str) -> None:
        """Start what has crashed, as what it was."""
        ...

    def cut_off(self, name: str) -> None:
        """Have a replica get nothing more."""
        ...

    def follow(self, name: str, primary: str) -> None:
        """Have a replica follow ``primary``, from where it is."""
        ...

    def promote(self, name: str) -> None:
        """Have a replica take writes."""
        ...

    def role(self, name: str) -> Role: ...

    def position(self, name: str) -> int:
        """How much it has written, or taken over; the more, the further."""
        ...

    def write(self, name: str, key: str, value: str) -> None:
        """``ReadOnlyError`` from a replica."""
        ...

    def read(self, name: str) -> Mapping[str, str]: ...

    def back_up(self, name: str) -> Any:
        """What the node has now."""
        ...

    def mark(self, name: str) -> Any:
        """A point in the node's history to which a backup made before can be restored."""
        ...

    def validate(self, backup: Any) -> None:
        """``DamagedBackupError`` when the backup is not what was written."""
        ...

    def damage(self, backup: Any) -> None:
        """Change one byte of it."""
        ...

    def restore(self, name: str, backup: Any, until: Any = None) -> None:
        """A new primary of that name with what ``backup`` has, and with what was written until the point.
        ``DamagedBackupError`` as :meth:`validate`."""
        ...


class Cluster(Protocol):
    """What watches the nodes."""

    @property
    def primary(self) -> str: ...

    def set_up(self, primary: str, *replicas: str) -> None: ...

    def add_replica(self, name: str) -> None:
        """``ValueError`` when there is a node of that name."""
        ...

    def remove(self, name: str) -> None:
        """``ValueError`` for the primary, ``KeyError`` for a name that it does not know."""
        ...

    def status(self) -> Mapping[str, NodeStatus]: ...

    def write(self, key: str, value: str) -> None:
        """To the primary, whichever that is."""
        ...

    def check(self) -> Failover | None:
        """Look at the primary once; fail over when that was the last of :data:`FAILED_CHECKS` in vain."""
        ...

    def fail_over(self, reason: str) -> Failover:
        """Make the best replica the primary. ``NoCandidateError``: there is none, nothing has changed."""
        ...

    def rejoin(self, name: str) -> None:
        """Have a former primary, running or not, follow the one of today."""
        ...

    def history(self) -> list[Failover]: ...


class FailoverHarness(Protocol):
    """What a test must know of an implementation. Begins without nodes."""

    @property
    def nodes(self) -> Nodes: ...

    @property
    def deadline_s(self) -> float:
        """How long replication may take until it has failed; 0 where it is done at once."""
        ...

    def cluster(self) -> Cluster:
        """A cluster that knows no node yet."""
        ...


class FailoverContract(
    Contract,
    contract="failover",
    capabilities={
        "backups": "nodes can be backed up and restored",
        "points": "a backup can be restored to a point in time after it",
        "rejoining": "a former primary can become a replica",
    },
):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    # ---- nodes and replication ---------------------------------------------------------------------

    def test_cluster_has_one_primary_and_its_replicas(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b", "c")
        assert cluster.primary == "a"
        assert {name: each.role for name, each in cluster.status().items()} == {
            "a": Role.PRIMARY,
            "b": Role.REPLICA,
            "c": Role.REPLICA,
        }

    def test_what_is_written_arrives_at_every_replica(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b", "c")
        cluster.write("key", "value")
        for name in ("b", "c"):
            await_rows(harness, name, {"key": "value"})

    def test_replica_added_later_gets_what_was_written_before(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a")
        cluster.write("before", "1")
        cluster.add_replica("b")
        cluster.write("after", "2")
        await_rows(harness, "b", {"before": "1", "after": "2"})

    def test_replica_refuses_writes(self, harness: FailoverHarness) -> None:
        set_up(harness, "a", "b")
        assert_raises(ReadOnlyError, lambda: harness.nodes.write("b", "key", "value"))
        assert harness.nodes.read("b") == {}

    def test_nodes_have_names_of_their_own(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        for name in ("a", "b"):
            assert_raises(ValueError, partial(cluster.add_replica, name))
        assert_raises(KeyError, lambda: cluster.remove("nobody"))

    def test_replica_can_be_removed_and_the_primary_cannot(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        cluster.remove("b")
        assert_raises(ValueError, lambda: cluster.remove("a"))
        assert {*cluster.status()} == {"a"}
        assert_raises(NodeDownError, lambda: harness.nodes.read("b"))

    # ---- status and lag ----------------------------------------------------------------------------

    def test_status_says_who_is_up(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b", "c")
        harness.nodes.crash("b")
        assert {name: each.is_up for name, each in cluster.status().items()} == {
            "a": True,
            "b": False,
            "c": True,
        }

    def test_replica_that_has_everything_has_no_lag(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        for number in range(5):
            cluster.write(str(number), "x")
        await_no_lag(harness, cluster, "b")
        assert cluster.status()["a"].lag == 0

    def test_lag_grows_while_a_replica_is_cut_off_and_is_made_up_for(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        await_no_lag(harness, cluster, "b")
        harness.nodes.cut_off("b")
        lags = []
        for number in range(3):
            cluster.write(str(number), "x")
            lags.append(lag_of(cluster, "b"))
        assert 0 < lags[0] < lags[1] < lags[2]
        harness.nodes.follow("b", "a")
        await_no_lag(harness, cluster, "b")
        assert harness.nodes.read("b") == {"0": "x", "1": "x", "2": "x"}

    def test_lag_is_unknown_while_either_is_down(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b", "c")
        harness.nodes.crash("b")
        assert cluster.status()["b"].lag is None
        assert cluster.status()["c"].lag is not None
        harness.nodes.crash("a")
        assert {each.lag for each in cluster.status().values()} == {None}

    # ---- promotion ---------------------------------------------------------------------------------

    def test_promoted_replica_keeps_what_it_has_and_takes_writes(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        cluster.write("before", "1")
        await_rows(harness, "b", {"before": "1"})
        assert cluster.fail_over("maintenance") == Failover("a", "b", "maintenance")
        assert cluster.primary == "b"
        assert harness.nodes.role("b") is Role.PRIMARY
        cluster.write("after", "2")
        assert harness.nodes.read("b") == {"before": "1", "after": "2"}

    def test_other_replicas_follow_the_new_primary(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b", "c")
        failover = cluster.fail_over("maintenance")
        cluster.write("after", "1")
        (other,) = {"b", "c"} - {failover.new}
        await_rows(harness, other, {"after": "1"})

    # ---- detection ---------------------------------------------------------------------------------

    def test_primary_that_is_well_is_left_alone(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        harness.nodes.crash("b")
        assert [cluster.check() for _ in range(2 * FAILED_CHECKS)] == [None] * 2 * FAILED_CHECKS
        assert cluster.primary == "a"

    def test_dead_primary_is_noticed_after_so_many_checks(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        harness.nodes.crash("a")
        assert [cluster.check() for _ in range(FAILED_CHECKS - 1)] == [None] * (FAILED_CHECKS - 1)
        assert cluster.primary == "a"
        failover = cluster.check()
        assert failover is not None
        assert (failover.old, failover.new) == ("a", "b")

    def test_primary_that_comes_back_in_time_stays(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        for _ in range(2):
            harness.nodes.crash("a")
            assert [cluster.check() for _ in range(FAILED_CHECKS - 1)] == [None] * (FAILED_CHECKS - 1)
            harness.nodes.start("a")
            assert cluster.check() is None
        assert cluster.primary == "a"

    # ---- failover ----------------------------------------------------------------------------------

    def test_writes_go_on_after_the_primary_has_died(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        cluster.write("before", "1")
        await_rows(harness, "b", {"before": "1"})
        harness.nodes.crash("a")
        assert_raises(NodeDownError, lambda: cluster.write("lost", "x"))
        fail_over(cluster)
        cluster.write("after", "2")
        assert harness.nodes.read("b") == {"before": "1", "after": "2"}
        assert [cluster.check() for _ in range(FAILED_CHECKS)] == [None] * FAILED_CHECKS

    def test_replica_that_has_most_is_chosen(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b", "c")
        await_no_lag(harness, cluster, "b")
        harness.nodes.cut_off("b")
        cluster.write("late", "1")
        await_rows(harness, "c", {"late": "1"})
        harness.nodes.crash("a")
        assert fail_over(cluster).new == "c"
        assert harness.nodes.read("c") == {"late": "1"}
        await_rows(harness, "b", {"late": "1"})

    def test_dead_replica_is_not_chosen(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b", "c")
        for name in ("b", "a"):
            harness.nodes.crash(name)
        assert fail_over(cluster).new == "c"

    def test_without_a_candidate_nothing_changes(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        for name in ("b", "a"):
            harness.nodes.crash(name)
        assert_raises(NoCandidateError, lambda: cluster.fail_over("in vain"))
        assert [cluster.check() for _ in range(2 * FAILED_CHECKS)] == [None] * 2 * FAILED_CHECKS
        assert (cluster.primary, cluster.history()) == ("a", [])
        harness.nodes.start("b")
        failover = cluster.check()
        assert failover is not None, "it goes on trying"
        assert failover.new == "b"

    # ---- history -----------------------------------------------------------------------------------

    def test_history_tells_every_failover_in_order(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b", "c")
        assert cluster.history() == []
        first = cluster.fail_over("maintenance")
        harness.nodes.crash(first.new)
        second = fail_over(cluster)
        assert cluster.history() == [first, second]
        assert first.reason == "maintenance"
        assert (second.old, second.new) == (first.new, ({"b", "c"} - {first.new}).pop())
        assert second.reason, "it must say why"

    # ---- backups -----------------------------------------------------------------------------------

    @needs("backups")
    def test_restored_backup_has_what_was_there_when_it_was_made(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a")
        cluster.write("before", "1")
        backup = harness.nodes.back_up("a")
        cluster.write("after", "2")
        harness.nodes.restore("r", backup)
        assert harness.nodes.read("r") == {"before": "1"}
        harness.nodes.write("r", "own", "3")
        assert harness.nodes.read("a") == {"before": "1", "after": "2"}

    @needs("backups", "points")
    def test_backup_can_be_restored_to_a_point_in_time(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a")
        cluster.write("backup", "1")
        backup = harness.nodes.back_up("a")
        cluster.write("good", "2")
        point = harness.nodes.mark("a")
        cluster.write("backup", "spoilt")
        harness.nodes.mark("a")
        harness.nodes.restore("r", backup, until=point)
        assert harness.nodes.read("r") == {"backup": "1", "good": "2"}
        harness.nodes.write("r", "own", "3")
        assert harness.nodes.role("r") is Role.PRIMARY

    @needs("backups")
    def test_damaged_backup_is_found_out(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a")
        cluster.write("key", "value")
        backup, whole = harness.nodes.back_up("a"), harness.nodes.back_up("a")
        harness.nodes.validate(backup)
        harness.nodes.damage(backup)
        assert_raises(DamagedBackupError, lambda: harness.nodes.validate(backup))
        assert_raises(DamagedBackupError, lambda: harness.nodes.restore("r", backup))
        harness.nodes.validate(whole)

    # ---- whole stories -----------------------------------------------------------------------------

    @needs("rejoining")
    def test_former_primary_comes_back_as_a_replica(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        harness.nodes.crash("a")
        fail_over(cluster)
        cluster.write("meanwhile", "1")
        cluster.rejoin("a")
        assert cluster.status()["a"].role is Role.REPLICA
        await_rows(harness, "a", {"meanwhile": "1"})
        assert_raises(ReadOnlyError, lambda: harness.nodes.write("a", "key", "value"))

    @since(2)
    @needs("rejoining")
    def test_what_a_former_primary_has_for_itself_is_gone_when_it_rejoins(
        self, harness: FailoverHarness
    ) -> None:
        cluster = set_up(harness, "a", "b")
        await_no_lag(harness, cluster, "b")
        harness.nodes.cut_off("b")
        cluster.write("never replicated", "1")
        cluster.fail_over("the network is cut")
        cluster.rejoin("a")
        cluster.write("today", "2")
        await_rows(harness, "a", {"today": "2"})
        assert harness.nodes.read("b") == {"today": "2"}

    @needs("rejoining")
    def test_nothing_replicated_is_lost_over_failovers_back_and_forth(self, harness: FailoverHarness) -> None:
        cluster = set_up(harness, "a", "b")
        expected: dict[str, str] = {}
        for turn in range(3):
            for number in range(3):
                expected[f"{turn}.{number}"] = "x"
                cluster.write(f"{turn}.{number}", "x")
            old = cluster.primary
            (other,) = {"a", "b"} - {old}
            await_rows(harness, other, expected)
            harness.nodes.crash(old)
            assert fail_over(cluster).new == other
            cluster.rejoin(old)
        assert harness.nodes.read(cluster.primary) == expected
        assert len(cluster.history()) == 3


def set_up(harness: FailoverHarness, primary: str, *replicas: str) -> Cluster:
    cluster = harness.cluster()
    cluster.set_up(primary, *replicas)
    return cluster


def fail_over(cluster: Cluster) -> Failover:
    """Check until the cluster has failed over; it must within as many checks as it needs."""
    for _ in range(FAILED_CHECKS):
        failover = cluster.check()
        if failover is not None:
            return failover
    raise AssertionError(f"no failover after {FAILED_CHECKS} checks")


def lag_of(cluster: Cluster, name: str) -> int:
    lag = cluster.status()[name].lag
    assert lag is not None, f"the lag of {name} must be known"
    return lag


def await_no_lag(harness: FailoverHarness, cluster: Cluster, name: str) -> None:
    wait_until(
        lambda: cluster.status()[name].lag == 0,
        reason=f"{name} to have everything",
        timeout_s=harness.deadline_s,
    )


def await_rows(harness: FailoverHarness, name: str, expected: Mapping[str, str]) -> None:
    wait_until(
        lambda: harness.nodes.read(name) == expected,
        reason=f"{name} to have {dict(expected)}",
        timeout_s=harness.deadline_s,
    )
