"""Members on real sockets hold testkit's contract of membership; intervals take as long as their beats."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from edgeproxy.core.replication.members import Endpoint, Happened
from edgeproxy.core.replication.membership import BEATS
from packages.proxy.tests.integration.runtime.gossip_nodes import Node, until
from testkit.contracts.membership import MembershipContract, State

TOLD = {
    Happened.UP: State.ALIVE,
    Happened.SUSPECT: State.SUSPECT,
    Happened.DEAD: State.DEAD,
    Happened.LEFT: State.LEFT,
}


class Members:
    quiet_messages = 3.5

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._gone: dict[str, Node] = {}
        self._sent_before = 0

    async def start(self, name: str) -> None:
        first = next(iter((self._nodes | self._gone).values()), None)
        former = self._gone.pop(name, None)
        seeds = [first.address] if first is not None else []
        if former is None:
            node = Node(name, *seeds)
        else:
            node = Node(name, *seeds, port=former.address.port, incarnation=0)
        self._nodes[name] = node
        await node.start()

    async def kill(self, name: str) -> None:
        node = self._gone[name] = self._nodes.pop(name)
        self._sent_before += node.membership.sent.total()
        await node.stop()

    async def leave(self, name: str) -> None:
        await self._nodes[name].gossip.leave()
        await self.kill(name)

    def view(self, name: str) -> dict[str, State]:
        members = self._nodes[name].membership.members.all()
        return {member.claim.node: State(member.claim.state.name.lower()) for member in members}

    def told(self, name: str) -> list[tuple[str, State]]:
        changes = self._nodes[name].changes
        return [(each.claim.node, TOLD[each.happened]) for each in changes if each.happened in TOLD]

    def cut(self, source: str, to: str) -> None:
        if source in self._nodes:
            address = (self._nodes.get(to) or self._gone[to]).address
            self._nodes[source].membership.unreachable.add(Endpoint(*address))

    def heal(self) -> None:
        for node in self._nodes.values():
            node.rejoin()

    def lose(self, share: float) -> None:
        raise NotImplementedError

    def messages(self) -> int:
        return self._sent_before + sum(node.membership.sent.total() for node in self._nodes.values())

    async def pass_intervals(self, intervals: float) -> None:
        due = {node: node.membership.beats + intervals * BEATS for node in self._nodes.values()}
        await until(
            lambda: all(node.membership.beats >= beats for node, beats in due.items()), "the next beats"
        )

    async def close(self) -> None:
        for node in self._nodes.values():
            await node.stop()


SMALL = {
    MembershipContract.test_members_that_know_one_of_them_find_all.__name__,
    MembershipContract.test_failure_is_found_and_told_to_all.__name__,
    MembershipContract.test_who_leaves_has_left_for_all.__name__,
    MembershipContract.test_dead_member_that_comes_back_is_alive.__name__,
    MembershipContract.test_halves_find_together_when_the_partition_is_over.__name__,
}
"""What runs without ``--full``: each test waits for as long as its intervals take."""


@pytest.mark.feature("replication.membership")
class TestGossip(
    MembershipContract,
    lacks={
        "punctual": "on a busy machine an interval of milliseconds may pass without an answer",
        "loss": "datagrams on the loopback interface are not lost at will",
    },
):
    @pytest.fixture
    async def harness(self, request: pytest.FixtureRequest) -> AsyncIterator[Members]:
        if request.node.originalname not in SMALL and not request.config.getoption("full", True):
            pytest.skip("only with --full, as in the session contracts")
        members = Members()
        yield members
        await members.close()
