"""SWIM: who is a member, and who is there, found out by asking one another.

Facts go in (a datagram came, time passes, names were resolved), datagrams to be sent and what happened to
members come out. The machine opens nothing, reads no clock and draws nothing itself.

- *Asking.* In each interval one member is asked whether it is there, at first by us, then through three
  others. Who does not answer is suspect; who has not refuted that in time, which grows with the logarithm
  of the number of members, is dead. A member refutes with a greater incarnation of its own.
- *Telling.* News rides on these datagrams, and while there is some, on a few more. Now and then two members
  exchange all that they know.
- *Healing.* The dead are asked, too, seldom. One that answers refutes its death, and then both sides
  exchange all that they know, in which a death counts as suspicion only: everybody may say that he lives.
- *One name, one node.* A node that hears of another with its own name asks that one. If it answers, there
  are two, which only people can put right.

Of what comes in, nothing makes this grow beyond bounds: members, questions and answers at a time are limited.
"""

from __future__ import annotations

from collections import Counter
from math import log10
from typing import Final, NamedTuple

import msgspec

from edgeproxy.core.replication.joining import Joining
from edgeproxy.core.replication.members import (
    MAX_INCARNATION,
    Claim,
    Endpoint,
    Happened,
    Member,
    Members,
    State,
)
from edgeproxy.core.replication.news import News, size_of
from edgeproxy.core.replication.probing import Draw, Probing, Relay, sample
from edgeproxy.core.wire.gossip_datagrams import (
    Ack,
    Gossip,
    Message,
    Ping,
    PingRequest,
    Refusal,
    Sync,
    decode,
    encode,
    room_bytes,
)

BEATS: Final = 4
"""In an interval: how often there is something to do."""
HELPERS: Final = 3
"""Through whom a silent member is asked, and to how many news is sent on each beat."""
SUSPICION_INTERVALS: Final = 5.0
"""For one or ten nodes; memberlist has 4 in a local network and 6 over long distances."""
SYNC_INTERVALS: Final = 30.0
HEAL_INTERVALS: Final = 5.0
"""Between two questions to somebody dead."""
ANSWERED_SYNCS: Final = 8
"""On each beat. An answer is as long as the list of members, and a question is short."""
FAREWELL_BEATS: Final = 4
MAX_FAREWELLS: Final = 64
"""To how many a leaving node says so itself, on each beat."""
MAX_SEEDS: Final = 32
"""Of those that are turned to at a time."""


class Send(NamedTuple):
    """A datagram, before it is sealed."""

    to: Endpoint
    payload: bytes


class FindSeeds(NamedTuple):
    """Resolve the names of the nodes to begin with, and report :meth:`Membership.seeds_found`."""


class Changed(NamedTuple):
    """Something happened to a member."""

    happened: Happened
    claim: Claim


class NameTaken(NamedTuple):
    """Another node that is alive goes by our name. Told once for each."""

    address: Endpoint


Output = Send | FindSeeds | Changed | NameTaken


class Membership:
    """The machine of one node. Every fact returns what comes of it, in order.

    ``now_s`` is a clock that nobody sets; ``draw`` returns numbers from 0 up to 1.
    """

    def __init__(
        self,
        me: Claim,
        interval_s: float,
        payload_bytes: int,
        draw: Draw,
        now_s: float,
        forget_s: float = 86_400.0,
    ) -> None:
        """``me`` is what this node says of itself. Who is gone for ``forget_s`` is forgotten."""
        self.me = me
        self.twin: Endpoint | None = None
        """Where another node of our name was last found."""
        self.members = Members()
        self.refused: Counter[Refusal] = Counter()
        self.sent: Counter[str] = Counter()
        """Datagrams by kind."""
        self._interval_s = interval_s
        self._payload_bytes = payload_bytes
        self._draw = draw
        self._forget_s = forget_s
        self._news = News()
        self._probing = Probing(draw)
        self._joining = Joining(interval_s, now_s)
        self._out: list[Output] = []
        self._next_beat_s = now_s
        self._next_probe_s = now_s
        self._next_sync_s = now_s + SYNC_INTERVALS * interval_s
        self._next_heal_s = now_s
        self._syncs_left = ANSWERED_SYNCS
        self._twin_question: int | None = None
        self._twin_asked_s = now_s - interval_s
        self._farewells_left: int | None = None

    # ---- what can be asked -------------------------------------------------------------------

    def next_s(self) -> float:
        """When :meth:`tick` is due; earlier and later do no harm."""
        return self._next_beat_s

    @property
    def doubt(self) -> int:
        """Of this node in itself: above 0 while its own questions fail."""
        return self._probing.doubt

    @property
    def is_gone(self) -> bool:
        """Whether all has been said that is to be said before the end."""
        return self._farewells_left == 0

    # ---- facts -------------------------------------------------------------------------------

    def receive(self, payload: bytes, source: Endpoint, now_s: float) -> list[Output]:
        """A datagram came, and was opened.

        Raises:
            DatagramError: it makes no sense, and nothing came of it.
        """
        message = decode(payload)
        if message.me.node == self.me.node:
            self._hear_namesake(message, source, now_s)
            return self._taken()
        self._hear_of_sender(message.me, source, now_s)
        for claim in message.news:
            self._learn(claim, now_s, is_hearsay=isinstance(message, Sync))
        match message:
            case Ping() if message.target != self.me.node:
                self.refused[Refusal.MISDIRECTED] += 1
            case Ping():
                self._send_to_node(message.me.node, source, Ack(self.me, (), message.sequence, self.me.node))
            case Ack():
                self._hear_answer(message)
            case PingRequest():
                self._ask_for_another(message, source, now_s)
            case Sync() if message.is_question:
                self._answer_sync(source)
            case _:
                pass
        return self._taken()

    def tick(self, now_s: float) -> list[Output]:
        """Time has passed."""
        if now_s < self._next_beat_s:
            return []
        late_s = now_s - self._next_beat_s
        if late_s > self._interval_s:
            self._stood_still(late_s)
        self._next_beat_s = now_s + self._interval_s / BEATS
        self._syncs_left = ANSWERED_SYNCS
        if self._farewells_left is not None:
            self._say_farewell()
            return self._taken()
        self._judge(now_s)
        self._probe(now_s)
        self._heal(now_s)
        self._sync_at_random(now_s)
        self._join(now_s)
        self._spread_news()
        for claim in self.members.forget(now_s - self._forget_s):
            self._out.append(Changed(Happened.FORGOTTEN, claim))
        return self._taken()

    def seeds_found(self, seeds: list[Endpoint]) -> list[Output]:
        """These are the addresses of the nodes to begin with, as far as they have any now."""
        known = {member.claim.gossip for member in self.members.within(State.ALIVE)} | {self.me.gossip}
        for seed in sample(
            [each for each in dict.fromkeys(seeds) if each not in known], MAX_SEEDS, self._draw
        ):
            self._send_all(seed, is_question=True)
        return self._taken()

    def leave(self) -> list[Output]:
        """Tell the others that this node goes; once :attr:`is_gone`, all is said. Still answer meanwhile."""
        if self._farewells_left is None:
            self.me = msgspec.structs.replace(self.me, state=State.LEFT)
            self._farewells_left = FAREWELL_BEATS
            self._say_farewell()
        return self._taken()

    # ---- on a beat ---------------------------------------------------------------------------

    def _judge(self, now_s: float) -> None:
        for sequence, node in self._probing.to_relay(now_s):
            member = self.members.get(node)
            if member is None:
                continue
            request = PingRequest(self.me, (), sequence, node, member.claim.gossip)
            for helper in self._some(HELPERS, but=node):
                self._send_with_news(helper.claim.gossip, request, member.claim, but=helper.claim.node)
        for node in self._probing.failed(now_s):
            member = self.members.get(node)
            if member is not None and member.claim.state is State.ALIVE:
                self._learn(msgspec.structs.replace(member.claim, state=State.SUSPECT), now_s)
        for member in self.members.within(State.SUSPECT):
            if member.deadline_s <= now_s:
                self._learn(msgspec.structs.replace(member.claim, state=State.DEAD), now_s)

    def _probe(self, now_s: float) -> None:
        if now_s < self._next_probe_s:
            return
        self._next_probe_s = now_s + self._interval_s * (0.9 + 0.2 * self._draw())
        members = self.members.within(State.ALIVE, State.SUSPECT)
        target = self._probing.next_target([member.claim.node for member in members])
        if target is not None:
            member = self.members.get(target)
            assert member is not None
            self._ping(member, self._probing.begin(target, now_s, self._interval_s))

    def _heal(self, now_s: float) -> None:
        if now_s < self._next_heal_s:
            return
        self._next_heal_s = now_s + HEAL_INTERVALS * self._interval_s
        for member in sample(self.members.within(State.DEAD), 1, self._draw):
            self._ping(member, self._probing.next_sequence())

    def _sync_at_random(self, now_s: float) -> None:
        if now_s < self._next_sync_s:
            return
        self._next_sync_s = now_s + SYNC_INTERVALS * self._interval_s * (0.75 + self._draw() / 2)
        for member in self._some(1):
            self._send_all(member.claim.gossip, is_question=True)

    def _join(self, now_s: float) -> None:
        is_alone = not self.members.within(State.ALIVE)
        if self._joining.is_due(now_s, self._draw(), is_alone=is_alone):
            self._out.append(FindSeeds())

    def _spread_news(self) -> None:
        for member in self._some(HELPERS):
            if self._news:
                self._send_to_node(member.claim.node, member.claim.gossip, Gossip(self.me, ()))

    def _say_farewell(self) -> None:
        if self._farewells_left:
            self._farewells_left -= 1
            for member in self._some(MAX_FAREWELLS):
                self._send(member.claim.gossip, Gossip(self.me, ()))

    def _stood_still(self, late_s: float) -> None:
        """Nobody is suspected of what was our own fault."""
        self._probing.suspend(late_s)
        for member in self.members.within(State.SUSPECT):
            member.deadline_s += late_s

    # ---- what is heard -----------------------------------------------------------------------

    def _hear_of_sender(self, claim: Claim, source: Endpoint, now_s: float) -> None:
        member = self.members.get(claim.node)
        former = claim if member is None else member.claim
        if self._learn(claim, now_s) is Happened.UP and former.state is State.DEAD:
            self._send_all(claim.gossip, is_question=True)
        elif former.order > claim.order and former.run != claim.run:
            # It was started anew and its clock stands behind, or there are two of this name: let it know.
            self._send(source, Gossip(self.me, (former,)))

    def _learn(self, claim: Claim, now_s: float, *, is_hearsay: bool = False) -> Happened | None:
        if claim.node == self.me.node:
            self._hear_of_myself(claim, now_s)
            return None
        if is_hearsay and claim.state is State.DEAD:
            known = self.members.get(claim.node)
            if known is not None and known.claim.state < State.DEAD:
                claim = msgspec.structs.replace(claim, state=State.SUSPECT)
        happened = self.members.merge(claim, now_s)
        if happened is None:
            return None
        self._news.add(claim)
        if claim.state is State.SUSPECT:
            member = self.members.get(claim.node)
            assert member is not None
            member.deadline_s = now_s + self._suspicion_s()
        if happened is not Happened.RENEWED:
            self._out.append(Changed(happened, claim))  # feature: replication.membership
        return happened

    def _hear_of_myself(self, claim: Claim, now_s: float) -> None:
        if claim.run != self.me.run and claim.state < State.DEAD:
            self._ask_namesake(claim.gossip, now_s)
        if claim.order <= self.me.order or self._farewells_left is not None:
            return
        if claim.run == self.me.run:
            self._probing.doubt_itself()
        incarnation = min(claim.incarnation + 1, MAX_INCARNATION)
        self.me = msgspec.structs.replace(self.me, incarnation=incarnation)
        self._news.add(self.me)

    def _hear_answer(self, answer: Ack) -> None:
        relay = self._probing.relayed(answer.sequence, answer.subject)
        if relay is not None:
            # With what the subject says of itself, which may refute what the asking node believes.
            self._send_with_news(
                relay.origin, Ack(self.me, (), relay.sequence, relay.subject), answer.me, but=answer.subject
            )
        elif not self._probing.answered(answer.sequence, answer.subject):
            self.refused[Refusal.UNASKED] += 1

    def _ask_for_another(self, request: PingRequest, source: Endpoint, now_s: float) -> None:
        deadline_s = now_s + 2 * self._interval_s
        sequence = self._probing.relay(Relay(source, request.sequence, request.target, deadline_s))
        if sequence is None:
            self.refused[Refusal.TOO_MANY] += 1
        else:
            self._send_to_node(request.target, request.address, Ping(self.me, (), sequence, request.target))

    def _answer_sync(self, source: Endpoint) -> None:
        if self._syncs_left == 0:
            self.refused[Refusal.TOO_MANY] += 1
            return
        self._syncs_left -= 1
        self._send_all(source, is_question=False)

    # ---- another node of our name ------------------------------------------------------------

    def _hear_namesake(self, message: Message, source: Endpoint, now_s: float) -> None:
        if message.me.run == self.me.run:
            return  # what we sent to one of our own addresses
        self.refused[Refusal.SAME_NODE] += 1
        if isinstance(message, Ack):
            if message.sequence == self._twin_question:
                self._twin_question = None
                if self.twin != source:
                    self.twin = source
                    self._out.append(NameTaken(source))
            return
        if isinstance(message, Ping):
            self._send(source, Ack(self.me, (), message.sequence, self.me.node))
        self._ask_namesake(source, now_s)

    def _ask_namesake(self, address: Endpoint, now_s: float) -> None:
        if address != self.me.gossip and now_s >= self._twin_asked_s + self._interval_s:
            self._twin_asked_s = now_s
            self._twin_question = self._probing.next_sequence()
            self._send(address, Ping(self.me, (), self._twin_question, self.me.node))

    # ---- sending -----------------------------------------------------------------------------

    def _ping(self, member: Member, sequence: int) -> None:
        claim = member.claim
        self._send_to_node(claim.node, claim.gossip, Ping(self.me, (), sequence, claim.node))

    def _send_to_node(self, node: str, to: Endpoint, message: Message) -> None:
        """Send it to ``node``, with news, and first of all with what that must refute if it is there."""
        about = self.members.get(node)
        bad = () if about is None or about.claim.state is State.ALIVE else (about.claim,)
        self._send_with_news(to, message, *bad, but=node)

    def _send_with_news(self, to: Endpoint, message: Message, *first: Claim, but: str) -> None:
        """Send it with ``first`` and as much news as there is room for, except about ``but``."""
        room = room_bytes(message, self._payload_bytes) - sum(map(size_of, first))
        news = self._news.take(room, len(self.members.all()) + 1, but=but)
        self._send(to, msgspec.structs.replace(message, news=(*first, *news)))

    def _send_all(self, to: Endpoint, *, is_question: bool) -> None:
        """Send all that is known, in as many datagrams as that takes; only the first one is a question."""
        part: list[Claim] = []
        empty = Sync(self.me, (), is_question)
        room = whole = room_bytes(empty, self._payload_bytes)
        for member in self.members.all():
            size = size_of(member.claim)
            if size > room:
                self._send(to, msgspec.structs.replace(empty, news=tuple(part)))
                empty = Sync(self.me, (), is_question=False)
                part, room = [], whole
            part.append(member.claim)
            room -= size
        self._send(to, msgspec.structs.replace(empty, news=tuple(part)))

    def _send(self, to: Endpoint, message: Message) -> None:
        self.sent[type(message).__name__.lower()] += 1
        self._out.append(Send(to, encode(message)))

    def _some(self, count: int, *, but: str = "") -> list[Member]:
        others = [member for member in self.members.within(State.ALIVE) if member.claim.node != but]
        return sample(others, count, self._draw)

    def _suspicion_s(self) -> float:
        nodes = len(self.members.within(State.ALIVE, State.SUSPECT)) + 1
        return SUSPICION_INTERVALS * max(1.0, log10(nodes)) * self._interval_s * self._probing.patience

    def _taken(self) -> list[Output]:
        taken, self._out = self._out, []
        return taken
