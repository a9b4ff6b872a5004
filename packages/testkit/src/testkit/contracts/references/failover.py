"""A cluster that watches nodes and fails over, and nodes in memory for it to watch.

The cluster is small, but real: it does for PostgreSQL what it does for dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from zlib import crc32

from testkit.contracts.failover import (
    FAILED_CHECKS,
    DamagedBackupError,
    Failover,
    NoCandidateError,
    NodeDownError,
    Nodes,
    NodeStatus,
    ReadOnlyError,
    Role,
)


class WatchedCluster:
    """Asks its nodes whenever it is asked; remembers who they are and who is primary."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._names: list[str] = []
        self._primary = ""
        self._former: set[str] = set()
        """Former primaries: what they have may be more than, or other than, what the primary has."""
        self._failed_checks = 0
        self._history: list[Failover] = []

    @property
    def primary(self) -> str:
        return self._primary

    def set_up(self, primary: str, *replicas: str) -> None:
        self._nodes.create_primary(primary)
        self._primary = primary
        self._names = [primary]
        for replica in replicas:
            self.add_replica(replica)

    def add_replica(self, name: str) -> None:
        if name in self._names:
            raise ValueError(f"there is a node {name!r}")
        self._nodes.create_replica(name, of=self._primary)
        self._names.append(name)

    def remove(self, name: str) -> None:
        if name not in self._names:
            raise KeyError(name)
        if name == self._primary:
            raise ValueError(f"{name!r} is the primary")
        self._forget(name)

    def status(self) -> Mapping[str, NodeStatus]:
        written = self._position(self._primary)
        return {name: self._status(name, written) for name in self._names}

    def write(self, key: str, value: str) -> None:
        self._nodes.write(self._primary, key, value)

    def check(self) -> Failover | None:
        if self._position(self._primary) is not None:
            self._failed_checks = 0
            return None
        self._failed_checks += 1
        if self._failed_checks < FAILED_CHECKS:
            return None
        try:
            return self.fail_over(f"no answer to {self._failed_checks} checks")
        except NoCandidateError:
            return None

    def fail_over(self, reason: str) -> Failover:
        new, old = self.choose(), self._primary
        self._nodes.promote(new)
        self._primary = new
        self._former.add(old)
        self._failed_checks = 0
        for name in self._replicas():
            if self._position(name) is not None:
                self._nodes.follow(name, new)
        failover = Failover(old, new, reason)
        self._history.append(failover)
        return failover

    def choose(self) -> str:
        """The replica that has most of those that answer."""
        positions = {name: self._position(name) for name in self._replicas()}
        candidates = {name: position for name, position in positions.items() if position is not None}
        if not candidates:
            raise NoCandidateError(f"none of {sorted(positions)} answers")
        return max(candidates, key=lambda name: candidates[name])

    def rejoin(self, name: str) -> None:
        self._forget(name)
        self.add_replica(name)

    def history(self) -> list[Failover]:
        return [*self._history]

    def _replicas(self) -> list[str]:
        return [name for name in self._names if name != self._primary and name not in self._former]

    def _forget(self, name: str) -> None:
        self._names.remove(name)
        self._former.discard(name)
        self._nodes.remove(name)

    def _status(self, name: str, written: int | None) -> NodeStatus:
        role = Role.PRIMARY if name == self._primary else Role.REPLICA
        has = self._position(name)
        if written is None or has is None or name in self._former:
            return NodeStatus(role, has is not None, None)
        return NodeStatus(role, True, max(0, written - has))

    def _position(self, name: str) -> int | None:
        """``None`` when it does not answer."""
        try:
            return self._nodes.position(name)
        except NodeDownError:
            return None


@dataclass
class _Node:
    role: Role
    log: list[tuple[str, str]] = field(default_factory=list)
    is_up: bool = True
    follows: str = ""


@dataclass
class MemoryBackup:
    """The log of a node as it was."""

    node: str
    log: list[tuple[str, str]]
    checksum: int


class MemoryNodes:
    """Nodes whose rows are what their log of writes leaves; replicas take over the log when asked."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}

    def create_primary(self, name: str) -> None:
        self._nodes[name] = _Node(Role.PRIMARY)

    def create_replica(self, name: str, of: str) -> None:
        self._nodes[name] = _Node(Role.REPLICA, [*self._up(of).log], follows=of)

    def remove(self, name: str) -> None:
        del self._nodes[name]

    def crash(self, name: str) -> None:
        self._nodes[name].is_up = False

    def start(self, name: str) -> None:
        self._nodes[name].is_up = True

    def cut_off(self, name: str) -> None:
        self._up(name).follows = ""

    def follow(self, name: str, primary: str) -> None:
        self._up(name).follows = primary

    def promote(self, name: str) -> None:
        node = self._up(name)
        node.role, node.follows = Role.PRIMARY, ""

    def role(self, name: str) -> Role:
        return self._up(name).role

    def position(self, name: str) -> int:
        return len(self._up(name).log)

    def write(self, name: str, key: str, value: str) -> None:
        node = self._up(name)
        if node.role is Role.REPLICA:
            raise ReadOnlyError(name)
        node.log.append((key, value))
        self._replicate(name)

    def read(self, name: str) -> Mapping[str, str]:
        return dict(self._up(name).log)

    def back_up(self, name: str) -> MemoryBackup:
        log = [*self._up(name).log]
        return MemoryBackup(name, log, checksum(log))

    def mark(self, name: str) -> int:
        return self.position(name)

    def validate(self, backup: MemoryBackup) -> None:
        if checksum(backup.log) != backup.checksum:
            raise DamagedBackupError(backup.node)

    def damage(self, backup: MemoryBackup) -> None:
        key, value = backup.log[0]
        backup.log[0] = key, value[:-1] + "?"

    def restore(self, name: str, backup: MemoryBackup, until: int | None = None) -> None:
        self.validate(backup)
        log = backup.log if until is None else self._up(backup.node).log[:until]
        self._nodes[name] = _Node(Role.PRIMARY, [*log])

    def _up(self, name: str) -> _Node:
        """The node, with what it has got in the meantime."""
        node = self._nodes.get(name)
        if node is None or not node.is_up:
            raise NodeDownError(name)
        source = self._nodes.get(node.follows)
        if source is not None and source.is_up:
            node.log += source.log[len(node.log) :]
        return node

    def _replicate(self, name: str) -> None:
        """Tell those who follow."""
        for follower, node in self._nodes.items():
            if node.follows == name and node.is_up:
                self._up(follower)


def checksum(log: list[tuple[str, str]]) -> int:
    """What a backup is validated by."""
    return crc32(repr(log).encode())


class MemoryHarness:
    """Nodes in memory and a cluster, or of classes made from them."""

    deadline_s = 0.0

    def __init__(
        self, nodes: type[MemoryNodes] = MemoryNodes, kind: type[WatchedCluster] = WatchedCluster
    ) -> None:
        self.nodes = nodes()
        self._kind = kind

    def cluster(self) -> WatchedCluster:
        return self._kind(self.nodes)
