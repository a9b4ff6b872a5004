"""Between a row as the table has it and the cells that are replicated.

The log keeps images of rows: column to value, ``None`` where there was no row. What differs between two
images says which groups were written; the cells of a row say what the image must be.

A lease has an image of its own, of :data:`LEASE_COLUMNS`, and is never absent: without one its owner is
``None``. Whether ``healthy = 0`` was the lease's doing stands with the lease in the database, but belongs to
:attr:`Group.HEALTH`: it says who wrote that column, so the two must win or lose together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edgeproxy.core.replication.model import COLUMNS, EXPIRED, PRESENT, Cell, Group, Stamp, Value
from edgeproxy.core.replication.rows import Cells, is_present

Image = Mapping[str, Value]

LEASE_COLUMNS: Final = ("owner", "registered_at", EXPIRED)
NO_LEASE: Final[Image] = {"owner": None, "registered_at": None, EXPIRED: 0}

ROW_GROUPS: Final = (Group.PRESENCE, Group.IDENTITY, Group.LIMITS, Group.HEALTH)
"""Without these there is no whole row."""

_REMOVED: Final[Image] = {PRESENT: 0, "deleted": None}


def is_lease(image: Image | None) -> bool:
    """Whether this is the image of a lease and not of a row."""
    return image is not None and "owner" in image


def written_groups(old: Image | None, new: Image | None, cells: Cells) -> dict[Group, Image]:
    """Return what a local change wrote: the groups that differ, each with all its values.

    ``cells`` are those of the row before. They keep the values of columns that our table lacks, so that an
    edit here takes nothing from others.
    """
    if is_lease(new):
        assert old is not None
        assert new is not None
        return _written_by_lease(old, new, cells)
    if new is None:
        return {Group.PRESENCE: _REMOVED}
    after = _by_group(new)
    if old is None:
        written = after
    else:
        before = _by_group(old)
        written = {group: values for group, values in after.items() if not same(values, before.get(group))}
    return {group: _completed(values, cells.get(group)) for group, values in written.items()}


def _by_group(image: Image) -> dict[Group, Image]:
    groups: dict[Group, Image] = {
        group: {column: image[column] for column in COLUMNS[group] if column in image}
        for group in (Group.IDENTITY, Group.LIMITS)
    }
    groups[Group.PRESENCE] = {PRESENT: 1, "deleted": image.get("deleted")}
    # Whoever writes this column takes it from the lease; the lease claims it again by a write of its own.
    groups[Group.HEALTH] = {"healthy": image.get("healthy"), EXPIRED: 0}
    return groups


def _written_by_lease(old: Image, new: Image, cells: Cells) -> dict[Group, Image]:
    written: dict[Group, Image] = {}
    lease = {column: new[column] for column in COLUMNS[Group.LEASE]}
    if not same(lease, {column: old.get(column) for column in COLUMNS[Group.LEASE]}):
        written[Group.LEASE] = lease
    health = cells.get(Group.HEALTH)
    if health is not None and not same({EXPIRED: new[EXPIRED]}, {EXPIRED: old.get(EXPIRED)}):
        written[Group.HEALTH] = {**health.values, EXPIRED: new[EXPIRED]}
    return written


def _completed(values: Image, cell: Cell | None) -> Image:
    return values if cell is None else {**cell.values, **values}


def same(mine: Image, theirs: Image | None) -> bool:
    """Whether all values of ``mine`` are in ``theirs``, and of the same type."""
    return theirs is not None and all(
        column in theirs and type(theirs[column]) is type(value) and theirs[column] == value
        for column, value in mine.items()
    )


def row_of(cells: Cells) -> Image | None:
    """Return what the table must hold, ``None`` for no row; ``deleted`` included.

    A row of which not all groups have arrived is none yet.
    """
    if any(group not in cells for group in ROW_GROUPS) or not is_present(cells):
        return None
    columns = [(column, group) for group in ROW_GROUPS for column in COLUMNS[group]]
    return {
        column: cells[group].values.get(column)
        for column, group in columns
        if column not in (PRESENT, EXPIRED)
    }


def lease_of(cells: Cells) -> Image:
    """Return the lease that must stand beside the row."""
    lease = cells.get(Group.LEASE)
    if row_of(cells) is None or lease is None or lease.values.get("owner") is None:
        return NO_LEASE
    return {**lease.values, EXPIRED: cells[Group.HEALTH].values.get(EXPIRED) or 0}


def differences(
    row: Image | None, lease: Image, cells: Cells
) -> tuple[dict[Group, Image], dict[Group, Image]]:
    """Return what of a row and its lease has no cell yet, and what differs from the cell there is."""
    if row is None:
        return {}, ({Group.PRESENCE: _REMOVED} if is_present(cells) else {})
    current = dict(_by_group(row))
    current[Group.HEALTH] = {**current[Group.HEALTH], EXPIRED: lease[EXPIRED]}
    if lease["owner"] is not None or Group.LEASE in cells:
        current[Group.LEASE] = {column: lease[column] for column in COLUMNS[Group.LEASE]}
    missing = {group: values for group, values in current.items() if group not in cells}
    differing = {
        group: _completed(values, cells[group])
        for group, values in current.items()
        if group in cells and not same(values, cells[group].values)
    }
    return missing, differing


def after_all(stamp: Stamp, cells: Cells, groups: Mapping[Group, Image]) -> Stamp:
    """Return ``stamp``, or the least one of its node that is greater than those of the cells written."""
    newest = max((cells[group].stamp for group in groups if group in cells), default=None)
    if newest is None or stamp > newest:
        return stamp
    return Stamp(newest.wall_ms, newest.counter + 1, stamp.node)
