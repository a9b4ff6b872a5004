"""Claims that the others may not have heard: each rides on a bounded number of datagrams.

Enough of them that nearly everybody hears it, and no more, so that a change costs the same number of
datagrams for each member however many members there are, but for a logarithm.
"""

from __future__ import annotations

from math import ceil, log10
from typing import Final

import msgspec

from edgeproxy.core.replication.members import Claim

TIMES: Final = 4
"""As in memberlist: with it, a cluster of 50 in which every fourth datagram is lost hears nearly all."""


class _Item(msgspec.Struct):
    claim: Claim
    size_bytes: int
    sent: int = 0


class News:
    """One claim for each member at most, so it is bounded as members are."""

    def __init__(self) -> None:
        self._items: dict[str, _Item] = {}

    def __len__(self) -> int:
        """How many claims are on their way."""
        return len(self._items)

    def add(self, claim: Claim) -> None:
        """Tell others of it, in place of what was to be told of this member."""
        self._items.pop(claim.node, None)
        self._items[claim.node] = _Item(claim, size_of(claim))

    def take(self, room_bytes: int, members: int, *, but: str) -> list[Claim]:
        """Claims for the next datagram, the least told first; those about ``but`` are left out.

        ``members`` is how many nodes there are, from which follows how often each is told.
        """
        limit = times_told(members)
        taken: list[Claim] = []
        for node, item in sorted(self._items.items(), key=lambda entry: entry[1].sent):
            if node == but or item.size_bytes > room_bytes:
                continue
            room_bytes -= item.size_bytes
            taken.append(item.claim)
            item.sent += 1
            if item.sent >= limit:
                del self._items[node]
        return taken


def times_told(members: int) -> int:
    """On how many datagrams of each node a claim rides."""
    return TIMES * ceil(log10(members + 1))


def size_of(claim: Claim) -> int:
    """In bytes, in a datagram."""
    return len(msgspec.msgpack.encode(claim))
