"""Connections with a backend that are ready before a client comes.

A backend that is given a client gets some, so that the next ones need not wait for a connect, and keeps
getting them as long as clients come. When none has come for a while, all are dropped. Each is replaced at a
certain age, used or not, since what is in between may forget about it. None has ever carried a byte of a
client: what a client has used is closed with it.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from edgeproxy.core.model import Backend, Verdict

RETRY_AFTER_S = 1.0
"""How long nothing more is made ready for a backend after that has failed."""

Item = TypeVar("Item")


class WarmTerms(msgspec.Struct, frozen=True):
    """How many are kept for one backend, and how long."""

    max_per_backend: int = 10
    """By all workers together."""
    per_worker: int = 10
    """By each, so that none has all."""
    idle_s: float = 60.0
    """Without a client for so long the backend keeps none."""
    lifetime_s: float = 300.0
    """At this age a connection is replaced."""


class Stock(Generic[Item]):
    """What one worker has of one backend. Items are hashable."""

    __slots__ = ("_failed_s", "backend", "ready", "slot", "under_way")

    def __init__(self, slot: int, backend: Backend) -> None:
        self.slot = slot
        self.backend = backend
        self.ready: dict[Item, None] = {}
        """In the order in which they became ready."""
        self.under_way: dict[Item, None] = {}
        self._failed_s: float | None = None

    def __len__(self) -> int:
        return len(self.ready) + len(self.under_way)

    def take(self) -> Item | None:
        """The latest one that is ready: the likeliest to be alive."""
        return self.ready.popitem()[0] if self.ready else None

    def remove(self, item: Item) -> None:
        """Forget ``item``."""
        self.ready.pop(item, None)
        self.under_way.pop(item, None)

    def dispensable(self) -> Item | None:
        """Which to do without first: what is not ready yet, then the oldest."""
        return next(iter(self.under_way), None) or next(iter(self.ready), None)

    def failed(self, now_s: float) -> None:
        """One could not be made ready."""
        self._failed_s = now_s

    def missing(self, terms: WarmTerms, now_s: float) -> int:
        """How many more to make ready at present."""
        if self._failed_s is not None and now_s < self._failed_s + RETRY_AFTER_S:
            return 0
        return max(0, terms.per_worker - len(self))

    def suits(self, backend: Backend, verdict: Verdict) -> bool:
        """Whether what is in stock is good for what the row says now."""
        return (
            (backend.host, backend.port) == (self.backend.host, self.backend.port)
            and backend.healthy
            and verdict.is_good
        )
