"""What the proxy needs from outside, as narrow protocols. Adapters live in ``outbound``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

Row = Mapping[str, object]
"""One row of ``backends`` as the store holds it, column name to value, nothing validated."""


class CountryLookup(Protocol):
    """Where in the world is an address?"""

    def country(self, address: str) -> str:
        """Return the upper-case ISO 3166-1 alpha-2 code of ``address``, ``""`` when unknown.

        Never raises for a syntactically valid address.
        """
        ...


class RowStore(Protocol):
    """The routing table at rest. All methods block; the caller chooses the thread."""

    def poll(self) -> Sequence[Row] | None:
        """Return all rows that are not deleted, or ``None`` when nothing changed since the last call.

        Raises:
            StoreError: the store cannot be read now; the last good table stays in force.
        """
        ...
