"""What clusters of real machines share: each link is a fault link, with an address of its own."""

from __future__ import annotations

import asyncio
import json

from testkit.cluster.cluster import Cluster, Streams
from testkit.cluster.topology import Node, Program, link_name
from testkit.faults.link import FaultLink
from testkit.faults.program_clock import INSTALL, ProgramClock, find_library, program_clock
from testkit.wait import wait_until_async

READY_TIMEOUT_S = 60.0


class AddressedCluster(Cluster):
    """Starts links first, so that programs can be told where their peers are before those run."""

    async def open_links(self, host: str, addresses: dict[str, tuple[str, int]]) -> None:
        """Open all links on ``host``; ``addresses`` says where each node listens."""
        self._links: dict[str, FaultLink] = {}
        for number, (source, target) in enumerate(self.topology.links):
            name = link_name(source, target)
            link = FaultLink(
                *addresses[target], seed=self.seed + number, host=host, name=name, journal=self.journal
            )
            await self._ending.enter_async_context(link)
            self.members[name] = self._links[name] = link

    def point(self, node: str, address: tuple[str, int]) -> None:
        """A node listens somewhere else than before."""
        for name, link in self._links.items():
            if name.partition(">")[2] == node:
                link.upstream = address

    def clock_of(self, program: Program, *, seen_at: str | None = None) -> ProgramClock | str:
        """A clock for a program on one node; or why it has none that could be moved."""
        if not program.movable_clock:
            return "its Program does not say movable_clock=True"
        library = find_library()
        if library is None:
            return INSTALL
        return self._ending.enter_context(program_clock(library, seen_at=seen_at))

    def environment(self, node: Node, program: Program, clock: ProgramClock | str) -> dict[str, str]:
        """What a program is told."""
        links = {peer: self._links[link_name(node.name, peer)] for peer in self.topology.peers(node.name)}
        peers = {peer: f"{link.host}:{link.port}" for peer, link in links.items()}
        told = {"TESTKIT_NODE": node.name, "TESTKIT_PEERS": json.dumps(peers)}
        return {**program.environment, **({} if isinstance(clock, str) else clock.environment), **told}

    async def connect(self, link: str) -> Streams:
        return await asyncio.open_connection(self._links[link].host, self._links[link].port)


def command_of(program: Program, *, python: str, name: str, host: str, port: int) -> list[str]:
    """The words of a command, filled in."""
    known = {"{python}": python, "{name}": name, "{host}": host, "{port}": str(port)}
    return [known.get(word, word) for word in program.command]


async def wait_listening(name: str, host: str, port: int) -> None:
    """Wait until connecting works.

    Raises:
        TimeoutError: it does not within a minute.
    """

    async def listens() -> bool:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 1)
        writer.transport.abort()
        return True

    await wait_until_async(
        listens,
        reason=f"{name} to listen on {host}:{port}",
        timeout_s=READY_TIMEOUT_S,
        interval_s=0.02,
        swallow=(OSError, TimeoutError),
    )
