"""What the proxy needs from outside, as narrow protocols. Adapters live in ``outbound``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

T = TypeVar("T")

Row = Mapping[str, object]
"""One row of ``backends`` as the store holds it, column name to value, nothing validated."""


class CountryLookup(Protocol):
    """Where in the world is an address?"""

    def country(self, address: str) -> str:
        """Return the upper-case ISO 3166-1 alpha-2 code of ``address``, ``""`` when unknown.

        Never raises for a syntactically valid address.
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
