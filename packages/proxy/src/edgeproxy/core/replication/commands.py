"""What a replica asks of the shell around it: to send, and to read and write the store.

Commands to the store are carried out one after the other in the order in which they were given, each in one
transaction. The shell reports how each came out with the method of
:class:`~edgeproxy.core.replication.replica.Replica` that it names, or with its ``store_failed`` when the
store cannot be read or written now.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from edgeproxy.core.replication.messages import Message, Ranges
from edgeproxy.core.replication.model import RowState, Write


class Send(msgspec.Struct, frozen=True):
    """Send to a peer. The shell drops it when too much waits for that peer already."""

    peer: str
    message: Message


class ApplyWrites(msgspec.Struct, frozen=True):
    """Write these to the table, the cells and the log, as far as they are not known.

    The clock of the store is merged with their stamps, which have been checked. Report with ``applied``.
    """

    peer: str
    """Who sent them."""
    writes: tuple[Write, ...]


class ReadLog(msgspec.Struct, frozen=True):
    """Read from the log what a peer wants, at most what one message holds. Report with ``log_read``."""

    peer: str
    ranges: Ranges


class ReadRows(msgspec.Struct, frozen=True):
    """Read rows for a peer, at most what one message holds. Report with ``rows_read``."""

    peer: str
    after: str | None


class InstallRows(msgspec.Struct, frozen=True):
    """Merge part of a snapshot as :func:`edgeproxy.core.replication.rows.installed` says.

    In the same transaction the dot of every cell in ``rows`` becomes known: since a write is of one row, all
    of it is in that row or overwritten. So no cell is ever in the store whose dot is not known, not even when
    the rest of the snapshot never comes. With the last part all of ``known`` becomes known. Report with
    ``installed``.
    """

    peer: str
    after: str | None
    until: str | None
    known: Ranges
    """The vector of the snapshot."""
    rows: tuple[RowState, ...]
    learn: bool
    """Whether this is the last part, so that all of ``known`` is known now."""


class Collect(msgspec.Struct, frozen=True):
    """Remove tombstones, and what is left of their rows, whose every cell is in ``stable``.

    Nothing to report.
    """

    stable: Ranges


class ReadFingerprint(msgspec.Struct, frozen=True):
    """Read what is known and the fingerprint of the rows, both in one. Report with ``fingerprint_read``."""


class Renew(msgspec.Struct, frozen=True):
    """Begin a new incarnation: numbers of the present one are in use elsewhere. Report with ``renewed``."""

    origin: str
    """The one that must not be used any more."""


class Cause(StrEnum):
    """What to warn of."""

    CLOCK_AHEAD = "clock_ahead"
    """Writes are stamped too far ahead of this node's wall clock; not taken until it has caught up."""
    NUMBERS_REUSED = "numbers_reused"
    """A peer knows of more writes of ours than we made: the file went back to an earlier state."""
    SNAPSHOT = "snapshot"
    """What this node lacks is in nobody's log any more, or it was away for long: it takes a snapshot."""
    DIFFERENT_ROWS = "different_rows"
    """Two members that know the same writes have different rows; they are made equal."""
    FORGOTTEN = "forgotten"
    """A member was dead for so long that tombstones are not kept for it any more."""


class Warn(msgspec.Struct, frozen=True):
    """Tell the operator. The shell says the same thing again only after a while."""

    cause: Cause
    node: str
    """Whose doing it is."""
    origin: str = ""
    ahead_ms: int = 0


Command = Send | ApplyWrites | ReadLog | ReadRows | InstallRows | Collect | ReadFingerprint | Renew | Warn
Commands = Sequence[Command]
