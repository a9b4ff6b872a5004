"""What must be true at the end of a history, from what was acknowledged in it.

Every write that a node acknowledged is noted. For each group of each row the one with the greatest stamp must
stand in the end, on every member. Two things make this less than exact, and only where they happened:

- A write that was lost with the only disk it was on (a backup restored, a member gone for ever) may be gone.
- A member that came back after it had been forgotten, or that has joined and not been heard of by all, may
  bring a row of its own that was removed elsewhere at about the same time: nobody remembers that removal.
  Only a removal that knew of the row keeps it from coming back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from edgeproxy.core.replication.messages import Ranges
from edgeproxy.core.replication.model import PRESENT, Cell, Dot, Group, Write
from edgeproxy.core.replication.rows import Cells, is_present
from edgeproxy.core.replication.vector import Known


class Ledger:
    """All acknowledged writes of one history."""

    def __init__(self) -> None:
        self.writes: dict[Dot, Write] = {}
        self.knew: dict[Dot, Ranges] = {}
        """Write to what its writer knew then; of removals only."""
        self.lost: set[Dot] = set()
        """Writes that may be gone."""
        self.any_forgotten = False
        self.uncounted: set[Dot] = set()
        """Writes of nodes that some other did not count as a member then."""
        self.violations: list[str] = []

    @property
    def may_differ(self) -> bool:
        """Whether members that know the same may have different rows, until they compare them."""
        return self.any_forgotten or bool(self.uncounted)

    def acknowledged(self, write: Write, overwritten: Cells, known: Ranges) -> None:
        """A node wrote; ``overwritten`` are the row's cells that it saw before."""
        if write.dot in self.writes:
            self.violations.append(f"{write.dot} was given twice")
        self.writes[write.dot] = write
        if _removes(write):
            self.knew[write.dot] = known
        for group in write.groups:
            if group in overwritten and overwritten[group].stamp >= write.stamp:
                self.violations.append(f"{write.dot} lost to what its writer saw")

    def disk_changed(self, before: Known, after: Known, others: Iterable[Known]) -> None:
        """A node has lost what it knew, but for ``after``; others have theirs."""
        kept = [after, *others]
        for dot in self.writes:
            if before.has(dot) and not any(known.has(dot) for known in kept):
                self.lost.add(dot)

    def departed(self, knew: Known, others: Iterable[Known]) -> None:
        """A node stopped counting as a member; not all others have what it knew."""
        rest = list(others)
        self.uncounted |= {
            dot for dot in self.writes if knew.has(dot) and not all(known.has(dot) for known in rest)
        }

    def check_rows(self, rows: Mapping[str, Cells]) -> None:
        """These are the rows that all members have."""
        by_cell: defaultdict[tuple[str, Group], list[Write]] = defaultdict(list)
        for write in self.writes.values():
            for group in write.groups:
                by_cell[write.id, group].append(write)
        for row_id in {row_id for row_id, _ in by_cell} | rows.keys():
            cells = rows.get(row_id, {})
            presences = self._may_stand(by_cell[row_id, Group.PRESENCE])
            if not is_present(cells):
                if not any(map(_removes, presences)) and any(each.dot not in self.lost for each in presences):
                    self.violations.append(f"{row_id} is gone, and was not removed")
                continue
            dot = cells[Group.PRESENCE].dot
            standing = {write.dot for write in presences}
            if dot not in standing:
                if not self._nobody_remembers(dot, by_cell[row_id, Group.PRESENCE]):
                    self.violations.append(f"{row_id} is back from the dead: {dot}")
                continue
            for group in Group:
                self._check_cell(row_id, group, cells.get(group), by_cell[row_id, group])

    def _check_cell(self, row_id: str, group: Group, cell: Cell | None, writes: list[Write]) -> None:
        standing = {write.dot for write in self._may_stand(writes)}
        if cell is None:
            if writes and not self.may_differ:
                self.violations.append(f"{row_id} has no {group} any more")
        elif cell.dot not in standing and not self.may_differ:
            self.violations.append(f"{row_id} {group} is {cell.dot} and not one of {standing}")
        elif cell.values != self.writes[cell.dot].groups[group]:
            self.violations.append(f"{row_id} {group} has values that {cell.dot} did not write")

    def _may_stand(self, writes: list[Write]) -> list[Write]:
        """The last write that was not lost, and those after it that may be lost."""
        least = max((write.stamp for write in writes if write.dot not in self.lost), default=None)
        return [write for write in writes if least is None or write.stamp >= least]

    def _nobody_remembers(self, dot: Dot, writes: list[Write]) -> bool:
        """Whether no removal after this write knew of it, so that forgetting those made it stand."""
        if dot not in self.writes or not (self.any_forgotten or dot in self.uncounted):
            return False
        stamp = self.writes[dot].stamp
        return not any(
            write.stamp > stamp and _removes(write) and Known(self.knew[write.dot]).has(dot)
            for write in writes
        )


def _removes(write: Write) -> bool:
    presence = write.groups.get(Group.PRESENCE)
    return presence is not None and presence[PRESENT] == 0
