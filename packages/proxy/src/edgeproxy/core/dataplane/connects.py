"""Connections established with one backend: how many, how they came by it, how long the connect took."""

from __future__ import annotations

from edgeproxy.core.dataplane.times import Times


class Connects(Times):
    """The times of connects; one that took a warm connection took none."""

    from_affinity: int = 0
    """How many clients were bound to this backend already."""
    from_warm: int = 0
    """How many took a connection that had been made before they came."""

    def add(self, seconds: float, from_affinity: bool, from_warm: bool = False) -> None:
        """A connect succeeded after ``seconds``."""
        self.note(seconds)
        self.from_affinity += from_affinity
        self.from_warm += from_warm

    def merge_connects(self, other: Connects) -> None:
        """Take in what somebody else counted."""
        self.merge(other)
        self.from_affinity += other.from_affinity
        self.from_warm += other.from_warm
