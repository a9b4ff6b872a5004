"""What the table was at another time, from what it is and what was changed since.

Changes fit each other: what one left is what the next one of that row began with. Where they do not, the log
was altered or is incomplete, and nothing that is made of it could be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from edgeproxy.core.replication.images import is_lease
from edgeproxy.ports import Change, Row

Rows = Mapping[str, Row]
"""By id, removed ones included."""


class HistoryError(Exception):
    """Changes that do not fit the rows, or each other; says which."""


class Restorable(NamedTuple):
    """Rows as they were."""

    rows: Rows
    at: str
    """When; a time as in :attr:`edgeproxy.ports.Change.at`."""


class RowDifference(NamedTuple):
    """What would become of one row."""

    id: str
    old: Row | None
    """``None`` for a row that is not there."""
    new: Row | None


def undone(rows: Rows, changes: Iterable[Change]) -> dict[str, Row]:
    """Return the rows before ``changes``, which are all since then, oldest first.

    Raises:
        HistoryError: they do not lead to ``rows``.
    """
    result = dict(rows)
    for change in reversed([*changes]):
        if not _is_of_lease(change):
            _step(result, change, change.new, change.old)
    return result


def replayed(rows: Rows, changes: Iterable[Change]) -> dict[str, Row]:
    """Return the rows after ``changes``, oldest first.

    Raises:
        HistoryError: they do not begin with ``rows``.
    """
    result = dict(rows)
    for change in changes:
        if not _is_of_lease(change):
            _step(result, change, change.old, change.new)
    return result


def _is_of_lease(change: Change) -> bool:
    return is_lease(change.new)  # type: ignore[arg-type]


def _step(rows: dict[str, Row], change: Change, before: Row | None, after: Row | None) -> None:
    if rows.get(change.id) != before:
        raise HistoryError(f"entry {change.number}, of backend {change.id!r}, does not fit those beside it")
    if after is None:
        del rows[change.id]
    else:
        rows[change.id] = after


def in_sequence(changes: Iterable[Change], first: int) -> Iterator[Change]:
    """Return the changes, whose numbers must go on from ``first`` without a gap.

    Raises:
        HistoryError: some are missing.
    """
    for change in changes:
        if change.number != first:
            raise HistoryError(f"the entries {first} to {change.number - 1} are missing")
        first += 1
        yield change


def row_differences(current: Rows, wanted: Rows) -> list[RowDifference]:
    """Return what must become of which row, in the order of their ids.

    Only columns that a wanted row has count: the table may have got more of them since.
    """
    found = []
    for row_id in sorted({*current, *wanted}):
        old, new = current.get(row_id), wanted.get(row_id)
        if old is None or new is None or any(old.get(column) != value for column, value in new.items()):
            found.append(RowDifference(row_id, old, new))
    return found
