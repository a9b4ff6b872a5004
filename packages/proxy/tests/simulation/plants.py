"""Defects that can be planted into a history, each of which some seeds must show."""

from __future__ import annotations

from enum import StrEnum


class Plant(StrEnum):
    """What the planted node or store does wrong."""

    TOMBSTONES_COLLECTED_EARLY = "tombstones-collected-early"
    """As soon as this node knows of them."""
    GAPS_IGNORED = "gaps-ignored"
    """Whoever knows a write believes to know all before it."""
    CLOCK_NOT_MERGED = "clock-not-merged"
    INCARNATION_REUSED = "incarnation-reused"
    """A file that was restored goes on with the numbers it had."""
    SNAPSHOT_REMOVES_NOTHING = "snapshot-removes-nothing"
    LAST_TO_ARRIVE_WINS = "last-to-arrive-wins"
    NOTHING_REPAIRED = "nothing-repaired"
    """Changes are pushed, and never compared."""
    VECTOR_BEFORE_ROWS = "vector-before-rows"
    """The vector of a snapshot is learnt with its first part."""
    DEAD_NOT_ASKED = "dead-not-asked"
    """Whom a member believes dead, it sends nothing any more."""
