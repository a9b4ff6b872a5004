"""A cluster of coroutines on a simulated network, in the time of the event loop."""

from __future__ import annotations

import asyncio
from functools import partial

from testkit.cluster.cluster import Cluster, Streams
from testkit.cluster.topology import link_name
from testkit.faults.exchange import Serve
from testkit.faults.simulated import SimulatedNetwork, SimulatedNode

_PORT = 1


class Member:
    """What a simulated program sees of the cluster: itself and its peers."""

    def __init__(self, node: SimulatedNode, peers: list[str], lines: list[str]) -> None:
        self.node = node
        self.name = node.name
        self.peers = peers
        self._lines = lines

    async def serve(self, serve: Serve) -> None:
        """Take connections of peers."""
        await self.node.listen(_PORT, serve)

    async def connect(self, peer: str) -> Streams:
        """Connect to a peer.

        Raises:
            ConnectionRefusedError: it does not serve.
        """
        assert peer in self.peers, f"{self.name} has no link to {peer}"
        return await self.node.connect(peer, _PORT)

    def log(self, line: str) -> None:
        """Write a line, with the time that the node's clock shows."""
        self._lines.append(f"{self.node.now_s():.3f} {line}")


class SimulatedCluster(Cluster):
    """See the package. With the same seed everything happens again in the same way."""

    network: SimulatedNetwork

    async def start(self) -> None:
        self._lines: dict[str, list[str]] = {}
        self.network = SimulatedNetwork(self.seed, self.journal)
        self._ending.push_async_callback(self.network.close)
        for source, target in self.topology.links:
            self.members[link_name(source, target)] = self.network.link(source, target)
        for each in self.topology.nodes:
            if each.program is None:
                continue
            assert each.program.simulated is not None, f"{each.name} has no simulated program"
            node = self.network.node(each.name)
            self.members[each.name] = node
            lines = self._lines.setdefault(each.name, [])
            await node.start(
                partial(_run, each.program.simulated, Member(node, self.topology.peers(each.name), lines))
            )

    async def connect(self, link: str) -> Streams:
        source, _, target = link.partition(">")
        return await self.network.node(source).connect(target, _PORT)

    def logs(self) -> dict[str, str]:
        return {name: "".join(f"{line}\n" for line in lines) for name, lines in self._lines.items()}


async def _run(program: object, member: Member) -> None:
    assert callable(program)
    await asyncio.ensure_future(program(member))
