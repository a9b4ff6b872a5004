"""The life of a worker: started by the control process, led by its frames, drained at the end."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgeproxy.core.wire.frames import (
    Drain,
    Drained,
    GeoDatabaseChanged,
    HostAddresses,
    KernelCounts,
    ListConnections,
    Notice,
    Ping,
    Pong,
    Ready,
    Reset,
    SettingsChanged,
    Start,
    TableApplied,
    TableChanged,
    TlsChanged,
    ToWorker,
)
from edgeproxy.errors import GeoDatabaseError
from edgeproxy.ports import CountryLookup
from edgeproxy.worker.channel import Channel
from edgeproxy.worker.loop import Loop
from edgeproxy.worker.plane import Plane
from edgeproxy.worker.shared_state import SharedState
from edgeproxy.worker.signals import SignalWakeup

if TYPE_CHECKING:
    from edgeproxy.worker.kernel_maps import KernelMaps

REPORT_INTERVAL_S = 0.2
"""How often a worker tells what it counted."""
REPORTS_AHEAD = 16
"""Reports within one interval that failures of backends may bring forward. A failure should be known to all
workers before the next client comes; a flood of them should not keep everybody busy with reports."""

STAGGER_SHARE = 0.25
"""The last part of the shutdown timeout, in which a staggered drain ends what is left."""
STAGGER_STEPS = 16


class WorkerProcess:
    """Connects the channel, the shared segment and the data plane."""

    def __init__(
        self,
        channel: socket.socket,
        listeners: Sequence[socket.socket],
        segment_fd: int,
        open_geo: Callable[[str | None], CountryLookup],
    ) -> None:
        self._loop = Loop(self._on_defect)
        self._listeners = listeners
        self._segment_fd = segment_fd
        self._open_geo = open_geo
        self._settings: Start | None = None
        self._plane: Plane | None = None
        self._ready = False
        self._draining = False
        self._kernel_told: KernelCounts | None = None
        self._reset = 0
        self._reports_ahead = REPORTS_AHEAD
        self._reports = self._loop.deadlines(REPORT_INTERVAL_S, WorkerProcess._report)
        self._channel = Channel(channel, self._loop, self._on_frame, self._on_control_lost)

    def run(self) -> None:
        """Serve until drained."""
        SignalWakeup(self._loop, signal.SIGTERM, self._drain)
        self._reports.add(self, self._loop.now_s)
        self._loop.run()
        self._send_report()
        self._channel.send(Drained(self._reset))
        self._channel.finish()

    def _on_frame(self, frame: ToWorker) -> None:
        match frame:
            case Start():
                self._start(frame)
            case TableChanged():
                self._change_table(frame)
            case HostAddresses(host, addresses):
                self._the_plane().resolved(host, addresses)
            case GeoDatabaseChanged():
                self._reopen_geo()
            case SettingsChanged(settings):
                self._settings = settings
                self._the_plane().change_settings(settings)
            case TlsChanged(tls):
                self._the_plane().change_tls(tls)
            case Ping():
                self._channel.send(Pong())
            case ListConnections():
                self._the_plane().list_connections(frame, self._channel.send)
            case Drain(staggered):
                self._drain(staggered=staggered)
            case Reset():
                self._drain()
                if self._plane is not None:
                    self._drain_is_over(self._plane)

    def _start(self, settings: Start) -> None:
        self._settings = settings
        state = SharedState(self._segment_fd, settings.worker)
        self._plane = Plane(
            self._loop,
            settings,
            self._first_geo(settings),
            state,
            notify=self._channel.send,
            report_soon=self._report_soon,
            maps=self._take_up_kernel(settings),
        )

    def _take_up_kernel(self, settings: Start) -> KernelMaps | None:
        """The kernel's part of relaying; ``None`` if nobody wants it, or it cannot be had."""
        if not settings.promote_after_turns:
            return None
        # ctypes is loaded only by those who need it.
        from edgeproxy.worker.kernel_probe import KernelRefusedError, take_up

        try:
            return take_up()
        except KernelRefusedError as error:
            if settings.worker == 0:  # all workers are told the same
                self._channel.send(
                    Notice("warning", "the kernel relays no connections, workers do", {"why": str(error)})
                )
            return None

    def _first_geo(self, settings: Start) -> CountryLookup:
        """The country database; the embedded one if the file has become unusable since the proxy started.

        That file is only opened here when a worker is replaced; without one, clients would not be served.
        """
        try:
            return self._open_geo(settings.geoip_path)
        except GeoDatabaseError as error:
            self._channel.send(Notice("error", "using the embedded country database", {"why": str(error)}))
            return self._open_geo(None)

    def _change_table(self, frame: TableChanged) -> None:
        plane = self._the_plane()
        plane.change_table(frame)
        if self._ready:
            if not frame.unfinished:
                self._channel.send(TableApplied(frame.version))
            return
        # What exists now lives as long as the process, and connections make no cycles: there is
        # nothing for the collector to find, and its pauses would be the clients'.
        gc.collect()
        gc.freeze()
        gc.disable()
        plane.listen(self._listeners)
        self._ready = True
        self._channel.send(Ready(frame.version))

    def _reopen_geo(self) -> None:
        plane, settings = self._the_plane(), self._settings
        assert settings is not None
        try:
            plane.use_countries(self._open_geo(settings.geoip_path))
        except GeoDatabaseError as error:
            self._channel.send(Notice("warning", "keeping the country database in use", {"why": str(error)}))

    def _drain(self, *, staggered: bool = False) -> None:
        if self._draining:
            return
        self._draining = True
        plane, settings = self._plane, self._settings
        if plane is None or settings is None:
            self._loop.stop()
            return
        timeout_s = settings.shutdown_timeout_s
        self._loop.deadlines(timeout_s, self._drain_is_over).add(plane, self._loop.now_s)
        for step in range(STAGGER_STEPS if staggered else 0):
            steps_left = STAGGER_STEPS - step
            after_s = timeout_s * (1 - STAGGER_SHARE * steps_left / STAGGER_STEPS)
            reset_share = partial(self._reset_share, steps_left + 1)
            self._loop.deadlines(after_s, reset_share).add(plane, self._loop.now_s)
        plane.drain(self._loop.stop)

    def _reset_share(self, shares: int, plane: Plane) -> None:
        self._reset += plane.reset(-(-plane.open_connections // shares))

    def _drain_is_over(self, plane: Plane) -> None:
        self._reset += plane.reset_all()

    def _on_control_lost(self) -> None:
        """Serve on with the last table for a successor to take over, then drain."""
        if self._settings is None:
            self._loop.stop()
            return
        grace = self._loop.deadlines(self._settings.shutdown_timeout_s, WorkerProcess._drain)
        grace.add(self, self._loop.now_s)

    def _report(self) -> None:
        if not self._channel.is_congested():
            self._send_report()
        self._reports_ahead = REPORTS_AHEAD
        self._reports.add(self, self._loop.now_s)

    def _report_soon(self) -> None:
        """Report now, unless that was done often enough; then it can wait for the regular report."""
        if self._reports_ahead and not self._channel.is_congested():
            self._reports_ahead -= 1
            self._send_report()

    def _send_report(self) -> None:
        plane = self._plane
        if plane is None:
            return
        kernel = plane.relay.kernel_counts()
        if kernel != self._kernel_told or not plane.ledger.is_empty():
            self._kernel_told = kernel
            report = plane.ledger.report()
            self._channel.send(report if kernel is None else replace(report, kernel=kernel))

    def _on_defect(self, culprit: object, error: Exception) -> None:
        if self._plane is None:
            raise error
        self._plane.contain(culprit, error)

    def _the_plane(self) -> Plane:
        assert self._plane is not None, "the first frame starts the worker"
        return self._plane
