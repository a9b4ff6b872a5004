"""What every member has acknowledged, so that tombstones it covers can go.

A member acknowledges what it names in a digest. That alone is not enough: it may have known, when it sent it,
of a write that has not come here yet and is older than a removal; without the tombstone that write would
bring the row back. So a digest counts once this node knows everything in it. A later write of that member is
made by somebody who knew of the removal, and bears a greater stamp.

A member that left does not count any more, and neither does one that was dead for longer than tombstones are
kept: what it lacks it gets with a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from edgeproxy.core.replication.messages import Ranges
from edgeproxy.core.replication.vector import Known, Spans, common


class _Member(msgspec.Struct):
    dead_since_s: float | None = None
    said: Ranges | None = None
    """The last digest."""
    awaited: Ranges | None = None
    """A digest that names something that is not known here yet. It is kept until all has come, because later
    ones may always be ahead, too."""
    acknowledged: Ranges | None = None


class Acknowledgements:
    """Of all members but this node. ``now_s`` is a clock that nobody sets."""

    def __init__(self, retention_s: float) -> None:
        self._retention_s = retention_s
        self._members: dict[str, _Member] = {}

    def alive(self, node: str) -> None:
        """It counts from now on, and nothing is collected before it has acknowledged it."""
        self._members.setdefault(node, _Member()).dead_since_s = None

    def dead(self, node: str, now_s: float) -> None:
        """It still counts for the time that tombstones are kept."""
        if (member := self._members.get(node)) is not None and member.dead_since_s is None:
            member.dead_since_s = now_s

    def left(self, node: str) -> None:
        """It does not count any more."""
        self._members.pop(node, None)

    def forget(self, now_s: float) -> list[str]:
        """Forget who has been dead for too long, and return them."""
        found = [
            node
            for node, member in self._members.items()
            if member.dead_since_s is not None and now_s - member.dead_since_s >= self._retention_s
        ]
        for node in found:
            del self._members[node]
        return found

    def said(self, node: str, ranges: Ranges, now_s: float) -> None:
        """A digest came. Of one that left, or has not been heard of yet, it is worth nothing."""
        if (member := self._members.get(node)) is None:
            return
        if member.dead_since_s is not None:
            # Whoever found it dead was wrong, or is not here to say that it lives again.
            member.dead_since_s = now_s
        member.said = ranges
        if member.awaited is None:
            member.awaited = ranges

    def stable(self, known: Known) -> Mapping[str, Spans] | None:
        """What every member has acknowledged, this node included; ``None`` while one has nothing."""
        acknowledged: list[Ranges] = [known.ranges]
        for member in self._members.values():
            if member.said is not None and known.covers(member.said):
                member.acknowledged, member.awaited = member.said, None
            elif member.awaited is not None and known.covers(member.awaited):
                member.acknowledged, member.awaited = member.awaited, member.said
            if member.acknowledged is None:
                return None
            acknowledged.append(member.acknowledged)
        return common(acknowledged)

    def others_know(self) -> Iterable[Ranges]:
        """The last digest of each member that sent one."""
        return [member.said for member in self._members.values() if member.said is not None]
