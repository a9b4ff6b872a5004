"""The routing table: what the rows in the store come to, as versioned changes.

The control process hands every set of rows it reads to :meth:`RoutingTable.replace` and publishes what
comes back; workers apply the change to their copy. So the cost of an edit, for every worker and for
the connections it carries meanwhile, is that of the rows edited and not of the table.

Each backend has a *slot*, the index of its cell in the segment that the workers share. The cell counts
connections, and those outlive the row: whoever removes a backend still lets its connections end. So
the slot of a removed backend is kept back until the owner of the segment says that it is free
(:meth:`RoutingTable.release`). An id that comes back before that gets its old slot, so that its
remaining connections go on counting towards its limits.

With each backend goes this POP's own verdict on it. It comes from elsewhere (:mod:`.verdicts`) and has
nothing to do with the rows, but whoever chooses among backends needs both, and in the same order of
changes, so both travel as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import Final

import msgspec

from edgeproxy.core.controlplane.rows import RowIssue, backend_from_row, row_name, written
from edgeproxy.core.geography import Geography
from edgeproxy.core.model import GOOD, Backend, Verdict
from edgeproxy.ports import Row

MAX_SLOTS: Final = 65536


class PlacedBackend(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A backend and its cell in the shared segment; this is what travels to the workers."""

    slot: int
    backend: Backend
    verdict: Verdict = GOOD


class TableChange(msgspec.Struct, frozen=True):
    """What one set of rows changed.

    ``version`` is the table's version afterwards; it has risen if there are ``upserts`` or ``removed``.
    An issue is told twice in its life: among ``issues`` when it appears, among ``resolved`` when it is
    gone. Those that last are in :attr:`RoutingTable.issues`.
    """

    version: int
    upserts: tuple[PlacedBackend, ...]
    removed: tuple[PlacedBackend, ...]
    """As they were last. None of their ids is among ``upserts``."""
    issues: tuple[RowIssue, ...]
    resolved: tuple[RowIssue, ...]
    drained: tuple[PlacedBackend, ...] = ()
    """Those of ``upserts`` that were healthy until now by the operator's word, and are not any more."""

    @property
    def alters_routing(self) -> bool:
        """Whether workers must hear of it."""
        return bool(self.upserts or self.removed)


class RoutingTable:
    """All valid backends of this POP, with a version that rises with each change.

    It begins empty at version 0. Not safe for use from several threads.
    """

    def __init__(
        self, geography: Geography, max_slots: int = MAX_SLOTS, slots: Mapping[str, int] | None = None
    ) -> None:
        """``slots`` are those of a predecessor, :attr:`slots`, in whose cells connections are counted."""
        self._geography = geography
        self._version = 0
        self._placed: dict[str, PlacedBackend] = {}
        self._valid: dict[str, tuple[Row, Backend]] = {}
        self._issues: tuple[RowIssue, ...] = ()
        self._slots = _Slots(max_slots)
        self._slots.retire_all(slots or {})

    @property
    def version(self) -> int:
        return self._version

    @property
    def issues(self) -> tuple[RowIssue, ...]:
        """Everything that is wrong with the rows of now, in their order."""
        return self._issues

    @property
    def slots(self) -> dict[str, int]:
        """Which cell belongs to which backend, those of removed ones included."""
        return {**self._slots.retired_by_id, **{i: placed.slot for i, placed in self._placed.items()}}

    @property
    def removed_slots(self) -> tuple[int, ...]:
        """Slots of removed backends, each waiting for :meth:`release`."""
        return self._slots.retired

    def snapshot(self) -> tuple[PlacedBackend, ...]:
        """Every backend of the current version: what a new worker starts from."""
        return tuple(self._placed.values())

    def get(self, backend_id: str) -> PlacedBackend | None:
        """One backend of the current version, ``None`` when it has none with this id."""
        return self._placed.get(backend_id)

    def release(self, slot: int) -> None:
        """Let another backend have ``slot``, which must be one of :attr:`removed_slots`.

        Only when its counters are zero and every worker has applied the removal: a worker that is
        behind could still count a connection there.
        """
        self._slots.release(slot)

    def replace(self, rows: Sequence[Row]) -> TableChange:
        """Make ``rows`` the table and tell what that changed.

        Skipped, and named among the issues, are rows that cannot be used, rows whose id came before,
        and rows for which no slot is left; the latter are tried again with the next set of rows.
        ``rows`` are kept and must not be altered afterwards.
        """
        issues = self._examine(rows)
        removed = tuple(
            placed for backend_id, placed in self._placed.items() if backend_id not in self._valid
        )
        for placed in removed:
            del self._placed[placed.backend.id]
            self._slots.retire(placed.backend.id, placed.slot)
        upserts: list[PlacedBackend] = []
        drained: list[PlacedBackend] = []
        for backend_id, (_, backend) in self._valid.items():
            current = self._placed.get(backend_id)
            if current is not None and current.backend == backend:
                continue
            slot = self._slots.take(backend_id) if current is None else current.slot
            if slot is None:
                name = f"backend {written(backend_id)}"
                issues.append(RowIssue(name, "id", written(backend_id), self._slots.exhausted))
                continue
            verdict = current.verdict if current is not None else GOOD
            self._placed[backend_id] = PlacedBackend(slot, backend, verdict)
            upserts.append(self._placed[backend_id])
            if current is not None and current.backend.healthy and not backend.healthy:
                drained.append(self._placed[backend_id])
        if upserts or removed:
            self._version += 1
        before, self._issues = self._issues, tuple(issues)
        return TableChange(
            self._version,
            tuple(upserts),
            removed,
            issues=_difference(self._issues, before),
            resolved=_difference(before, self._issues),
            drained=tuple(drained),
        )

    def judge(self, verdicts: Mapping[str, Verdict]) -> TableChange:
        """Attach this POP's own verdicts to backends, by their ids, and tell what that changed.

        Ids that are not in the table are ignored. A verdict holds until the next one on that backend, also
        when its row changes; it goes with the backend.
        """
        upserts = []
        for backend_id, verdict in verdicts.items():
            current = self._placed.get(backend_id)
            if current is not None and current.verdict != verdict:
                self._placed[backend_id] = PlacedBackend(current.slot, current.backend, verdict)
                upserts.append(self._placed[backend_id])
        if upserts:
            self._version += 1
        return TableChange(self._version, tuple(upserts), removed=(), issues=(), resolved=())

    def _examine(self, rows: Sequence[Row]) -> list[RowIssue]:
        """Keep what is valid among ``rows`` and return the issues of the others.

        Of 10,000 rows usually one has changed. Validating the others again would take ten times as long
        as everything else here.
        """
        valid: dict[str, tuple[Row, Backend]] = {}
        issues: list[RowIssue] = []
        for place, row in enumerate(rows, 1):
            row_id = row.get("id")
            known = self._valid.get(row_id) if isinstance(row_id, str) else None
            if known is None or known[0] != row:
                outcome = backend_from_row(row, self._geography, place)
                if isinstance(outcome, tuple):
                    issues += outcome
                    continue
                known = row, outcome
            backend_id = known[1].id
            if backend_id in valid:
                issues.append(
                    RowIssue(row_name(row, place), "id", written(backend_id), "belongs to an earlier row")
                )
            else:
                valid[backend_id] = known
        self._valid = valid
        return issues


class _Slots:
    """Who has which cell. The lowest free one is given first, so that the cells in use stay together."""

    def __init__(self, count: int) -> None:
        self.exhausted = f"comes after {count} others, which is as many as the table can hold"
        self._count = count
        self._ever_taken = 0
        self._free: list[int] = []
        self._retired_slot_by_id: dict[str, int] = {}
        self._retired_id_by_slot: dict[int, str] = {}

    @property
    def retired(self) -> tuple[int, ...]:
        return tuple(self._retired_id_by_slot)

    def take(self, backend_id: str) -> int | None:
        if (slot := self._retired_slot_by_id.pop(backend_id, None)) is not None:
            del self._retired_id_by_slot[slot]
            return slot
        if self._free:
            return heappop(self._free)
        if self._ever_taken == self._count:
            return None
        self._ever_taken += 1
        return self._ever_taken - 1

    def retire(self, backend_id: str, slot: int) -> None:
        self._retired_slot_by_id[backend_id] = slot
        self._retired_id_by_slot[slot] = backend_id

    @property
    def retired_by_id(self) -> Mapping[str, int]:
        return self._retired_slot_by_id

    def retire_all(self, slots: Mapping[str, int]) -> None:
        """Take ``slots`` as handed out before, each to the backend that it waits for now."""
        for backend_id, slot in slots.items():
            self.retire(backend_id, slot)
        self._ever_taken = max(slots.values(), default=-1) + 1
        self._free = sorted(set(range(self._ever_taken)) - set(slots.values()))

    def release(self, slot: int) -> None:
        del self._retired_slot_by_id[self._retired_id_by_slot.pop(slot)]
        heappush(self._free, slot)


def _difference(issues: Sequence[RowIssue], others: Sequence[RowIssue]) -> tuple[RowIssue, ...]:
    known = set(others)
    return tuple(issue for issue in issues if issue not in known)
