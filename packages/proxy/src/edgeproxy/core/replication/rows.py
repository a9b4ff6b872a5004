"""What becomes of one row's cells: by a write, by a snapshot, and when nobody needs its tombstone any more.

A snapshot and a vector together say more than the rows in it. A cell that one side has and the other has
not, although it knows the write that made it, was overwritten or removed over there: so it goes. That is why
no row comes back from a member that was away for longer than tombstones are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b

from edgeproxy.core.replication.model import PRESENT, Cell, Dot, Group, Write, merged

Cells = Mapping[Group, Cell]
Covers = Callable[[Dot], bool]
"""Whether a dot is known, to whomever it is about."""

FINGERPRINT_MASK = (1 << 64) - 1


def is_present(cells: Cells) -> bool:
    """Whether there is a row; what is left of one that is not is a tombstone."""
    presence = cells.get(Group.PRESENCE)
    return presence is not None and presence.values.get(PRESENT) == 1


def written(cells: Cells, write: Write) -> dict[Group, Cell]:
    """The cells after a write, however late it comes."""
    return {
        **cells,
        **{
            group: merged(cells.get(group), Cell(write.stamp, write.dot, values))
            for group, values in write.groups.items()
        },
    }


def installed(mine: Cells, theirs: Cells, i_know: Covers, they_know: Covers) -> dict[Group, Cell]:
    """The cells after a snapshot, which has ``theirs`` (none at all where it lacks the row)."""
    result = {}
    for group in Group:
        cell = mine.get(group)
        other = theirs.get(group)
        if cell is not None and other is not None:
            if (left := _of_two(group, cell, other, i_know, they_know)) is not None:
                result[group] = left
        elif cell is not None and not they_know(cell.dot):
            result[group] = cell
        elif other is not None and not i_know(other.dot):
            result[group] = other
    return result


def _of_two(group: Group, mine: Cell, theirs: Cell, i_know: Covers, they_know: Covers) -> Cell | None:
    """Return which cell stands: the later one, unless the side that has the earlier one knew it, too.

    There the row was removed, and the earlier one came after the tombstone had been collected. That tombstone
    was later than both, so there is no row; what else is left of it is collected when all know it.
    """
    if mine.dot == theirs.dot:
        return mine
    later, earlier, knows = (mine, theirs, they_know) if mine.stamp > theirs.stamp else (theirs, mine, i_know)
    if not knows(later.dot) or _is_tombstone(later):
        return later
    return earlier if group is not Group.PRESENCE or _is_tombstone(earlier) else None


def _is_tombstone(cell: Cell) -> bool:
    return cell.values.get(PRESENT) == 0


def is_garbage(cells: Cells, stable: Covers) -> bool:
    """Whether what is left of a removed row is needed by nobody: every member knows all that made it."""
    return not is_present(cells) and all(stable(cell.dot) for cell in cells.values())


def row_fingerprint(row_id: str, dots: Iterable[tuple[Group, Dot]]) -> int:
    """A row's part in the fingerprint of a state, which is the sum over all present rows, in 64 bits."""
    return (
        sum(
            int.from_bytes(
                blake2b(
                    f"{group.value}\0{dot.origin}\0{dot.sequence}\0{row_id}".encode("utf-8", "surrogatepass"),
                    digest_size=8,
                ).digest(),
                "big",
            )
            for group, dot in dots
        )
        & FINGERPRINT_MASK
    )
