"""One look at the control plane: what metrics tell of the store, of verdicts, registrations and events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from edgeproxy.core.controlplane.events import BusStatistics, Event
from edgeproxy.core.controlplane.replication_view import ReplicationView
from edgeproxy.core.dataplane.session import CloseReason

TRANSITIONS: Final[Mapping[str, str]] = {
    "a backend fails its checks": "unhealthy",
    "a backend passes its checks again": "healthy",
    "a backend is ejected": "ejected",
    "a backend is readmitted": "readmitted",
    "too few backends are good, clients are sent to all of them": "panic",
    "enough backends are good again": "panic_over",
}
"""Events of health that are counted, and under which name."""

_BEFORE_THE_LIMIT: Final = (CloseReason.OVERLOAD, CloseReason.DENIED)


class TransitionCounts:
    """A handler of events that counts what became of backends' health."""

    def __init__(self) -> None:
        self._counts = Counter(dict.fromkeys(TRANSITIONS.values(), 0))

    def __call__(self, event: Event) -> None:
        if (transition := TRANSITIONS.get(event.name)) is not None:
            self._counts[transition] += 1

    def counts(self) -> dict[str, int]:
        """Since the start, by the values of :data:`TRANSITIONS`."""
        return dict(self._counts)


class ApiCounts(msgspec.Struct):
    """What the API has done since the start."""

    requests: Counter[tuple[str, str, int]] = msgspec.field(default_factory=Counter)
    """By method, route and status. All three come from fixed sets."""
    changes: Counter[str] = msgspec.field(default_factory=Counter)
    """What became of registrations: see ``RegistrationChange`` of the registrar."""
    registered: int = 0
    """Backends that are registered at this moment."""


class ControlView(msgspec.Struct, kw_only=True):
    """The control plane at one moment."""

    store_reachable: bool
    """Whether the last look at the store succeeded."""
    store_failures: int
    """Times that it became unreadable, since the start."""
    transitions: Mapping[str, int]
    """See :class:`TransitionCounts`."""
    circuits: Mapping[str, int] | None
    """Backends by the state of their circuit, ``None`` without circuits."""
    events: BusStatistics
    api: ApiCounts | None
    """``None`` without an API."""
    rate_limit: Mapping[str, int] | None
    """Connections of clients that the limit ``allowed`` and ``refused``, ``None`` without a limit."""
    replication: ReplicationView | None = None
    """``None`` while this POP replicates with nobody."""


def rate_limit_counts(clients: int, closes: Mapping[str, int]) -> dict[str, int]:
    """What the rate limit did with ``clients`` connections, of which ``closes`` ended for these reasons."""
    refused = closes.get(CloseReason.RATE_LIMITED, 0)
    unseen = sum(closes.get(reason, 0) for reason in _BEFORE_THE_LIMIT)
    return {"allowed": max(0, clients - refused - unseen), "refused": refused}
