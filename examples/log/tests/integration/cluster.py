"""Three nodes of the log on testkit's simulated network, and a client; all in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random
from typing import TypeVar

from examples.log.network import answer, exchange
from examples.log.node import CALL_TIMEOUT_S, Disk, LogNode
from examples.log.wire import Answer, Done, Propose, Read, Refused, Request
from testkit.checkers.history import History
from testkit.faults.simulated import SimulatedNetwork
from testkit.faults.vocabulary import Kill, Partition

NAMES = ("a", "b", "c")
T = TypeVar("T")
_PORT = 7000
_PATIENCE_S = 60.0
_POLL_S = 0.5


class Cluster:
    def __init__(self, seed: int, disks: dict[str, Disk] | None = None) -> None:
        self.network = SimulatedNetwork(seed)
        self.disks = disks or {name: Disk() for name in NAMES}
        self.nodes: dict[str, LogNode] = {}
        self.history = History()
        self._rng = Random(seed)

    async def start(self) -> None:
        for name in NAMES:
            await self.network.node(name).start(self._main(name))

    def _main(self, name: str) -> Callable[[], Coroutine[None, None, None]]:
        async def main() -> None:
            machine = self.network.node(name)

            async def call(peer: str, request: Request) -> Answer:
                return await self._ask(name, peer, request)

            peers = [peer for peer in NAMES if peer != name]
            node = self.nodes[name] = LogNode(name, peers, call, self.disks[name], self._rng)

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await answer(reader, writer, node.handle)

            await machine.listen(_PORT, serve)
            machine.run(node.run())

        return main

    # ---- as a client ---------------------------------------------------------------------------------

    async def ask(self, name: str, request: Request) -> Answer:
        return await self._ask("client", name, request)

    async def add(self, payload: str, name: str | None = None) -> bool:
        """Propose once, at ``name`` or at whoever leads; True when acknowledged. Goes into the history."""
        with self.history.calling("client", "add", payload) as call:
            try:
                async with asyncio.timeout(10 * CALL_TIMEOUT_S):
                    said = await self.ask(name or await self.leader(), Propose(payload.encode()))
            except (OSError, TimeoutError, EOFError):
                return False
            if isinstance(said, Refused):
                call.not_done()
            elif isinstance(said, Done):
                call.done()
                return True
        return False

    async def read(self) -> list[str]:
        """All that is agreed on, from whoever leads."""

        async def ask() -> list[str] | None:
            for name in NAMES:
                try:
                    async with asyncio.timeout(5 * CALL_TIMEOUT_S):
                        said = await self.ask(name, Read())
                except (OSError, TimeoutError, EOFError):
                    continue
                if isinstance(said, Done):
                    return [payload.decode() for payload in said.entries]
            return None

        return await eventually(ask, "somebody to answer who leads")

    async def leader(self) -> str:
        """Whoever leads those that can be reached."""

        async def find() -> str | None:
            alive = [node for node in self.nodes.values() if not self.network.node(node.name).is_dead]
            leading = [node.name for node in alive if node.leads]
            latest = max(self.disks[name].term for name in NAMES)
            return next((name for name in leading if self.disks[name].term == latest), None)

        return await eventually(find, "a leader")

    async def _ask(self, asker: str, name: str, request: Request) -> Answer:
        return await exchange(*await self.network.node(asker).connect(name, _PORT), request)

    # ---- what goes wrong -----------------------------------------------------------------------------

    @asynccontextmanager
    async def killed(self, name: str) -> AsyncIterator[None]:
        number = await self.network.node(name).inject(Kill())
        try:
            yield
        finally:
            await self.network.node(name).recover(number)

    @asynccontextmanager
    async def cut_off(self, name: str) -> AsyncIterator[None]:
        """From the other nodes, both ways; the client still reaches it."""
        links = [
            self.network.link(*ends)
            for peer in NAMES
            if peer != name
            for ends in ((name, peer), (peer, name))
        ]
        numbers = [await link.inject(Partition()) for link in links]
        try:
            yield
        finally:
            for link, number in zip(links, numbers, strict=True):
                await link.recover(number)


@asynccontextmanager
async def log_cluster(seed: int, disks: dict[str, Disk] | None = None) -> AsyncIterator[Cluster]:
    cluster = Cluster(seed, disks)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.network.close()


async def eventually(ask: Callable[[], Coroutine[None, None, T | None]], what: str) -> T:
    loop = asyncio.get_running_loop()
    until_s = loop.time() + _PATIENCE_S
    while loop.time() < until_s:
        if (answer := await ask()) is not None:
            return answer
        await asyncio.sleep(_POLL_S)
    raise AssertionError(f"waited {_PATIENCE_S:g} s for {what}")
