"""Nodes of a cluster in one process, on real sockets of the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from edgeproxy.config import Address
from edgeproxy.core.replication.handshake import Terms
from edgeproxy.core.wire.peer_frames import Frame
from edgeproxy.outbound.peers_quic import QuicPeers
from testkit.wait import wait_until_async

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
TIMEOUT_S = 30.0


class Node:
    """Peers with everything written down that they tell."""

    def __init__(
        self, name: str, *, cluster: str = "test", keys: Sequence[bytes] = (KEY,), **terms: Any
    ) -> None:
        run = terms.pop("run", name)
        self.name = name
        self.peers = QuicPeers(Terms(cluster, name, run, keys, **terms), self, self)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = Address(*self.socket.getsockname())
        self.connected: list[str] = []
        self.lost: list[str] = []
        self.messages: list[tuple[str, Frame]] = []
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.works_off = True
        self.waiting: list[Callable[[], None]] = []

    def peer_connected(self, node: str) -> None:
        self.connected.append(node)

    def peer_lost(self, node: str) -> None:
        self.lost.append(node)

    def peer_message(self, node: str, frame: Frame, done: Callable[[], None]) -> None:
        self.messages.append((node, frame))
        if self.works_off:
            done()
        else:
            self.waiting.append(done)

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info

    def refused(self, reason: str) -> int:
        return self.peers.refusals.counts[reason]

    def bodies(self) -> list[bytes]:
        return [frame.body for _, frame in self.messages]


@contextlib.asynccontextmanager
async def running(*nodes: Node, wanted: bool = True) -> AsyncIterator[None]:
    """Have nodes work, each wanting to be connected to all others."""
    for node in nodes:
        await node.peers.listen(node.socket)
    tasks = [asyncio.create_task(node.peers.run()) for node in nodes]
    if wanted:
        want_all(*nodes)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for node in nodes:
            node.peers.close()
        await asyncio.sleep(0)  # transports close when the loop turns


def want_all(*nodes: Node) -> None:
    for node in nodes:
        node.peers.want({each.name: each.address for each in nodes})


async def until(condition: Callable[[], object], reason: str) -> None:
    await wait_until_async(lambda: bool(condition()), reason=reason, timeout_s=TIMEOUT_S)
