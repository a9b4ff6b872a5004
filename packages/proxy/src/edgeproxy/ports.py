"""What the proxy needs from outside, as narrow protocols. Adapters live in ``outbound``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from edgeproxy.core.controlplane.tokens import Token
    from edgeproxy.core.replication.messages import Ranges
    from edgeproxy.core.replication.model import RowState, Write

T = TypeVar("T")

HANDOVER_VARIABLE = "HANDOVER_FD"
"""Names the socket on which a proxy waits for its successor. Without our prefix, as it is no setting."""

UPGRADE_TIMEOUT_S = 30.0
"""How long a successor may take until it serves; then it is ended and its predecessor goes on."""

Row = Mapping[str, object]
"""One row of ``backends`` as the store holds it, column name to value, nothing validated."""


class CountryLookup(Protocol):
    """Where in the world is an address?"""

    def country(self, address: str) -> str:
        """Return the upper-case ISO 3166-1 alpha-2 code of ``address``, ``""`` when unknown.

        Never raises for a syntactically valid address.
        """
        ...


class Probe(Protocol):
    """One way of asking a backend whether it is well."""

    async def check(self, host: str, address: str, port: int) -> str | None:
        """Return ``None`` when the backend at ``address`` is well, else what is wrong with it.

        ``host`` is how the routing table calls it, a name or the same address. Waits without limit; being
        cancelled ends the check and leaves nothing open.

        Raises:
            OSError: this machine cannot ask, which says nothing of the backend.
        """
        ...


class RowChange(msgspec.Struct, frozen=True):
    """What to write for one id: the row gets ``values``; where there is no such row, it is made of them."""

    id: str
    values: Mapping[str, object]
    """Column to value, without ``id``. A NULL for a column that the table lacks is no change."""


Operation = Callable[[Mapping[str, Row]], RowChange | T]
"""Decides about a write, given every row by its id, removed ones included. Pure.

Anything but a :class:`RowChange` means that nothing is to be written.
"""


class RowStore(Protocol):
    """The routing table at rest. All methods block; the caller chooses the thread."""

    def poll(self) -> Sequence[Row] | None:
        """Return all rows that are not removed, or ``None`` when they are those of the last call.

        Returning at all, even ``None``, means that the store can be read.

        Raises:
            StoreError: the store cannot be read now; the last good table stays in force.
        """
        ...

    def apply(self, operation: Operation[T]) -> RowChange | T:
        """Write what ``operation`` decides, in the transaction that shows it the rows; return its decision.

        Raises:
            StoreError: the store cannot be written now; it is as it was.
        """
        ...


class Change(msgspec.Struct, frozen=True):
    """One entry of the change log: what became of one row."""

    number: int
    """Rises from entry to entry of one store."""
    at: str
    """Wall time in UTC, ISO 8601 with milliseconds: ``2026-11-20T10:13:24.123Z``."""
    author: str
    """Whose doing it was: a part of ours, or somebody outside."""
    origin: str | None
    """Node and incarnation whose change this was; ``None`` where a store is shared, or not known yet."""
    sequence: int | None
    """The number among the changes of ``origin``, without gaps, from 1."""
    id: str
    old: Row | None
    """Column to value, without ``id``; ``None`` for a row that was not there before."""
    new: Row | None
    """``None`` for a row that is gone."""


class ChangeLog(Protocol):
    """What happened to the rows of a store. All methods block; the caller chooses the thread."""

    def tend(self) -> str | None:
        """See to it that edits are logged, and drop what is too old; cheap when nothing has happened.

        Returns:
            Why changes cannot be logged in this store, ``None`` when they are.

        Raises:
            StoreError: the store cannot be written now.
        """
        ...

    def changes(self, since: str, limit: int) -> Sequence[Change]:
        """Return the last ``limit`` changes that are not older than ``since``, oldest first.

        ``since`` is a time as in :attr:`Change.at`; the empty text is before all.

        Raises:
            StoreError: the store cannot be read now.
        """
        ...


class Lease(msgspec.Struct, frozen=True):
    """That a backend registered itself, and when it was last heard, as the store holds it."""

    id: str
    owner: str
    """The POP that got the last heartbeat."""
    registered_at_s: float
    """Wall time, as is ``heartbeat_at_s``."""
    heartbeat_at_s: float
    expired: bool
    """Whether ``healthy = 0`` in the row is the lease's doing. The store clears this as soon as anybody
    else writes that column."""


class LeaseWrite(msgspec.Struct, frozen=True):
    """What to write for one id, all of it or nothing."""

    id: str
    row: RowChange | None
    """``None`` leaves the row as it is."""
    lease: Lease | None
    """``None``: there is no lease from now on."""


class NotWritten(msgspec.Struct, frozen=True):
    """The store refused what an operation decided."""

    why: str


LeaseOperation = Callable[[Mapping[str, Row], Lease | None], LeaseWrite | T]
"""Decides about one row and its lease, given every row by its id and that lease. Pure.

Anything but a :class:`LeaseWrite` means that nothing is to be written.
"""


class LeaseStore(Protocol):
    """Leases at rest, beside the rows they belong to. All methods block; the caller chooses the thread."""

    def leases(self) -> Sequence[Lease]:
        """Return the leases of all rows that are not removed.

        Raises:
            StoreError: the store cannot be read now.
        """
        ...

    def apply(
        self, operations: Sequence[tuple[str, LeaseOperation[T]]]
    ) -> Sequence[LeaseWrite | T | NotWritten]:
        """Run operations, each with the id it is about, in one transaction; return what each decided.

        An operation whose decision the store refuses has no effect, and the others are written all the
        same.

        Raises:
            StoreError: nothing can be written now; the store is as it was.
        """
        ...


class Captured(msgspec.Struct, frozen=True):
    """What was written at this POP, by whomever."""

    origin: str
    """The present one."""
    writes: Sequence[Write]
    """Those that were not returned before."""
    is_new: bool
    """Whether ``origin`` is another than at the last call, or this is the first. What is known may then be
    less than it was: ask for it anew."""


class LogRead(msgspec.Struct, frozen=True):
    """A portion of the replicated log."""

    writes: Sequence[Write]
    gone: bool
    """Whether some of what was asked for is known but not in the log any more."""


class RowsRead(msgspec.Struct, frozen=True):
    """A portion of the replicated rows, tombstones included."""

    rows: Sequence[RowState]
    until: str | None
    """The id up to which these are all; ``None`` when there are no more."""
    known: Ranges
    """What was known when they were read."""


class ReplicaStore(Protocol):
    """Rows, cells and log of one member. Each method is one transaction and blocks.

    Every one raises :class:`edgeproxy.errors.StoreError` when the store cannot be used now; it is then as it
    was.
    """

    def capture(self) -> Captured:
        """Make writes of what was done to the table here; cheap when nothing was."""
        ...

    def renew(self, origin: str) -> str:
        """Begin a new incarnation if ``origin`` is the present one, and return that which is present then.

        What was written under the old one is written anew and then forgotten, since others may have other
        writes under its numbers.
        """
        ...

    def apply(self, writes: Sequence[Write]) -> int:
        """Merge writes of other members, and return how many of them were not known.

        They may come out of order and more than once.
        """
        ...

    def install(
        self, after: str | None, until: str | None, known: Ranges, rows: Sequence[RowState], *, learn: bool
    ) -> None:
        """Merge a part of a snapshot; see :class:`edgeproxy.core.replication.commands.InstallRows`."""
        ...

    def collect(self, stable: Ranges) -> int:
        """Forget removed rows of which all is in ``stable``, and return how many."""
        ...

    def known(self) -> Ranges:
        """Which writes are known."""
        ...

    def read_log(self, ranges: Ranges) -> LogRead:
        """Read as much of this as one message holds, in the order of ``ranges``."""
        ...

    def read_rows(self, after: str | None) -> RowsRead:
        """Read rows whose id is greater than ``after``, as many as one message holds."""
        ...

    def fingerprint(self) -> tuple[Ranges, int]:
        """What is known, and the fingerprint of exactly that state's rows."""
        ...


class TokenStore(Protocol):
    """Bearer tokens at rest. Methods block, for as long as it takes to read a small local file."""

    def get(self, token_id: str) -> Token | None:
        """Return the token with this id, ``None`` when there is none.

        Raises:
            EdgeproxyError: that cannot be found out.
        """
        ...

    def is_empty(self) -> bool:
        """Whether there is no token at all.

        Raises:
            EdgeproxyError: that cannot be found out.
        """
        ...
