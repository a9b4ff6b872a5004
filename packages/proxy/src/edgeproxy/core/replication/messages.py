"""What two replicas say to each other, once each has proven itself to the other.

Every message stands by itself: it may be lost, repeated or overtaken by others, and the worst that comes of
it is that the next comparison repairs it. Nothing is acknowledged but by telling what one knows. Each kind is
one kind of frame; a later version may add kinds, and fields at the end of a kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from edgeproxy.core.replication.model import RowState, Write

Ranges = Mapping[str, tuple[tuple[int, int], ...]]
"""Origin to numbers, as first and last of each range: ascending, apart from each other, from 1.

``{"a/1f": ((1, 40), (42, 42))}`` is all that a member knows of an origin whose write 41 was lost."""

MAX_WRITES: Final = 512
"""In one message."""
MAX_ROWS: Final = 512
"""In one part of a snapshot."""
MAX_BYTES: Final = 1 << 20
"""About as much is in one message, unless a single write or row is larger."""
MAX_RANGES: Final = 256
"""Wanted at once."""


class Changes(msgspec.Struct, frozen=True, array_like=True):
    """Writes: pushed when they were made, or sent because they were wanted."""

    writes: tuple[Write, ...]


class Digest(msgspec.Struct, frozen=True, array_like=True):
    """What the sender knows. Who gets it asks for what it lacks; and so it acknowledges all it names."""

    origin: str
    """The sender's own at present."""
    known: Ranges
    fingerprint: int | None
    """Of the rows that make up the state of exactly ``known``; ``None`` when it is not at hand."""
    wall_ms: int
    """The sender's wall clock when it sent this."""
    answer: bool
    """Whether the sender asks for a digest in return."""


class Want(msgspec.Struct, frozen=True, array_like=True):
    """Asks for writes. As many as one message holds come back, from the lowest number on."""

    ranges: Ranges


class Gone(msgspec.Struct, frozen=True, array_like=True):
    """Some of what was wanted is in the sender's log no more, or must not be taken without a snapshot."""


class SnapshotWanted(msgspec.Struct, frozen=True, array_like=True):
    """Asks for the next part of a snapshot: rows whose id is greater than ``after``."""

    after: str | None
    """``None`` for the first part."""


class SnapshotPart(msgspec.Struct, frozen=True, array_like=True):
    """All rows whose id is greater than ``after`` and not greater than ``until``, tombstones included.

    A snapshot's vector is that of its first part: whatever the sender knew then is in the parts, or was
    overwritten or removed, however late they were read.
    """

    origin: str
    """The sender's own; parts of different origins make no snapshot."""
    after: str | None
    until: str | None
    """``None`` when there are no more rows."""
    known: Ranges
    rows: tuple[RowState, ...]
    """In the order of their ids' UTF-8, which is SQLite's."""


Message = Changes | Digest | Want | Gone | SnapshotWanted | SnapshotPart

KINDS: Final[Mapping[int, type[Message]]] = {
    16: Changes,
    17: Digest,
    18: Want,
    19: Gone,
    20: SnapshotWanted,
    21: SnapshotPart,
}
"""Kind of frame to message. Kinds below are those of the handshake."""


def batches(writes: Sequence[Write]) -> list[tuple[Write, ...]]:
    """Cut writes into what one message may hold."""
    found: list[tuple[Write, ...]] = []
    start = size = 0
    for place, write in enumerate(writes):
        cost = write_bytes(write)
        if place > start and (place - start == MAX_WRITES or size + cost > MAX_BYTES):
            found.append(tuple(writes[start:place]))
            start, size = place, 0
        size += cost
    if start < len(writes):
        found.append(tuple(writes[start:]))
    return found


def write_bytes(write: Write) -> int:
    """About as many bytes does a write take in a message; never fewer than its texts have characters."""
    return 96 + len(write.id) + sum(map(_values_bytes, write.groups.values()))


def row_bytes(row: RowState) -> int:
    """As :func:`write_bytes`, of a row with all its cells."""
    return len(row.id) + sum(96 + _values_bytes(cell.values) for cell in row.cells.values())


def _values_bytes(values: Mapping[str, object]) -> int:
    return sum(16 + (len(value) if isinstance(value, str | bytes) else 0) for value in values.values())
