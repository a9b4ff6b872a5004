"""What one worker counted since its last report."""

from __future__ import annotations

from collections.abc import Callable

from edgeproxy.core.dataplane.connects import Connects
from edgeproxy.core.dataplane.outcomes import Outcome, Outcomes
from edgeproxy.core.dataplane.session import CloseReason
from edgeproxy.core.dataplane.times import Times
from edgeproxy.core.wire.frames import Report, SessionRecord, Traffic

_MAX_PENDING_SESSIONS = 10_000
"""Access-log records kept while the control process is busy; further ones are counted and dropped."""


class _Row:
    __slots__ = ("bytes_received", "bytes_sent", "closed", "opened", "score_sum")

    def __init__(self) -> None:
        self.opened = self.closed = self.bytes_received = self.bytes_sent = 0
        self.score_sum = 0.0


class Ledger:
    """Counts by (country, backend), close reason and failing backend; empties itself into reports."""

    def __init__(self, access_log_every: int, on_failure: Callable[[], None] | None = None) -> None:
        """``access_log_every``: keep the record of each N-th session, 0 for none.

        With ``on_failure``, how connections with backends go is noted too, and that is called when one
        failed, after it was counted.
        """
        self._access_log_every = access_log_every
        self._on_failure = on_failure
        self._outcomes = Outcomes()
        self._until_next_record = access_log_every
        self._clear()

    def _clear(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._closes: dict[str, int] = {}
        self._connect_errors: dict[str, int] = {}
        self._connects: dict[str, Connects] = {}
        self._waits: Times | None = None
        self._sessions: list[SessionRecord] = []
        self._sessions_dropped = 0

    def log_each(self, access_log_every: int) -> None:
        """Keep the record of each N-th session from now on, 0 for none."""
        self._access_log_every = self._until_next_record = access_log_every

    def opened(self, country: str, backend: str, score: float) -> None:
        """A connection was established with ``backend``."""
        row = self._row(country, backend)
        row.opened += 1
        row.score_sum += score
        if self._on_failure is not None:
            self._outcomes.add(backend, Outcome.CONNECTED)

    def connected(self, backend: str, connect_s: float, from_affinity: bool, from_warm: bool = False) -> None:
        """How that connection came about: the connect to ``backend`` took ``connect_s``."""
        connects = self._connects.get(backend)
        if connects is None:
            connects = self._connects[backend] = Connects()
        connects.add(connect_s, from_affinity, from_warm)

    def waited(self, seconds: float) -> None:
        """A client got a backend after so long in the queue."""
        if self._waits is None:
            self._waits = Times()
        self._waits.note(seconds)

    def closed(self, record: SessionRecord, was_opened: bool) -> None:
        """A session ended; ``was_opened`` tells whether :meth:`opened` was reported for it."""
        if was_opened:
            row = self._row(record.country, record.backend)
            row.closed += 1
            row.bytes_received += record.bytes_received
            row.bytes_sent += record.bytes_sent
        self._closes[record.reason] = self._closes.get(record.reason, 0) + 1
        if self._access_log_every:
            self._until_next_record -= 1
            if not self._until_next_record:
                self._until_next_record = self._access_log_every
                if len(self._sessions) < _MAX_PENDING_SESSIONS:
                    self._sessions.append(record)  # feature: logs.access
                else:
                    self._sessions_dropped += 1
        if was_opened and self._on_failure is not None:
            if record.bytes_sent:
                self._outcomes.add(record.backend, Outcome.SERVED)
            elif record.reason == CloseReason.BACKEND_RESET:
                self._outcomes.add(record.backend, Outcome.DROPPED)
                self._on_failure()

    def connect_failed(self, backend: str) -> None:
        self._connect_errors[backend] = self._connect_errors.get(backend, 0) + 1
        if self._on_failure is not None:
            self._outcomes.add(backend, Outcome.CONNECT_FAILED)
            self._on_failure()

    def rejected(self, country: str, backend: str) -> None:
        """A connection that was established was reset before it was used: as good as not established."""
        self._row(country, backend).closed += 1
        self._connect_errors[backend] = self._connect_errors.get(backend, 0) + 1
        if self._on_failure is not None:
            self._outcomes.add(backend, Outcome.DROPPED)
            self._on_failure()

    def shed(self, reason: str) -> None:
        """A client was turned away before anything was known of it."""
        self._closes[reason] = self._closes.get(reason, 0) + 1

    def is_empty(self) -> bool:
        return not (self._rows or self._closes or self._connect_errors)

    def report(self) -> Report:
        """Everything counted since the last call."""
        report = Report(
            traffic=tuple(
                Traffic(country, backend, r.opened, r.closed, r.score_sum, r.bytes_received, r.bytes_sent)
                for (country, backend), r in self._rows.items()
            ),
            closes=self._closes,
            connect_errors=self._connect_errors,
            sessions=tuple(self._sessions),
            sessions_dropped=self._sessions_dropped,
            outcomes=self._outcomes.take(),
            connects=self._connects,
            waits=self._waits,
        )
        self._clear()
        return report

    def _row(self, country: str, backend: str) -> _Row:
        row = self._rows.get((country, backend))
        if row is None:
            row = self._rows[country, backend] = _Row()
        return row
