"""The machines of membership hold testkit's contract of it, on a simulated network."""

from __future__ import annotations

import pytest

from edgeproxy.core.replication.members import Endpoint, Happened
from packages.proxy.tests.unit.core.replication.gossiping import INTERVAL_S, Cluster, endpoint
from testkit.contracts.membership import MembershipContract, State

TOLD = {
    Happened.UP: State.ALIVE,
    Happened.SUSPECT: State.SUSPECT,
    Happened.DEAD: State.DEAD,
    Happened.LEFT: State.LEFT,
}
"""What else is told is of addresses, and of what is forgotten."""


class Members:
    quiet_messages = 3.5

    def __init__(self) -> None:
        self._cluster = Cluster()
        self._numbers: dict[str, int] = {}
        self._cuts: set[tuple[Endpoint, Endpoint]] = set()
        self._cluster.passes = lambda source, to: (source, to) not in self._cuts

    async def start(self, name: str) -> None:
        is_new = name not in self._numbers
        number = self._numbers.setdefault(name, len(self._numbers))
        self._cluster.told[name] = []
        self._cluster.start(number, node=name, incarnation=1 if is_new else 0)

    async def kill(self, name: str) -> None:
        self._cluster.kill(name)

    async def leave(self, name: str) -> None:
        leaving = self._cluster.nodes[name]
        self._cluster.perform(name, leaving.leave())
        self._cluster.until(lambda: leaving.is_gone)
        self._cluster.kill(name)

    def view(self, name: str) -> dict[str, State]:
        members = self._cluster.nodes[name].members.all()
        return {member.claim.node: State(member.claim.state.name.lower()) for member in members}

    def told(self, name: str) -> list[tuple[str, State]]:
        changes = self._cluster.changes(name)
        return [(each.claim.node, TOLD[each.happened]) for each in changes if each.happened in TOLD]

    def cut(self, source: str, to: str) -> None:
        self._cuts.add((endpoint(self._numbers[source]), endpoint(self._numbers[to])))

    def heal(self) -> None:
        self._cuts.clear()

    def lose(self, share: float) -> None:
        self._cluster.loss = share

    def messages(self) -> int:
        return self._cluster.datagrams

    async def pass_intervals(self, intervals: float) -> None:
        self._cluster.run(intervals * INTERVAL_S)


@pytest.mark.feature("replication.membership")
class TestMembership(MembershipContract):
    @pytest.fixture
    def harness(self) -> Members:
        return Members()
