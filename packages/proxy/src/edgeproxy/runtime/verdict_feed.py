"""From checks and reports to the workers: keeps the verdicts in time and publishes those that change.

A verdict is published at once when it is the first for a while. After that there is a short pause, in
which others gather, and a publication holds so many at most: however many backends come and go at a
time, a worker spends a few milliseconds at a time on it and some of its time on its clients.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Protocol

from edgeproxy.core.controlplane.events import Event
from edgeproxy.core.controlplane.routing_table import RoutingTable, TableChange
from edgeproxy.core.controlplane.verdicts import Verdicts, VerdictSettings
from edgeproxy.core.wire.frames import Report, TableChanged

PAUSE_S = 0.02
AT_A_TIME = 200


class Workers(Protocol):
    """Who must hear of verdicts."""

    def publish(self, news: TableChanged) -> None: ...


class VerdictFeed:
    """Leads the verdicts of one POP."""

    def __init__(
        self,
        verdicts: Verdicts,
        table: RoutingTable,
        grant_trial: Callable[[int, int], None],
        tell: Callable[[Event], None],
    ) -> None:
        """``grant_trial`` lets so many connections through to a slot; ``tell`` hears what happens."""
        self.verdicts = verdicts
        self._table = table
        self._grant_trial = grant_trial
        self._tell = tell
        self._wake = asyncio.Event()

    def change_settings(self, settings: VerdictSettings) -> None:
        """Judge by other settings from now on."""
        self.verdicts.change_settings(settings, monotonic())
        self._tell_all()
        self._wake.set()

    def follow(self, change: TableChange) -> None:
        """Take in what changed in the rows."""
        self.verdicts.follow(change)
        self._look()

    def checked(self, backend_id: str, why: str | None, began_s: float, now_s: float) -> None:
        """Take in the result of a check."""
        self.verdicts.checked(backend_id, why, began_s, now_s)
        self._look()

    def reported(self, report: Report) -> None:
        """Take in how connections went."""
        for backend_id, outcomes in report.outcomes.items():
            self.verdicts.went(backend_id, outcomes, monotonic())
        self._look()

    async def run(self, workers: Workers) -> None:
        """Publish until cancelled."""
        while True:
            self._wake.clear()
            self.verdicts.advance(monotonic())
            self._tell_all()
            if self.verdicts.has_changes:
                self._publish(workers)
                await asyncio.sleep(PAUSE_S)
            else:
                next_at_s = self.verdicts.next_at_s()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(
                        self._wake.wait(), None if next_at_s == inf else max(0.0, next_at_s - monotonic())
                    )

    def _look(self) -> None:
        self._tell_all()
        if self.verdicts.has_changes:
            self._wake.set()

    def _tell_all(self) -> None:
        for event in self.verdicts.take_events():
            self._tell(event)

    def _publish(self, workers: Workers) -> None:
        change = self._table.judge(self.verdicts.take_changed(AT_A_TIME))
        for placed in change.upserts:
            if not placed.verdict.is_good:
                # First, so that whoever hears of a trial finds it granted. What an ended one left must go.
                on_trial = self.verdicts.trial_connections if placed.verdict.trial else 0
                self._grant_trial(placed.slot, on_trial)
        if change.alters_routing:
            workers.publish(
                TableChanged(change.version, whole=False, upserts=change.upserts, removed_slots=())
            )
