"""Leases: a backend that registered itself is in the table for as long as it goes on saying so.

A *lease* belongs to one row of ``backends``. Each heartbeat renews it. When none has come for the TTL,
the row becomes unhealthy; when none has come for three times as long, it is removed.

``healthy = 0`` in the table says that a backend must get no clients, not who said so. The operator's
word must outlast a heartbeat and that of an expiry must not, so a lease remembers whether it was the
one (:attr:`edgeproxy.ports.Lease.expired`), and the store clears that mark when anybody else writes
the column.

Each function here returns an operation on one row and its lease, which the store runs in the
transaction that shows it both. Rows are changed by the operations of the registry, the same that people
use. Times are wall times: what is stored is read after a restart, and by people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from edgeproxy.core.controlplane.registry import (
    DEFAULTS,
    Refusal,
    RefusalReason,
    add_backend,
    is_removed,
    remove_backend,
    set_backend,
)
from edgeproxy.core.geography import Geography
from edgeproxy.ports import Lease, LeaseOperation, LeaseWrite, Row, RowChange

TTL_HEADER: Final = "Heartbeat-TTL-Secs"
"""Header with which the API tells backends how often they must be heard: seconds, as a decimal number."""

_TUNABLE: Final = ("weight", "soft_limit", "hard_limit")


class HeardElsewhere(msgspec.Struct, frozen=True):
    """Nothing was written: the store knows a heartbeat that this process did not hear."""

    lease: Lease


class AlreadyUnhealthy(msgspec.Struct, frozen=True):
    """Nothing was written: the operator took the backend out before its lease ran out."""


class Ended(msgspec.Struct, frozen=True):
    """Nothing was written: there is no such lease any more, or no row that it could keep."""


Outcome = LeaseWrite | HeardElsewhere | AlreadyUnhealthy | Ended
"""What can come of an operation that nobody asked for but time."""


# ---- what backends and operators ask for -----------------------------------------------------


def registration(
    geography: Geography,
    backend_id: str,
    values: Mapping[str, object],
    *,
    at_s: float,
    owner: str,
    only_app: str | None,
) -> LeaseOperation[Refusal]:
    """Make the row, or bring it up to date, and begin or renew its lease.

    ``values`` holds every column that says where the backend is, and weight and limits if it names
    them; those it does not name stay as the operator tuned them. A row that somebody else made is taken
    over. ``only_app`` is the app that the caller must keep to, ``None`` when it need not.
    """

    def decide(table: Mapping[str, Row], lease: Lease | None) -> LeaseWrite | Refusal:
        current = _live_row(table, backend_id)
        if only_app is not None and {values["app"], *_app_of(current)} != {only_app}:
            return _forbidden(only_app)
        if current is None:
            change = add_backend(table, geography, backend_id, values)
        else:
            change = _moved(table, geography, backend_id, values, current, lease)
        if isinstance(change, Refusal):
            return change
        began_s = lease.registered_at_s if lease is not None and current is not None else at_s
        return LeaseWrite(backend_id, change, Lease(backend_id, owner, began_s, at_s, expired=False))

    return decide


def _moved(
    table: Mapping[str, Row],
    geography: Geography,
    backend_id: str,
    values: Mapping[str, object],
    current: Row,
    lease: Lease | None,
) -> RowChange | Refusal:
    drained = current.get("healthy") == 0 and not (lease is not None and lease.expired)
    values = {**values, "healthy": 0 if drained else 1}
    change = set_backend(table, geography, backend_id, values)
    if isinstance(change, RowChange):
        return change
    # What the row holds in the other columns may be at fault, and the backend can do nothing about it.
    defaults = {column: DEFAULTS[column] for column in _TUNABLE}
    return set_backend(table, geography, backend_id, {**defaults, **values})


def heartbeat(backend_id: str, *, at_s: float, owner: str, only_app: str | None) -> LeaseOperation[Refusal]:
    """Renew the lease of a backend that was heard just now, and undo what its expiry did."""

    def decide(table: Mapping[str, Row], lease: Lease | None) -> LeaseWrite | Refusal:
        current = _live_row(table, backend_id)
        if lease is None or current is None:
            return _not_registered()
        if only_app is not None and current.get("app") != only_app:
            return _forbidden(only_app)
        return _renewed(lease, at_s, owner)

    return decide


def deregistration(backend_id: str, *, only_app: str | None) -> LeaseOperation[Refusal]:
    """Remove the row and end the lease, because the backend says so."""

    def decide(table: Mapping[str, Row], lease: Lease | None) -> LeaseWrite | Refusal:
        current = _live_row(table, backend_id)
        if lease is None or current is None:
            return _not_registered()
        if only_app is not None and current.get("app") != only_app:
            return _forbidden(only_app)
        return _removed(table, backend_id)

    return decide


def adjustment(
    geography: Geography, backend_id: str, values: Mapping[str, object]
) -> LeaseOperation[Refusal]:
    """Let the operator change a row, whether it was registered or not."""

    def decide(table: Mapping[str, Row], lease: Lease | None) -> LeaseWrite | Refusal:
        if _live_row(table, backend_id) is None:
            return Refusal(RefusalReason.UNKNOWN, ("there is no such backend",))
        change = set_backend(table, geography, backend_id, values)
        if isinstance(change, Refusal):
            return change
        if lease is not None and "healthy" in values:
            lease = msgspec.structs.replace(lease, expired=False)
        return LeaseWrite(backend_id, change, lease)

    return decide


# ---- what time asks for ----------------------------------------------------------------------


def renewal(backend_id: str, *, at_s: float, owner: str) -> LeaseOperation[Outcome]:
    """Store a heartbeat that came at ``at_s``."""

    def decide(table: Mapping[str, Row], lease: Lease | None) -> Outcome:
        if lease is None or _live_row(table, backend_id) is None:
            return Ended()
        return _renewed(lease, at_s, owner)

    return decide


def expiry(backend_id: str, *, known_at_s: float) -> LeaseOperation[Outcome]:
    """Make the row unhealthy. ``known_at_s`` is the stored heartbeat after which the caller heard none."""

    def decide(table: Mapping[str, Row], lease: Lease | None) -> Outcome:  # feature: api.leases
        current = _live_row(table, backend_id)
        if lease is None or current is None:
            return Ended()
        if lease.heartbeat_at_s != known_at_s:
            return HeardElsewhere(lease)
        if not current.get("healthy"):
            return AlreadyUnhealthy()
        expired = msgspec.structs.replace(lease, expired=True)
        return LeaseWrite(backend_id, RowChange(backend_id, {"healthy": 0}), expired)

    return decide


def removal(backend_id: str, *, known_at_s: float) -> LeaseOperation[Outcome]:
    """Remove the row and end the lease; ``known_at_s`` as for :func:`expiry`."""

    def decide(table: Mapping[str, Row], lease: Lease | None) -> Outcome:
        if lease is None or _live_row(table, backend_id) is None:
            return Ended()
        if lease.heartbeat_at_s != known_at_s:
            return HeardElsewhere(lease)
        return _removed(table, backend_id)

    return decide


# ---- what they share -------------------------------------------------------------------------


def _live_row(table: Mapping[str, Row], backend_id: str) -> Row | None:
    row = table.get(backend_id)
    return None if row is None or is_removed(row) else row


def _app_of(row: Row | None) -> set[object]:
    return set() if row is None else {row.get("app")}


def _renewed(lease: Lease, at_s: float, owner: str) -> LeaseWrite:
    row = RowChange(lease.id, {"healthy": 1}) if lease.expired else None
    return LeaseWrite(
        lease.id, row, msgspec.structs.replace(lease, heartbeat_at_s=at_s, owner=owner, expired=False)
    )


def _removed(table: Mapping[str, Row], backend_id: str) -> LeaseWrite:
    change = remove_backend(table, backend_id)
    assert isinstance(change, RowChange), "the caller saw the row in this very transaction"
    return LeaseWrite(backend_id, change, None)


def _not_registered() -> Refusal:
    return Refusal(RefusalReason.UNKNOWN, ("backend not registered",))


def _forbidden(only_app: str) -> Refusal:
    return Refusal(RefusalReason.FORBIDDEN, (f"this token is for backends of app {only_app} only",))
