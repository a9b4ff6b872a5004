"""Members in memory, on one simulated clock: each message carries all that its sender knows."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from testkit.contracts.membership import State

_DELAY = 0.02
_HELPERS = 3
_SUSPICION = 5.0
_HEALING = 4
"""One question in so many goes to somebody dead."""
_FAREWELLS = 3
_BADNESS = [*State]


class Claim(NamedTuple):
    """What is said of a member. Of two, the one of the later incarnation stands, then the worse one."""

    name: str
    incarnation: int
    state: State

    def beats(self, other: Claim) -> bool:
        mine = self.incarnation, _BADNESS.index(self.state)
        return mine > (other.incarnation, _BADNESS.index(other.state))


class Kind(NamedTuple):
    """A question whether somebody is there, or its answer; ``through`` whom it went, if anybody."""

    asker: str
    asked: str
    is_answer: bool = False
    through: str = ""


@dataclass
class Known:
    """What a member knows of another."""

    claim: Claim
    deadline: float = 0.0
    """While it is suspect: when it is dead."""


@dataclass
class Message:
    source: str
    to: str
    kind: Kind
    claims: list[Claim] = field(default_factory=list)


class MemoryMember:
    """One member. Facts go in; messages come out through the network."""

    def __init__(self, name: str, incarnation: int, first: str, network: MemoryNetwork) -> None:
        self.me = Claim(name, incarnation, State.ALIVE)
        self.known: dict[str, Known] = {}
        self.told: list[tuple[str, State]] = []
        self.first = first
        self.network = network
        self.turn: list[str] = []
        self.asked = ""
        self.count = 0

    # ---- time ------------------------------------------------------------------------------------------

    def half(self) -> None:
        """Half an interval has passed: a question is asked, and in the other half asked through others."""
        self.count += 1
        self.judge()
        if self.count % 2:
            self.give_up()
            self.ask(self.next_one())
        elif self.asked:
            self.ask_through_others(self.asked)

    def judge(self) -> None:
        for name, known in self.known.items():
            if known.claim.state is State.SUSPECT and known.deadline <= self.network.now:
                self.learn(Claim(name, known.claim.incarnation, State.DEAD))

    def give_up(self) -> None:
        """Suspect who has not answered."""
        if self.asked and self.known[self.asked].claim.state is State.ALIVE:
            self.learn(Claim(self.asked, self.known[self.asked].claim.incarnation, State.SUSPECT))
        self.asked = ""

    def next_one(self) -> str:
        """Whose turn it is to be asked: all in an order that is drawn, and now and then somebody dead."""
        dead = self.those(State.DEAD)
        if dead and self.count % (2 * _HEALING) == 1:
            return self.network.rng.choice(dead)
        there = self.those(State.ALIVE, State.SUSPECT)
        if not there:
            return self.first if self.first != self.me.name else ""
        self.turn = [name for name in self.turn if name in there] or self.network.rng.sample(
            there, len(there)
        )
        return self.turn.pop()

    def ask(self, name: str) -> None:
        if not name:
            return
        if name in self.those(State.ALIVE, State.SUSPECT):
            self.asked = name
        self.send(name, Kind(self.me.name, name))

    def ask_through_others(self, name: str) -> None:
        others = [each for each in self.those(State.ALIVE) if each != name]
        for helper in self.network.rng.sample(others, min(_HELPERS, len(others))):
            self.send(helper, Kind(self.me.name, name, through=helper))

    # ---- messages --------------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        for claim in message.claims:
            self.learn(claim)
        self.answer(message.kind)

    def answer(self, kind: Kind) -> None:
        me = self.me.name
        if kind.is_answer and kind.asker == me:
            if kind.asked == self.asked:
                self.asked = ""
        elif kind.is_answer:
            self.send(kind.asker, kind)
        elif kind.asked == me:
            self.send(kind.through or kind.asker, kind._replace(is_answer=True))
        else:
            self.send(kind.asked, kind)

    def learn(self, claim: Claim) -> None:
        """Believe it if it beats what is known, and refute it if it is about this member."""
        if claim.name == self.me.name:
            self.hear_of_myself(claim)
            return
        known = self.known.get(claim.name)
        if known is None:
            if claim.state in (State.DEAD, State.LEFT):
                return
            self.known[claim.name] = Known(claim)
            former = None
        elif claim.beats(known.claim):
            former, known.claim = known.claim.state, claim
        else:
            return
        self.known[claim.name].deadline = self.network.now + _SUSPICION
        if claim.state is not former:
            self.told.append((claim.name, claim.state))

    def hear_of_myself(self, claim: Claim) -> None:
        if claim.beats(self.me) and self.me.state is State.ALIVE:
            self.me = self.me._replace(incarnation=claim.incarnation + 1)

    def leave(self) -> None:
        self.me = self.me._replace(state=State.LEFT)
        for name in self.those(State.ALIVE, State.SUSPECT):
            for _ in range(_FAREWELLS):
                self.send(name, Kind(self.me.name, self.me.name, is_answer=True))

    def claims(self) -> list[Claim]:
        """All that it knows."""
        return [self.me, *(known.claim for known in self.known.values())]

    def send(self, to: str, kind: Kind) -> None:
        self.network.send(Message(self.me.name, to, kind, self.claims()))

    def those(self, *states: State) -> list[str]:
        return [name for name, known in self.known.items() if known.claim.state in states]


class MemoryNetwork:
    """The harness: members of one kind, what is on its way between them, and the time."""

    quiet_messages = 3.0

    def __init__(self, kind: type[MemoryMember] = MemoryMember) -> None:
        self.now = 0.0
        self.rng = Random(1)
        self._kind = kind
        self._members: dict[str, MemoryMember] = {}
        self._started: list[str] = []
        self._cuts: set[tuple[str, str]] = set()
        self._loss = 0.0
        self._sent = 0
        self._due: list[tuple[float, int, Message | str]] = []
        self._count = 0

    async def start(self, name: str) -> None:
        incarnation = 0 if name in self._started else 1
        self._started.append(name)
        self._members[name] = self._kind(name, incarnation, self._started[0], self)
        self._later(self.rng.random() / 2, name)

    async def kill(self, name: str) -> None:
        del self._members[name]
        self._due = [each for each in self._due if each[2] != name]
        heapq.heapify(self._due)

    async def leave(self, name: str) -> None:
        self._members[name].leave()
        await self.kill(name)

    def view(self, name: str) -> dict[str, State]:
        return {each: known.claim.state for each, known in self._members[name].known.items()}

    def told(self, name: str) -> Iterable[tuple[str, State]]:
        return self._members[name].told

    def cut(self, source: str, to: str) -> None:
        self._cuts.add((source, to))

    def heal(self) -> None:
        self._cuts.clear()

    def lose(self, share: float) -> None:
        self._loss = share

    def messages(self) -> int:
        return self._sent

    async def pass_intervals(self, intervals: float) -> None:
        end = self.now + intervals
        while self._due and self._due[0][0] <= end:
            self.now, _, what = heapq.heappop(self._due)
            if isinstance(what, str):
                self._members[what].half()
                self._later(0.5, what)
            elif what.to in self._members:
                self._members[what.to].receive(what)
        self.now = end

    def send(self, message: Message) -> None:
        self._sent += 1
        if (message.source, message.to) not in self._cuts and self.rng.random() >= self._loss:
            self._later(_DELAY, message)

    def _later(self, after: float, what: Message | str) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + after, self._count, what))
