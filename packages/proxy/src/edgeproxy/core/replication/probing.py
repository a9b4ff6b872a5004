"""Whom to ask whether it is there, and which questions wait for an answer.

Every member is asked in turn, in an order that is drawn anew each time round: so each is asked within a
bounded time, and no two nodes ask in step. What does not answer in time is asked through others, because it
may be the path that fails. A node whose own questions fail a lot doubts itself first and waits for longer,
so that one that is short of CPU time does not declare the others dead (as in Lifeguard).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from edgeproxy.core.replication.members import Endpoint

T = TypeVar("T")
Draw = Callable[[], float]
"""From 0 up to 1."""

MAX_RELAYED: Final = 256
"""Questions asked for others at a time."""
MAX_DOUBT: Final = 4
_SEQUENCES: Final = 2**32


class Probe(msgspec.Struct):
    """A question of ours."""

    node: str
    indirect_s: float
    """When to ask through others."""
    deadline_s: float
    is_indirect: bool = False


class Relay(msgspec.Struct, frozen=True):
    """A question that was asked for another node, and which one that was."""

    origin: Endpoint
    sequence: int
    subject: str
    deadline_s: float


class Probing:
    """Questions under way, by number. ``now_s`` is a clock that nobody sets."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._round: list[str] = []
        self._probes: dict[int, Probe] = {}
        self._relays: dict[int, Relay] = {}
        self._sequence = int(draw() * _SEQUENCES)
        self.doubt = 0
        """Of this node in itself, up to ``MAX_DOUBT``: deadlines are stretched by it."""

    @property
    def patience(self) -> int:
        """By what deadlines are stretched."""
        return 1 + self.doubt

    def next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) % _SEQUENCES
        return self._sequence

    def next_target(self, candidates: Sequence[str]) -> str | None:
        """Whose turn it is among those who are there now."""
        asked = {probe.node for probe in self._probes.values()}
        free = [node for node in candidates if node not in asked]
        while self._round:
            node = self._round.pop()
            if node in free:
                return node
        self._round = sample(free, len(free), self._draw)
        return self._round.pop() if free else None

    def begin(self, node: str, now_s: float, interval_s: float) -> int:
        """Ask ``node``; return the number of the question."""
        sequence = self.next_sequence()
        wait_s = interval_s * self.patience
        self._probes[sequence] = Probe(node, now_s + wait_s / 2, now_s + wait_s * 1.5)
        return sequence

    def answered(self, sequence: int, subject: str) -> bool:
        """Take an answer about ``subject``; false if nobody waits for it."""
        probe = self._probes.get(sequence)
        if probe is None or probe.node != subject:
            return False
        del self._probes[sequence]
        self.doubt = max(0, self.doubt - 1)
        return True

    def to_relay(self, now_s: float) -> list[tuple[int, str]]:
        """Number and subject of questions that others are to ask from now on."""
        found = []
        for sequence, probe in self._probes.items():
            if not probe.is_indirect and probe.indirect_s <= now_s:
                probe.is_indirect = True
                found.append((sequence, probe.node))
        return found

    def failed(self, now_s: float) -> list[str]:
        """Who has not answered in time, to anybody."""
        late = [sequence for sequence, probe in self._probes.items() if probe.deadline_s <= now_s]
        self._relays = {key: relay for key, relay in self._relays.items() if relay.deadline_s > now_s}
        if late:
            self.doubt_itself()
        return [self._probes.pop(sequence).node for sequence in late]

    def doubt_itself(self) -> None:
        """Others do not hear this node in time."""
        self.doubt = min(MAX_DOUBT, self.doubt + 1)

    def relay(self, relay: Relay) -> int | None:
        """Ask for another node; return the number of our question, ``None`` when there are too many."""
        if len(self._relays) >= MAX_RELAYED:
            return None
        sequence = self.next_sequence()
        self._relays[sequence] = relay
        return sequence

    def relayed(self, sequence: int, subject: str) -> Relay | None:
        """For whom we asked what was answered now."""
        relay = self._relays.get(sequence)
        if relay is None or relay.subject != subject:
            return None
        return self._relays.pop(sequence)

    def suspend(self, late_s: float) -> None:
        """This process stood still for so long: answers may lie unread."""
        for probe in self._probes.values():
            probe.indirect_s += late_s
            probe.deadline_s += late_s


def sample(items: Sequence[T], count: int, draw: Draw) -> list[T]:
    """Return up to ``count`` of ``items``, drawn without putting back, in an order that is drawn."""
    pool = list(items)
    chosen = []
    for _ in range(min(count, len(pool))):
        place = int(draw() * len(pool))
        pool[place], pool[-1] = pool[-1], pool[place]
        chosen.append(pool.pop())
    return chosen
