"""What is replicated: rows in groups of columns, each group the value of its latest write.

A row is a handful of *cells*, one for each group of columns. Every write bears a *stamp* of the hybrid
logical clock, and a cell holds the values of the write with the greatest stamp: the last write wins, for
each group by itself, so that an operator's weight and another POP's address both stand. Whether there is a
row at all is a group like the others: a removal is a write of :attr:`Group.PRESENCE`, and the cell it leaves
is the tombstone.

Every write also has a *dot*: the origin whose change it was, and its number there. Numbers of one origin
have no gaps and are never given twice, so a *vector*, ranges of numbers by origin, says what a member knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    Value = None | int | float | str | bytes
else:
    Value = Any  # msgspec decodes no union of texts and bytes; who reads from outside checks
"""What SQLite can hold."""


class Group(StrEnum):
    """Columns of a row that are written and overwritten together."""

    PRESENCE = "presence"
    """Whether there is a row, and whether it is marked as deleted."""
    IDENTITY = "identity"
    """What and where the backend is."""
    LIMITS = "limits"
    HEALTH = "health"
    LEASE = "lease"
    """Who hears the heartbeats of a backend that registered itself."""


PRESENT: Final = "present"
"""In :attr:`Group.PRESENCE`: 1 where there is a row, 0 in a tombstone. No column of the table."""

EXPIRED: Final = "expired"
"""In :attr:`Group.HEALTH`: 1 where ``healthy = 0`` is the doing of the row's lease. A column of the lease."""

COLUMNS: Final[Mapping[Group, tuple[str, ...]]] = {
    Group.PRESENCE: (PRESENT, "deleted"),
    Group.IDENTITY: ("app", "region", "country", "wg_ip", "port"),
    Group.LIMITS: ("weight", "soft_limit", "hard_limit"),
    Group.HEALTH: ("healthy", EXPIRED),
    Group.LEASE: ("owner", "registered_at"),
}


class Stamp(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A moment of the hybrid logical clock. Stamps of different nodes are never equal."""

    wall_ms: int
    """Milliseconds since 1970."""
    counter: int
    """Tells apart what happened in one millisecond, or while the wall clock stood behind the stamps."""
    node: str


class Dot(msgspec.Struct, frozen=True, array_like=True):
    """Which write this is."""

    origin: str
    """``NODE/INCARNATION``."""
    sequence: int
    """From 1, without gaps."""


class Write(msgspec.Struct, frozen=True, array_like=True):
    """One write to one row: what a member tells the others."""

    dot: Dot
    stamp: Stamp
    id: str
    """Of the row."""
    groups: Mapping[Group, Mapping[str, Value]]
    """The groups that were written, each with all its columns that the writer's table has."""


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """A group of one row: the values of the write that won, and which write that was."""

    stamp: Stamp
    dot: Dot
    values: Mapping[str, Value]


class RowState(msgspec.Struct, frozen=True, array_like=True):
    """A row with everything that merging it needs; also what is left of one that was removed."""

    id: str
    cells: Mapping[Group, Cell]


def merged(mine: Cell | None, theirs: Cell) -> Cell:
    """Return which of two cells of one group stands: the one with the greater stamp."""
    return theirs if mine is None or theirs.stamp > mine.stamp else mine
