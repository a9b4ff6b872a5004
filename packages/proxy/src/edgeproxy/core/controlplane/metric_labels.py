"""Which backends have metrics of their own, so that a POP never has more series than it can afford.

A backend that was once among the others stays there, and one with a label keeps it: whatever moved
between the two would look like a counter that went back. When all labels are taken, that of a backend
which left the table goes to a new one, and the series of the former end.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

OTHER: Final = "other"
"""The label of all backends that have none of their own."""

MAX_BACKENDS: Final = 200
"""With about 25 series each, this makes 5,000, which a small Prometheus server takes with ease."""


class BackendLabels:
    """Gives out at most ``limit`` labels."""

    def __init__(self, limit: int = MAX_BACKENDS) -> None:
        self._limit = limit
        self._labelled: dict[str, None] = {}
        self._others: set[str] = set()

    def assign(self, present: AbstractSet[str]) -> None:
        """Take notice of the backends that are in the table."""
        for backend in sorted(present - self._labelled.keys() - self._others):
            if len(self._labelled) == self._limit:
                self._evict(present)
            if len(self._labelled) < self._limit and backend != OTHER:
                self._labelled[backend] = None
            else:
                self._others.add(backend)

    def of(self, backend: str) -> str | None:
        """The label; ``None`` for a backend that is gone and has given it up."""
        if backend in self._labelled:
            return backend
        return OTHER if backend in self._others else None

    def _evict(self, present: AbstractSet[str]) -> None:
        """Take the label of the one that has had it for longest among those that are gone."""
        gone = next((backend for backend in self._labelled if backend not in present), None)
        if gone is not None:
            del self._labelled[gone]
