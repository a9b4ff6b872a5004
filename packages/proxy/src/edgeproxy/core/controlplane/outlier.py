"""One backend's circuit: closed while it serves, open while it is ejected, half-open while it is tried.

::

    CLOSED ──── so many failures in a row, within the window ───▶ OPEN
      ▲                                                          │  │
      │    so many connections succeeded        open time is up  │  │
      ├──────────────────────────── HALF_OPEN ◀──────────────────┘  │
      │                                 └── one failure ──▶ OPEN    │
      └───────────── a check passed that began after the opening ───┘

It is circuit breaker and outlier ejection in one, for both ask the same question: has this backend failed
its clients too often lately?

Two kinds of failure count alike, but what refutes them differs. A *failed connect* (refused, timed out) is
forgotten when a connect succeeds. A *dropped* connection, reset before the backend sent a byte, follows upon
a successful connect each time, so only one over which something came makes up for those.

Half-open lets a fixed number of connections through: as many as must succeed. Those that end without a
verdict, because the client went away first, are made up for by the next *trial* after another open time.

The open time grows with the number of ejections, and shrinks again by one step for every window that passes
without one: a backend that comes up only to fall over is tried ever more rarely.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from math import inf

import msgspec

MAX_OPEN_S = 300.0
"""A backend is tried again after at most this long, unless the operator's timeout is longer by itself."""


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitSettings(msgspec.Struct, frozen=True):
    """When circuits open and close."""

    failure_threshold: int = 5
    """Failures in a row that open it."""
    success_threshold: int = 3
    """Successes in a row that close it, and connections let through to find out."""
    timeout_s: float = 30.0
    """How long the first opening lasts; the n-th lasts n times as long."""
    window_s: float = 60.0
    """Failures older than this count no more. Each such time without an ejection forgives one."""


class CircuitStatus(msgspec.Struct, frozen=True):
    """A circuit as people see it."""

    state: State
    connect_failures: int
    """Failed connects that count at present; while it is not closed, those that opened it."""
    drops: int
    """Connections reset before the backend's first byte, likewise."""
    successes: int
    """Successes in this half-open phase."""
    ejections: int
    """Those that count for the open time."""
    retry_in_s: float
    """Until it is tried again, 0 unless it is open."""


class Circuit:
    """The state machine; what happened is told with its time, which must not run backwards."""

    __slots__ = (
        "_closed_at_s", "_connect_failures_s", "_drops_s", "_ejections", "_opened_at_s", "_opened_by",
        "_settings", "_successes", "_until_s", "state", "trial",
    )  # fmt: skip

    def __init__(self, settings: CircuitSettings) -> None:
        self._settings = settings
        self.state = State.CLOSED
        self.trial = 0
        """Rises with each set of connections that half-open lets through."""
        self._connect_failures_s: deque[float] = deque(maxlen=settings.failure_threshold)
        self._drops_s: deque[float] = deque(maxlen=settings.failure_threshold)
        self._opened_by = 0, 0
        self._successes = 0
        self._ejections = 0
        self._opened_at_s = 0.0
        self._closed_at_s = 0.0
        self._until_s = inf

    # ---- what connections report -------------------------------------------------------------

    def connect_failed(self, now_s: float, may_open: bool = True) -> bool:
        """The backend could not be connected to; whether that opened the circuit.

        Without ``may_open`` a closed circuit stays closed, whatever the count; the next failure asks again.
        """
        self._connect_failures_s.append(now_s)
        return self._failed(now_s, may_open)

    def dropped(self, now_s: float, may_open: bool = True) -> bool:
        """The backend reset a connection before it sent anything; otherwise as :meth:`connect_failed`."""
        self._drops_s.append(now_s)
        return self._failed(now_s, may_open)

    def connected(self, now_s: float) -> bool:
        """A connect succeeded; whether that closed the circuit."""
        self._connect_failures_s.clear()
        if self.state is State.HALF_OPEN:
            self._successes += 1
            if self._successes >= self._settings.success_threshold:
                self._close(now_s)
                return True
        return False

    def served(self) -> None:
        """Something came over a connection: the backend works."""
        self._connect_failures_s.clear()
        self._drops_s.clear()

    # ---- what time and checks report ---------------------------------------------------------

    def advance(self, now_s: float) -> bool:
        """Let time pass; whether a trial begins, the first one or another."""
        if now_s < self._until_s:
            return False
        self.state = State.HALF_OPEN
        self._successes = 0
        self.trial += 1
        self._until_s = now_s + self._settings.timeout_s
        return True

    def next_at_s(self) -> float:
        """When :meth:`advance` must be called next, ``inf`` while time alone changes nothing."""
        return self._until_s

    def readmit(self, check_began_s: float, now_s: float) -> bool:
        """A check passed that began at ``check_began_s``; whether that closed the circuit."""
        if self.state is State.CLOSED or check_began_s < self._opened_at_s:
            return False
        self._close(now_s)
        return True

    def change_settings(self, settings: CircuitSettings) -> None:
        """Go by other settings from the next event on; an open time under way stays as it is."""
        self._settings = settings
        self._connect_failures_s = deque(self._connect_failures_s, maxlen=settings.failure_threshold)
        self._drops_s = deque(self._drops_s, maxlen=settings.failure_threshold)

    # ---- what others ask ---------------------------------------------------------------------

    def is_overdue(self, now_s: float) -> bool:
        """Whether it is closed for the sole reason that it was not allowed to open."""
        return self.state is State.CLOSED and self._is_due(now_s)

    def status(self, now_s: float) -> CircuitStatus:
        connect_failures, drops = self._recent(now_s) if self.state is State.CLOSED else self._opened_by
        return CircuitStatus(
            state=self.state,
            connect_failures=connect_failures,
            drops=drops,
            successes=self._successes,
            ejections=self._ejections,
            retry_in_s=max(0.0, self._until_s - now_s) if self.state is State.OPEN else 0.0,
        )

    # ---- transitions -------------------------------------------------------------------------

    def _failed(self, now_s: float, may_open: bool) -> bool:
        match self.state:
            case State.OPEN:
                return False  # of a connection begun before
            case State.CLOSED if not (may_open and self._is_due(now_s)):
                return False
        self._open(now_s)
        return True

    def _is_due(self, now_s: float) -> bool:
        return sum(self._recent(now_s)) >= self._settings.failure_threshold

    def _recent(self, now_s: float) -> tuple[int, int]:
        """Failed connects and drops within the window that nothing has refuted."""
        oldest_s = now_s - self._settings.window_s
        for times_s in (self._connect_failures_s, self._drops_s):
            while times_s and times_s[0] < oldest_s:
                times_s.popleft()
        return len(self._connect_failures_s), len(self._drops_s)

    def _open(self, now_s: float) -> None:
        settings = self._settings  # feature: health.circuit
        longest_s = max(MAX_OPEN_S, settings.timeout_s)
        if self.state is State.CLOSED:
            self._opened_by = self._recent(now_s)
            forgiven = int((now_s - self._closed_at_s) / settings.window_s)
            self._ejections = max(0, self._ejections - forgiven)
        if self._ejections * settings.timeout_s < longest_s:
            self._ejections += 1
        self.state = State.OPEN
        self._opened_at_s = now_s
        self._until_s = now_s + min(self._ejections * settings.timeout_s, longest_s)

    def _close(self, now_s: float) -> None:
        self.state = State.CLOSED
        self._closed_at_s = now_s
        self._until_s = inf
        self._successes = 0
        self.served()
