from __future__ import annotations

import pytest

from edgeproxy.core.controlplane.control_view import TRANSITIONS, TransitionCounts, rate_limit_counts
from edgeproxy.core.controlplane.events import Event, Topic
from edgeproxy.core.dataplane.session import CloseReason


def test_every_transition_is_counted_from_the_start() -> None:
    counts = TransitionCounts()
    assert counts.counts() == dict.fromkeys(TRANSITIONS.values(), 0)
    for name in ("a backend is ejected", "a backend is ejected", "a backend is readmitted", "something else"):
        counts(Event(Topic.HEALTH, name))
    assert {name: count for name, count in counts.counts().items() if count} == {
        "ejected": 2,
        "readmitted": 1,
    }


@pytest.mark.parametrize(
    ("clients", "closes", "allowed", "refused"),
    [
        (0, {}, 0, 0),
        (10, {CloseReason.COMPLETE: 3}, 10, 0),
        (10, {CloseReason.RATE_LIMITED: 4, CloseReason.DENIED: 1, CloseReason.OVERLOAD: 2}, 3, 4),
        (1, {CloseReason.RATE_LIMITED: 2}, 0, 2),
    ],
)
def test_limit_allowed_those_it_saw_and_did_not_refuse(
    clients: int, closes: dict[str, int], allowed: int, refused: int
) -> None:
    assert rate_limit_counts(clients, closes) == {"allowed": allowed, "refused": refused}
