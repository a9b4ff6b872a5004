"""Who belongs to the cluster, as far as one node knows: what is claimed of each, and which claim stands.

A *claim* says in which state a member is. Claims of one member are ordered: by its incarnation, which the
member alone makes greater, and then by how bad the news is. The greatest stands, in whatever order claims
come, so all who have heard the same claims believe the same. A member that hears bad news of itself refutes
it with a greater incarnation.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

MAX_INCARNATION: Final = 2**48
MAX_MEMBERS: Final = 1_024
"""Of which one can hear. Whoever has a key could invent any number."""

_MAX_RUN: Final = 2**63 - 1


class State(IntEnum):
    """Of a member, from the best news to the worst."""

    ALIVE = 0
    SUSPECT = 1
    """It did not answer, and has some time to say that it is there."""
    DEAD = 2
    LEFT = 3
    """By its own will, so nobody asks for it any more."""


class Happened(StrEnum):
    """What became of a member."""

    UP = "up"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"
    CHANGED = "changed"
    """Its addresses or versions; or it was restarted before anybody missed it."""
    RENEWED = "renewed"
    """It refuted what was said of it before, or that was confirmed; nobody but members cares."""
    FORGOTTEN = "forgotten"
    """It was dead, or had left, for so long that nothing is known of it any more."""


_WORST: Final = {
    State.ALIVE: Happened.UP,
    State.SUSPECT: Happened.SUSPECT,
    State.DEAD: Happened.DEAD,
    State.LEFT: Happened.LEFT,
}


class Endpoint(NamedTuple):
    """Where datagrams or connections go."""

    host: Annotated[str, Meta(pattern=r"\A[0-9A-Fa-f:.]{2,45}\Z")]
    """An IP address."""
    port: Annotated[int, Meta(ge=1, le=65535)]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """What is said of a member. Later versions may add fields at the end."""

    node: Annotated[str, Meta(pattern=r"\A[!-~]{1,253}\Z")]
    run: Annotated[int, Meta(ge=0, le=_MAX_RUN)]
    """Drawn at each start of a node: tells two of one name apart."""
    incarnation: Annotated[int, Meta(ge=0, le=MAX_INCARNATION)]
    state: State
    gossip: Endpoint
    transport: Endpoint
    oldest: Annotated[int, Meta(ge=0, le=65535)]
    """Version of the messages between replicas that it speaks."""
    newest: Annotated[int, Meta(ge=0, le=65535)]

    @property
    def order(self) -> tuple[int, State, int]:
        """The claim with the greatest stands. The run decides between two nodes that go by one name."""
        return self.incarnation, self.state, self.run


class Member(msgspec.Struct):
    """Another node, as it is known here."""

    claim: Claim
    since_s: float
    """When it came into its state, or showed that it is still in it."""
    deadline_s: float = 0.0
    """While it is suspect: when it is declared dead."""


class Members:
    """All other nodes by name. ``now_s`` is a clock that nobody sets."""

    def __init__(self, limit: int = MAX_MEMBERS) -> None:
        self._limit = limit
        self._known: dict[str, Member] = {}
        self.turned_away = 0
        """Claims of further nodes that there was no room for."""

    def get(self, node: str) -> Member | None:
        return self._known.get(node)

    def all(self) -> list[Member]:
        return list(self._known.values())

    def within(self, *states: State) -> list[Member]:
        """Those in one of these states."""
        return [member for member in self._known.values() if member.claim.state in states]

    def merge(self, claim: Claim, now_s: float) -> Happened | None:
        """Believe a claim if it beats what is known; ``None`` when it does not, or does not matter.

        Who is not known and gone already is not made known again: one member that has not forgotten it yet
        would otherwise remind all others for ever.
        """
        member = self._known.get(claim.node)
        if member is None:
            if claim.state >= State.DEAD:
                return None
            if not self._has_room():
                self.turned_away += 1
                return None
            self._known[claim.node] = Member(claim, now_s)
            return _WORST[claim.state]
        former = member.claim
        if claim.order <= former.order:
            return None
        member.claim, member.since_s = claim, now_s
        if claim.state is not former.state:
            return _WORST[claim.state]
        return Happened.CHANGED if _nature(claim) != _nature(former) else Happened.RENEWED

    def forget(self, before_s: float) -> list[Claim]:
        """Forget who has been gone since before that time."""
        found = [member.claim for member in self.within(State.DEAD, State.LEFT) if member.since_s <= before_s]
        for claim in found:
            del self._known[claim.node]
        return found

    def _has_room(self) -> bool:
        if len(self._known) < self._limit:
            return True
        gone = self.within(State.DEAD, State.LEFT)
        if not gone:
            return False
        del self._known[min(gone, key=lambda member: member.since_s).claim.node]
        return True


def _nature(claim: Claim) -> tuple[object, ...]:
    return claim.run, claim.gossip, claim.transport, claim.oldest, claim.newest
