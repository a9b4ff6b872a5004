"""Clusters that fail over, and nodes that replicate, with a known bug."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testkit.contracts.failover import (
    DamagedBackupError,
    Failover,
    FailoverContract,
    NodeDownError,
    NodeStatus,
    Role,
)
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.failover import (
    MemoryBackup,
    MemoryHarness,
    MemoryNodes,
    WatchedCluster,
)


def _harness(kind: Any) -> MemoryHarness:
    return MemoryHarness(kind) if issubclass(kind, MemoryNodes) else MemoryHarness(kind=kind)


Contract = FailoverContract
BUGS = PlantedBugs(Contract, _harness)


@BUGS.caught_by(Contract.test_what_is_written_arrives_at_every_replica)
class ReplicatesToTheFirstOnly(MemoryNodes):
    def create_replica(self, name: str, of: str) -> None:
        super().create_replica(name, of)
        if sum(node.follows == of for node in self._nodes.values()) > 1:
            self.cut_off(name)


@BUGS.caught_by(Contract.test_replica_added_later_gets_what_was_written_before)
class NewReplicasBeginEmpty(MemoryNodes):
    def create_replica(self, name: str, of: str) -> None:
        super().create_replica(name, of)
        self._nodes[name].log = [("", "")] * len(self._nodes[of].log)


@BUGS.caught_by(Contract.test_replica_refuses_writes)
class ReplicasTakeWrites(MemoryNodes):
    def write(self, name: str, key: str, value: str) -> None:
        self._up(name).log.append((key, value))


@BUGS.caught_by(Contract.test_nodes_have_names_of_their_own)
class TakesANameTwice(WatchedCluster):
    def add_replica(self, name: str) -> None:
        if name in self._names and name != self._primary:
            self._names.remove(name)
        super().add_replica(name)


@BUGS.caught_by(Contract.test_replica_can_be_removed_and_the_primary_cannot)
class RemovesThePrimary(WatchedCluster):
    def remove(self, name: str) -> None:
        self._names.remove(name)
        self._nodes.remove(name)


@BUGS.caught_by(Contract.test_status_says_who_is_up)
class BelievesAllAreUp(WatchedCluster):
    def status(self) -> Mapping[str, NodeStatus]:
        return {name: NodeStatus(each.role, True, each.lag) for name, each in super().status().items()}


@BUGS.caught_by(Contract.test_lag_grows_while_a_replica_is_cut_off_and_is_made_up_for)
class KnowsNoLag(WatchedCluster):
    def status(self) -> Mapping[str, NodeStatus]:
        return {
            name: NodeStatus(each.role, each.is_up, each.lag and 0) for name, each in super().status().items()
        }


@BUGS.caught_by(Contract.test_lag_is_unknown_while_either_is_down)
class TakesUnknownLagForNone(WatchedCluster):
    def status(self) -> Mapping[str, NodeStatus]:
        return {
            name: NodeStatus(each.role, each.is_up, each.lag or 0) for name, each in super().status().items()
        }


@BUGS.caught_by(Contract.test_other_replicas_follow_the_new_primary)
class LeavesTheOthersBehind(WatchedCluster):
    def fail_over(self, reason: str) -> Failover:
        names, self._names = self._names, [self._primary, self.choose()]
        try:
            return super().fail_over(reason)
        finally:
            self._names = names


@BUGS.caught_by(Contract.test_promoted_replica_keeps_what_it_has_and_takes_writes)
class PromotesAnEmptyNode(MemoryNodes):
    def promote(self, name: str) -> None:
        super().promote(name)
        self._nodes[name].log.clear()


@BUGS.caught_by(Contract.test_primary_that_is_well_is_left_alone)
class ChecksAllNodes(WatchedCluster):
    def check(self) -> Failover | None:
        if any(self._position(name) is None for name in self._names):
            return super().fail_over("somebody is down")
        return None


@BUGS.caught_by(Contract.test_dead_primary_is_noticed_after_so_many_checks)
class FailsOverAtTheFirstDoubt(WatchedCluster):
    def check(self) -> Failover | None:
        self._failed_checks += 100
        return super().check()


@BUGS.caught_by(Contract.test_dead_primary_is_noticed_after_so_many_checks)
class NoticesNothing(WatchedCluster):
    def check(self) -> Failover | None:
        return None


@BUGS.caught_by(Contract.test_primary_that_comes_back_in_time_stays)
class AddsUpFailedChecks(WatchedCluster):
    def check(self) -> Failover | None:
        failed = self._failed_checks
        failover = super().check()
        if failover is None and self._failed_checks == 0:
            self._failed_checks = failed
        return failover


@BUGS.caught_by(Contract.test_replica_that_has_most_is_chosen)
class ChoosesTheFirst(WatchedCluster):
    def choose(self) -> str:
        super().choose()
        return next(name for name in self._replicas() if self._position(name) is not None)


@BUGS.caught_by(Contract.test_dead_replica_is_not_chosen)
class ChoosesTheDead(WatchedCluster):
    def choose(self) -> str:
        super().choose()
        return self._replicas()[0]


@BUGS.caught_by(Contract.test_without_a_candidate_nothing_changes)
class GivesUpForEver(WatchedCluster):
    def check(self) -> Failover | None:
        return None if self._failed_checks >= 3 else super().check()


@BUGS.caught_by(Contract.test_writes_go_on_after_the_primary_has_died)
class WritesToTheOldPrimary(WatchedCluster):
    first = ""

    def write(self, key: str, value: str) -> None:
        self.first = self.first or self._primary
        self._nodes.write(self.first, key, value)


@BUGS.caught_by(Contract.test_history_tells_every_failover_in_order)
class TrustsFormerPrimaries(WatchedCluster):
    def fail_over(self, reason: str) -> Failover:
        failover = super().fail_over(reason)
        self._former.clear()
        return failover


@BUGS.caught_by(Contract.test_history_tells_every_failover_in_order)
class RemembersTheLastFailoverOnly(WatchedCluster):
    def history(self) -> list[Failover]:
        return super().history()[-1:]


@BUGS.caught_by(Contract.test_restored_backup_has_what_was_there_when_it_was_made)
class BacksUpWhatIsThereLater(MemoryNodes):
    def restore(self, name: str, backup: MemoryBackup, until: int | None = None) -> None:
        super().restore(name, backup, until=self.position(backup.node) if until is None else until)


@BUGS.caught_by(Contract.test_backup_can_be_restored_to_a_point_in_time)
class RestoresAllThereIs(MemoryNodes):
    def restore(self, name: str, backup: MemoryBackup, until: int | None = None) -> None:
        super().restore(name, backup, until=until and 1_000)


@BUGS.caught_by(Contract.test_backup_can_be_restored_to_a_point_in_time)
class RestoresTheBackupAlone(MemoryNodes):
    def restore(self, name: str, backup: MemoryBackup, until: int | None = None) -> None:
        super().restore(name, backup)


@BUGS.caught_by(Contract.test_damaged_backup_is_found_out)
class TrustsEveryBackup(MemoryNodes):
    def validate(self, backup: MemoryBackup) -> None: ...


@BUGS.caught_by(Contract.test_damaged_backup_is_found_out)
class RestoresWithoutLooking(MemoryNodes):
    def restore(self, name: str, backup: MemoryBackup, until: int | None = None) -> None:
        try:
            super().restore(name, backup, until)
        except DamagedBackupError:
            backup.checksum = 0
            self.create_primary(name)


@BUGS.caught_by(
    Contract.test_what_a_former_primary_has_for_itself_is_gone_when_it_rejoins,
)
class RejoinsWithWhatItHas(WatchedCluster):
    def rejoin(self, name: str) -> None:
        try:
            self._nodes.position(name)
        except NodeDownError:
            super().rejoin(name)
        else:
            self._nodes.follow(name, self._primary)


@BUGS.caught_by(Contract.test_former_primary_comes_back_as_a_replica)
class ComesBackAsPrimary(WatchedCluster):
    def rejoin(self, name: str) -> None:
        super().rejoin(name)
        self._nodes.promote(name)


@BUGS.caught_by(Contract.test_cluster_has_one_primary_and_its_replicas)
class CallsAllPrimaries(WatchedCluster):
    def status(self) -> Mapping[str, NodeStatus]:
        return {
            name: NodeStatus(Role.PRIMARY, each.is_up, each.lag) for name, each in super().status().items()
        }


SUITE = Suite(
    Contract,
    "testkit.contracts.references.failover:MemoryHarness",
    BUGS,
    mutate=(MemoryNodes.__name__, WatchedCluster.__name__),
)
