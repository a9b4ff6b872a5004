"""Adding, changing and removing backends: the operations behind the command line and the API.

Each operation looks at the rows there are and returns what to write, or why not. It is run by the
store inside the transaction that writes (:meth:`edgeproxy.ports.RowStore.apply`), so what it saw still
holds when its decision takes effect.

What an operation writes always passes for a valid row: it is judged as a whole by the same rules that
apply when the table is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from edgeproxy.core.controlplane.rows import RowIssue, backend_from_row, written
from edgeproxy.core.geography import Geography
from edgeproxy.ports import Row, RowChange

DEFAULTS: Final[Mapping[str, object]] = MappingProxyType(
    {"country": None, "healthy": 1, "weight": 2, "soft_limit": 100, "hard_limit": 150}
)
"""Values of the columns that the author of a new backend may leave out."""


class RefusalReason(StrEnum):
    INVALID = "invalid"
    EXISTS = "exists"
    UNKNOWN = "unknown"
    FORBIDDEN = "forbidden"


class Refusal(msgspec.Struct, frozen=True):
    """Why an operation writes nothing."""

    reason: RefusalReason
    problems: tuple[str, ...]
    """One line each, for the person who asked."""
    issues: tuple[RowIssue, ...] = ()
    """The same by column, where single values are at fault."""


def add_backend(
    table: Mapping[str, Row], geography: Geography, backend_id: str, values: Mapping[str, object]
) -> RowChange | Refusal:
    """Make a new backend of ``values`` (column to value); those of :data:`DEFAULTS` may be missing.

    The id of a removed backend may be used again; nothing of its former row is kept.
    """
    current = table.get(backend_id)
    if current is not None and not is_removed(current):
        return Refusal(RefusalReason.EXISTS, (f"backend {written(backend_id)} exists already",))
    decision = _write(geography, backend_id, {}, {**DEFAULTS, **values})
    if isinstance(decision, Refusal):
        return decision
    return RowChange(backend_id, {**decision.values, "deleted": 0})


def set_backend(
    table: Mapping[str, Row], geography: Geography, backend_id: str, values: Mapping[str, object]
) -> RowChange | Refusal:
    """Give the columns in ``values`` new values and leave the others alone."""
    current = table.get(backend_id)
    if current is None or is_removed(current):
        return _unknown(table, backend_id)
    return _write(geography, backend_id, current, values)


def remove_backend(table: Mapping[str, Row], backend_id: str) -> RowChange | Refusal:
    """Mark the row as deleted. It stays in the table, for the original keeps it there, too."""
    current = table.get(backend_id)
    if current is None or is_removed(current):
        return _unknown(table, backend_id)
    return RowChange(backend_id, {"deleted": 1})


def is_removed(row: Row) -> bool:
    """Whether the row no longer counts: ids of such rows are free."""
    return bool(row.get("deleted"))


def _write(
    geography: Geography, backend_id: str, current: Row, values: Mapping[str, object]
) -> RowChange | Refusal:
    # feature: table.commands
    outcome = backend_from_row({**current, **values, "id": backend_id}, geography, place=1)
    if isinstance(outcome, tuple):
        return Refusal(RefusalReason.INVALID, tuple(str(issue) for issue in outcome), outcome)
    # Written as it is understood: a region in lower case, an address without brackets, a flag as 0 or 1.
    understood: dict[str, object] = {
        "app": outcome.app,
        "region": outcome.region,
        "country": outcome.country if str(values.get("country") or "").strip() else None,
        "wg_ip": outcome.host,
        "port": outcome.port,
        "healthy": int(outcome.healthy),
        "weight": outcome.weight,
        "soft_limit": outcome.soft_limit,
        "hard_limit": outcome.hard_limit,
    }
    return RowChange(backend_id, {column: understood[column] for column in values})


def _unknown(table: Mapping[str, Row], backend_id: str) -> Refusal:
    close = [written(known) for known in get_close_matches(backend_id, table) if not is_removed(table[known])]
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return Refusal(RefusalReason.UNKNOWN, (f"there is no backend {written(backend_id)}{hint}",))
