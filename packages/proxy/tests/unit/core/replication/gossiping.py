"""Members of a cluster in one process and on one clock, with a network that does what a test says."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from random import Random

from edgeproxy.core.replication.members import Claim, Endpoint, Happened, State
from edgeproxy.core.replication.membership import Changed, FindSeeds, Membership, NameTaken, Output, Send
from edgeproxy.core.wire.gossip_datagrams import DatagramError

PAYLOAD_BYTES = 1_300
INTERVAL_S = 1.0


def endpoint(number: int, port: int = 4001) -> Endpoint:
    return Endpoint(f"10.0.{number // 250}.{number % 250 + 1}", port)


def claim(
    node: str,
    state: State = State.ALIVE,
    incarnation: int = 1,
    run: int = 1,
    *,
    number: int = 1,
    port: int = 4001,
    oldest: int = 1,
) -> Claim:
    """What is said of a node, by default that it is there."""
    at = endpoint(number, port)
    return Claim(node, run, incarnation, state, at, Endpoint(at.host, 4002), oldest, 1)


def _anything(_source: Endpoint, _to: Endpoint) -> bool:
    return True


class Cluster:
    """Nodes called n0, n1 …; each begins with the addresses of ``seeds``."""

    def __init__(self, seed: int = 1, delay_s: float = 0.02) -> None:
        self.rng = Random(seed)
        self.now_s = 0.0
        self.delay_s = delay_s
        self.nodes: dict[str, Membership] = {}
        self.told: dict[str, list[Changed | NameTaken]] = {}
        self.seeds: list[Endpoint] = [endpoint(0)]
        self.passes: Callable[[Endpoint, Endpoint], bool] = _anything
        self.loss = 0.0
        self.datagrams = 0
        self.refused = 0
        self._at: dict[Endpoint, str] = {}
        self._queue: list[tuple[float, int, Endpoint, Endpoint, bytes]] = []
        self._count = 0

    def start(
        self, number: int, *, node: str | None = None, run: int | None = None, incarnation: int = 1
    ) -> Membership:
        name = node or f"n{number}"
        me = claim(name, run=self.rng.getrandbits(60) if run is None else run, number=number,
                   incarnation=incarnation)  # fmt: skip
        membership = Membership(me, INTERVAL_S, PAYLOAD_BYTES, self.rng.random, self.now_s, forget_s=120.0)
        key = name if name not in self.nodes else f"{name}'"
        self.nodes[key] = membership
        self.told.setdefault(key, [])
        self._at[me.gossip] = key
        return membership

    def kill(self, node: str) -> None:
        del self._at[self.nodes.pop(node).me.gossip]

    def perform(self, node: str, outputs: Iterable[Output]) -> None:
        for output in outputs:
            match output:
                case Send():
                    self._send(self.nodes[node].me.gossip, output)
                case FindSeeds():
                    self.perform(node, self.nodes[node].seeds_found(self.seeds))
                case Changed() | NameTaken():
                    self.told[node].append(output)

    def _send(self, source: Endpoint, send: Send) -> None:
        self.datagrams += 1
        assert len(send.payload) <= PAYLOAD_BYTES
        if self.passes(source, send.to) and self.rng.random() >= self.loss:
            self._count += 1
            due_s = self.now_s + self.delay_s * (0.5 + self.rng.random())
            heapq.heappush(self._queue, (due_s, self._count, source, send.to, send.payload))

    def split(self, nodes: int) -> None:
        """Let nothing pass between those with numbers below ``nodes`` and the others."""
        half = {endpoint(number) for number in range(nodes)}
        self.passes = lambda source, to: (source in half) == (to in half)

    def heal(self) -> None:
        """Let everything pass."""
        self.passes = _anything

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.until(lambda: False, seconds)

    def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Let time pass until something is so, or for so long."""
        end_s = self.now_s + seconds
        while not condition():
            node = min(self.nodes, key=lambda each: self.nodes[each].next_s())
            beat_s = self.nodes[node].next_s()
            if self._queue and self._queue[0][0] <= beat_s:
                due_s, _, source, to, payload = heapq.heappop(self._queue)
                self.now_s = max(self.now_s, due_s)
                self._deliver(source, to, payload)
            else:
                self.now_s = max(self.now_s, beat_s)
                self.perform(node, self.nodes[node].tick(self.now_s))
            if self.now_s >= end_s:
                return

    def _deliver(self, source: Endpoint, to: Endpoint, payload: bytes) -> None:
        if (node := self._at.get(to)) is not None:
            try:
                self.perform(node, self.nodes[node].receive(payload, source, self.now_s))
            except DatagramError:
                self.refused += 1

    def sees(self, node: str, *states: State) -> set[str]:
        return {member.claim.node for member in self.nodes[node].members.within(*states)}

    def agrees(self) -> bool:
        """Whether every node sees all the others alive, and nobody else but as dead or gone."""
        return all(
            self.sees(node, State.ALIVE, State.SUSPECT) == self.sees(node, State.ALIVE)
            and self.sees(node, State.ALIVE) == self.nodes.keys() - {node}
            for node in self.nodes
        )

    def happened(self, node: str, about: str) -> list[Happened]:
        return [each.happened for each in self.changes(node) if each.claim.node == about]

    def changes(self, node: str) -> list[Changed]:
        """All that a node has told of others."""
        return [each for each in self.told[node] if isinstance(each, Changed)]
