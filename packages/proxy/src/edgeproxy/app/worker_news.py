"""What becomes of what workers say: counts, verdicts, lines of the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeproxy.core.controlplane.traffic import TrafficTotals
from edgeproxy.core.wire.frames import Notice, Report
from edgeproxy.runtime.event_bus import TopicLog
from edgeproxy.runtime.verdict_feed import VerdictFeed

if TYPE_CHECKING:
    from edgeproxy.runtime.logs import Logger


class WorkerNews:
    """Observes the workers for the whole POP (see :class:`edgeproxy.runtime.supervisor.Observer`)."""

    def __init__(
        self,
        traffic: TrafficTotals,
        verdicts: Callable[[], VerdictFeed | None],
        log: Callable[[], Logger],
        events: TopicLog,
    ) -> None:
        """``log`` is opened when there is something to write; what becomes of workers goes to ``events``."""
        self._traffic = traffic
        self._verdicts = verdicts
        self._log = log
        self._events = events

    def reported(self, worker: int, report: Report) -> None:
        self._traffic.add(worker, report)
        if (verdicts := self._verdicts()) is not None:
            verdicts.reported(report)
        for session in report.sessions:
            self._log().info(
                "session",
                client=session.client,
                country=session.country,
                backend=session.backend,
                score=round(session.score, 6),
                affinity=session.from_affinity,
                bytes_received=session.bytes_received,
                bytes_sent=session.bytes_sent,
                duration_s=round(session.duration_s, 6),
                reason=session.reason,
                tries=session.tries,
                **({"certificate": session.certificate} if session.certificate else {}),
            )
        if report.sessions_dropped:
            self._log().warning("the access log did not keep up", sessions_lost=report.sessions_dropped)

    def noticed(self, worker: int, notice: Notice) -> None:
        getattr(self._log(), notice.level)(notice.event, worker=worker, **notice.fields)

    def died(self, worker: int, pid: int, exit_code: int) -> None:
        self._traffic.worker_died(worker)
        self._events.error("a worker died, starting another", worker=worker, pid=pid, exit_code=exit_code)

    def undecodable(self, worker: int, why: str) -> None:
        self._events.error("a worker sent what is no frame, ending it", worker=worker, why=why)

    def lagged(self, worker: int) -> None:
        self._events.warning("a worker does not keep up with changes", worker=worker)

    def hung(self, worker: int, pid: int) -> None:
        self._events.error("a worker hangs, ending it", worker=worker, pid=pid)

    def not_started(self, worker: int, why: str) -> None:
        self._events.error("a worker cannot be started, trying again", worker=worker, why=why)
