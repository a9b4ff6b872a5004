"""Lives of connections as transcripts, and every fact that no state allows."""

from __future__ import annotations

from itertools import product

import pytest

from edgeproxy.core.dataplane.session import CloseReason, Command, Event, Session, State

E, C = Event, Command

TRANSCRIPTS = {
    "client ends first": (
        [(E.CONNECTED, C.RELAY), (E.CLIENT_EOF, C.END_BACKEND), (E.BACKEND_EOF, C.CLOSE)],
        CloseReason.COMPLETE,
    ),
    "backend ends first": (
        [(E.CONNECTED, C.RELAY), (E.BACKEND_EOF, C.END_CLIENT), (E.CLIENT_EOF, C.CLOSE)],
        CloseReason.COMPLETE,
    ),
    "third backend answers": (
        [
            (E.CONNECT_FAILED, C.TRY_ANOTHER),
            (E.CONNECT_FAILED, C.TRY_ANOTHER),
            (E.CONNECTED, C.RELAY),
            (E.CLIENT_RESET, C.RESET),
        ],
        CloseReason.CLIENT_RESET,
    ),
    "the first backend resets the connection unused": (
        [
            (E.CONNECTED, C.RELAY),
            (E.BACKEND_REJECTED, C.TRY_ANOTHER),
            (E.CONNECTED, C.RELAY),
            (E.BACKEND_EOF, C.END_CLIENT),
            (E.CLIENT_EOF, C.CLOSE),
        ],
        CloseReason.COMPLETE,
    ),
    "too many are trying another backend": (
        [(E.CONNECT_FAILED, C.TRY_ANOTHER), (E.RETRY_BUDGET, C.RESET)],
        CloseReason.RETRY_BUDGET,
    ),
    "none answers": (
        [(E.CONNECT_FAILED, C.TRY_ANOTHER), (E.UNREACHABLE, C.RESET)],
        CloseReason.UNREACHABLE,
    ),
    "no backend": ([(E.NO_BACKEND, C.RESET)], CloseReason.NO_BACKEND),
    "all at their limit": ([(E.AT_LIMIT, C.RESET)], CloseReason.AT_LIMIT),
    "a place becomes free while the client waits": (
        [
            (E.QUEUED, C.WAIT),
            (E.TURN, C.END_WAIT),
            (E.CONNECTED, C.RELAY),
            (E.CLIENT_EOF, C.END_BACKEND),
            (E.BACKEND_EOF, C.CLOSE),
        ],
        CloseReason.COMPLETE,
    ),
    "too many wait": ([(E.QUEUE_FULL, C.RESET)], CloseReason.QUEUE_FULL),
    "no place becomes free": ([(E.QUEUED, C.WAIT), (E.QUEUE_TIMEOUT, C.RESET)], CloseReason.QUEUE_TIMEOUT),
    "client goes away while it waits": (
        [(E.QUEUED, C.WAIT), (E.CLIENT_EOF, C.RESET)],
        CloseReason.QUEUE_LEFT,
    ),
    "client resets while it waits": (
        [(E.QUEUED, C.WAIT), (E.CLIENT_RESET, C.RESET)],
        CloseReason.CLIENT_RESET,
    ),
    "drain is over while it waits": ([(E.QUEUED, C.WAIT), (E.SHUTDOWN, C.RESET)], CloseReason.SHUTDOWN),
    "defect while it waits": ([(E.QUEUED, C.WAIT), (E.DEFECT, C.RESET)], CloseReason.INTERNAL),
    "no descriptor left": ([(E.OVERLOAD, C.RESET)], CloseReason.OVERLOAD),
    "client gives up before the backend answers": ([(E.CLIENT_RESET, C.RESET)], CloseReason.CLIENT_RESET),
    "drain is over before the backend answers": ([(E.SHUTDOWN, C.RESET)], CloseReason.SHUTDOWN),
    "defect before the backend answers": ([(E.DEFECT, C.RESET)], CloseReason.INTERNAL),
}
for _ending, _reason in {
    E.CLIENT_RESET: CloseReason.CLIENT_RESET,
    E.BACKEND_RESET: CloseReason.BACKEND_RESET,
    E.IDLE_TIMEOUT: CloseReason.IDLE_TIMEOUT,
    E.MAX_AGE: CloseReason.MAX_AGE,
    E.SHUTDOWN: CloseReason.SHUTDOWN,
    E.DEFECT: CloseReason.INTERNAL,
}.items():
    TRANSCRIPTS[f"{_ending} while open"] = ([(E.CONNECTED, C.RELAY), (_ending, C.RESET)], _reason)
    TRANSCRIPTS[f"{_ending} after the client's end"] = (
        [(E.CONNECTED, C.RELAY), (E.CLIENT_EOF, C.END_BACKEND), (_ending, C.RESET)],
        _reason,
    )
    TRANSCRIPTS[f"{_ending} after the backend's end"] = (
        [(E.CONNECTED, C.RELAY), (E.BACKEND_EOF, C.END_CLIENT), (_ending, C.RESET)],
        _reason,
    )
TRANSCRIPTS["the backend goes silent after the client's end"] = (
    [(E.CONNECTED, C.RELAY), (E.CLIENT_EOF, C.END_BACKEND), (E.HALF_CLOSE_TIMEOUT, C.RESET)],
    CloseReason.HALF_CLOSE_TIMEOUT,
)
TRANSCRIPTS["the client goes silent after the backend's end"] = (
    [(E.CONNECTED, C.RELAY), (E.BACKEND_EOF, C.END_CLIENT), (E.HALF_CLOSE_TIMEOUT, C.RESET)],
    CloseReason.HALF_CLOSE_TIMEOUT,
)

OPENING_TRANSCRIPTS = {
    "opening tells what is wanted": (
        [(E.OPENED, C.DISPATCH), (E.CONNECTED, C.RELAY), (E.BACKEND_RESET, C.RESET)],
        CloseReason.BACKEND_RESET,
    ),
    "opening is none": ([(E.BAD_OPENING, C.RESET)], CloseReason.BAD_OPENING),
    "opening does not come": ([(E.OPENING_TIMEOUT, C.RESET)], CloseReason.OPENING_TIMEOUT),
    "opening names nobody we know": ([(E.UNKNOWN_NAME, C.RESET)], CloseReason.UNKNOWN_NAME),
    "opening names somebody who may not come": ([(E.DENIED, C.RESET)], CloseReason.DENIED),
    "opening names somebody who comes too often": ([(E.RATE_LIMITED, C.RESET)], CloseReason.RATE_LIMITED),
    "opening names somebody who has too many": (
        [(E.MAX_CONNECTIONS_PER_CLIENT, C.RESET)],
        CloseReason.MAX_CONNECTIONS_PER_CLIENT,
    ),
    "TLS does not come about": ([(E.TLS_FAILED, C.RESET)], CloseReason.TLS_FAILED),
    "TLS takes too long": ([(E.TLS_TIMEOUT, C.RESET)], CloseReason.TLS_TIMEOUT),
    "too many begin TLS": ([(E.TLS_BUSY, C.RESET)], CloseReason.TLS_BUSY),
    "TLS shows no certificate that is accepted": (
        [(E.TLS_CERTIFICATE, C.RESET)],
        CloseReason.TLS_CERTIFICATE,
    ),
    "client gives up while opening": ([(E.CLIENT_RESET, C.RESET)], CloseReason.CLIENT_RESET),
    "drain is over while opening": ([(E.SHUTDOWN, C.RESET)], CloseReason.SHUTDOWN),
    "defect while opening": ([(E.DEFECT, C.RESET)], CloseReason.INTERNAL),
}

ALL_TRANSCRIPTS = {
    **{name: (False, *transcript) for name, transcript in TRANSCRIPTS.items()},
    **{name: (True, *transcript) for name, transcript in OPENING_TRANSCRIPTS.items()},
}
"""Name to whether the session has an opening, its steps and its close reason."""

PATHS: dict[State, list[Event]] = {
    State.CONNECTING: [],
    State.WAITING: [E.QUEUED],
    State.OPEN: [E.CONNECTED],
    State.CLIENT_DONE: [E.CONNECTED, E.CLIENT_EOF],
    State.BACKEND_DONE: [E.CONNECTED, E.BACKEND_EOF],
    State.CLOSED: [E.NO_BACKEND],
}


def told() -> set[tuple[State, Event]]:
    """Every pair of state and fact that the transcripts pass through."""
    pairs = set()
    for has_opening, steps, _ in ALL_TRANSCRIPTS.values():
        session = Session(has_opening)
        for event, _ in steps:
            pairs.add((session.state, event))
            session.handle(event)
    return pairs


@pytest.mark.parametrize("name", ALL_TRANSCRIPTS)
def test_transcript(name: str) -> None:
    has_opening, steps, reason = ALL_TRANSCRIPTS[name]
    session = Session(has_opening)
    for event, command in steps:
        assert session.close_reason is None
        assert session.handle(event) is command
    assert session.state is State.CLOSED
    assert session.close_reason is reason


@pytest.mark.parametrize(("state", "event"), sorted(set(product(State, Event)) - told()))
def test_a_fact_that_cannot_be_is_a_broken_invariant(state: State, event: Event) -> None:
    session = Session(has_opening=state is State.OPENING)
    for step in PATHS.get(state, []):
        session.handle(step)
    assert session.state is state
    with pytest.raises(KeyError):
        session.handle(event)
    assert session.state is state


def test_every_reason_to_close_is_told() -> None:
    told_here = {reason for *_, reason in ALL_TRANSCRIPTS.values()}
    assert told_here == set(CloseReason) - {CloseReason.MAX_CONNECTIONS}
