"""Members on real sockets of the loopback interface, in one process and intervals of milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from time import monotonic
from typing import Any

from edgeproxy.config import Address
from edgeproxy.core.replication.members import Claim, Endpoint, State
from edgeproxy.core.replication.membership import Changed, Membership, Output, Send
from edgeproxy.core.wire.gossip_datagrams import Refusal
from edgeproxy.core.wire.sealing import Keyring
from edgeproxy.outbound.resolver_system import SystemResolver
from edgeproxy.runtime.gossip import Gossip
from testkit.wait import wait_until_async

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
INTERVAL_S = 0.04
TIMEOUT_S = 20.0


class WatchedMembership(Membership):
    """A machine whose beats are counted, and that does not reach everybody."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.beats = 0
        self.unreachable: set[Endpoint] = set()

    def tick(self, now_s: float) -> list[Output]:
        self.beats += now_s >= self.next_s()
        return super().tick(now_s)

    def _taken(self) -> list[Output]:
        return [
            each for each in super()._taken() if not (isinstance(each, Send) and each.to in self.unreachable)
        ]


class Node:
    """A member with everything written down that it tells."""

    def __init__(
        self,
        name: str,
        *seeds: Address,
        keys: Sequence[bytes] = (KEY,),
        cluster: str = "test",
        host: str = "127.0.0.1",
        port: int = 0,
        advertised: str | None = None,
        incarnation: int = 1,
    ) -> None:
        self.name = name
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((host, port))
        self.address = Address(advertised or host, self.socket.getsockname()[1])
        self.changes: list[Changed] = []
        self.lines: list[tuple[str, dict[str, Any]]] = []
        rng = Random(name)
        me = Claim(
            name, rng.getrandbits(62), incarnation, State.ALIVE, Endpoint(*self.address),
            Endpoint(self.address.host, 4002), 1, 1,
        )  # fmt: skip
        ring = Keyring(cluster, keys)
        self.membership = WatchedMembership(me, INTERVAL_S, ring.payload_bytes, rng.random, monotonic())
        self.gossip = Gossip(
            self.membership,
            ring,
            seeds,
            self.changes.append,
            self,
            resolve=SystemResolver().resolve,
            has_keys=bool(keys),
        )
        self._task: asyncio.Task[None] | None = None

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    async def start(self) -> None:
        await self.gossip.listen(self.socket)
        self._task = asyncio.create_task(self.gossip.run())

    async def stop(self) -> None:
        """End it as a crash would."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.gossip.close()
        await asyncio.sleep(0)  # the transport closes when the loop turns

    def part_from(self, *others: Node) -> None:
        """Let nothing pass from this node to others."""
        self.membership.unreachable |= {Endpoint(*other.address) for other in others}

    def rejoin(self) -> None:
        """Let everything pass again."""
        self.membership.unreachable.clear()

    def sees(self, *states: State) -> set[str]:
        return {member.claim.node for member in self.membership.members.within(*states)}

    def refused(self, reason: Refusal) -> int:
        return self.gossip.refused[reason]


@contextlib.asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    for node in nodes:
        await node.start()
    try:
        yield
    finally:
        for node in nodes:
            await node.stop()


async def until(condition: Callable[[], object], reason: str) -> None:
    await wait_until_async(lambda: bool(condition()), reason=reason, timeout_s=TIMEOUT_S)


async def until_all_see_all(*nodes: Node) -> None:
    names = {node.name for node in nodes}
    await until(
        lambda: all(node.sees(State.ALIVE) == names - {node.name} for node in nodes), "all see each other"
    )


def make(count: int, **options: Any) -> list[Node]:
    first = Node("n0", **options)
    return [first, *(Node(f"n{number}", first.address, **options) for number in range(1, count))]
