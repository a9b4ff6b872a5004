"""Runs the event bus in the control process: stamps what is published and delivers it soon after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from edgeproxy.core.controlplane.events import Event, EventBus, Priority, Topic

_AT_A_TIME = 64
"""Events delivered before others of the process get their turn."""


class EventFeed:
    """Publishing never waits and never raises; delivery is :meth:`run`'s business, or :meth:`flush`'s."""

    def __init__(self, bus: EventBus, wall_clock: Callable[[], float]) -> None:
        self.bus = bus
        self._wall_clock = wall_clock
        self._waiting = asyncio.Event()

    def publish(self, *events: Event) -> None:
        """Tell what happened just now."""
        for event in events:
            self.bus.publish(msgspec.structs.replace(event, at_s=self._wall_clock()))
        if events:
            self._waiting.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            await self._waiting.wait()
            if self.bus.deliver(_AT_A_TIME) < _AT_A_TIME:
                self._waiting.clear()
            await asyncio.sleep(0)

    def flush(self) -> None:
        """Deliver all that waits, at once: before a line that must come after it, and at the end."""
        while self.bus.deliver(_AT_A_TIME):
            continue


class TopicLog:
    """What a part says to it as to a log becomes an event of one topic, and so gets into the log, too."""

    def __init__(self, feed: EventFeed, topic: Topic) -> None:
        self._feed = feed
        self._topic = topic

    def info(self, event: str, **fields: Any) -> None:
        self._publish(event, fields, "info")

    def warning(self, event: str, **fields: Any) -> None:
        self._publish(event, fields, "warning")

    def error(self, event: str, **fields: Any) -> None:
        self._publish(event, fields, "error")

    def _publish(self, event: str, fields: dict[str, Any], level: str) -> None:
        priority = Priority.NORMAL if level == "info" else Priority.CRITICAL
        self._feed.publish(Event(self._topic, event, fields, priority, level))
