"""Starts the workers, keeps their number, tells them what changed and hears what they count."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

import msgspec

from edgeproxy.core.wire.frames import (
    ConnectionOrder,
    Drain,
    Drained,
    FrameError,
    FromWorker,
    GeoDatabaseChanged,
    HostAddresses,
    ListConnections,
    News,
    Notice,
    OpenConnection,
    OpenConnections,
    Ping,
    Ready,
    Report,
    Reset,
    SettingsChanged,
    Start,
    TableApplied,
    TableChanged,
    TlsChanged,
    TlsSettings,
)
from edgeproxy.errors import EdgeproxyError
from edgeproxy.runtime.boot import Booted
from edgeproxy.runtime.worker_process import Worker, spawn

_LAGGING_BYTES = 4 << 20
"""With more than this unsent a worker gets no news but, once it reads again, the state of that time."""

_LOOKS_PER_HANG = 10
"""A worker that has not answered after so many looks hangs. Looks are counted rather than time, since this
process may itself have stood still."""

_CENSUS_TIMEOUT_S = 5.0
"""How long workers may take to list their connections."""

_STABLE_S = 5.0
"""A worker that lived this long is replaced at once; one that did not, after a pause that doubles."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_FAILURES_BEFORE_GIVING_UP = 3
"""Workers of one place that die one after another, none of them ready, while the proxy starts."""

_KILL_AFTER_S = 2.0
"""How long a worker may take to end when its sessions have, or had to."""


class Counts(Protocol):
    """What the supervisor does to the segment that workers share."""

    def clear_worker(self, worker: int) -> None:
        """Give back the leases of a dead worker."""
        ...


class Observer(Protocol):
    """Who hears what workers say, and what becomes of them. ``worker`` is the number of the place."""

    def reported(self, worker: int, report: Report) -> None: ...

    def noticed(self, worker: int, notice: Notice) -> None: ...

    def died(self, worker: int, pid: int, exit_code: int) -> None:
        """A worker ended that was not told to; it is replaced."""
        ...

    def undecodable(self, worker: int, why: str) -> None:
        """A worker sent what is no frame, and is killed for it."""
        ...

    def not_started(self, worker: int, why: str) -> None:
        """A replacement could not be started; that is tried again."""
        ...

    def lagged(self, worker: int) -> None:
        """A worker does not keep up with the news; it gets the whole state when it reads again."""
        ...

    def hung(self, worker: int, pid: int) -> None:
        """A worker has answered nothing for too long, and is killed for it."""
        ...


class TableSource(Protocol):
    """Where a new or lagging worker's state comes from."""

    def whole_table(self) -> TableChanged: ...

    def resolved_hosts(self) -> Sequence[HostAddresses]: ...


class ChannelTroubles(msgspec.Struct):
    """What went wrong between this process and its workers, since the start."""

    lags: int = 0
    """Times that a worker did not keep up."""
    hangs: int = 0
    """Workers that answered nothing for too long."""
    undecodable: int = 0
    """Workers that sent what is no frame."""


class Supervisor:
    """The workers of one POP."""

    def __init__(
        self,
        program: Sequence[str],
        listeners: Sequence[Sequence[socket.socket]],
        segment_fd: int,
        counts: Counts,
        observer: Observer,
        rows: Sequence[int],
        booted: Sequence[Booted],
    ) -> None:
        """``booted`` are workers that were started as ``program``, one for each place, with the place's
        ``listeners``; each counts in its place's row of the segment. So do those that replace them."""
        self._program = program
        self._listeners = listeners
        self._segment_fd = segment_fd
        self._counts = counts
        self._observer = observer
        self._rows = rows
        self._settings: Start | None = None
        self._table: TableSource | None = None
        self._workers = {place: Worker(place, *each) for place, each in enumerate(booted)}
        self._places: list[asyncio.Task[None]] = []
        self._all_ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._sessions_reset = 0
        self._questions = 0
        self.restarts = 0
        self.troubles = ChannelTroubles()

    # ---- start and stop ----------------------------------------------------------------------

    async def start(self, settings: Start, table: TableSource) -> None:
        """Give the workers what they serve by; return when all accept, or when one ended as it was told.

        ``settings`` are sent to each worker with the number of its row in ``worker``.

        Raises:
            EdgeproxyError: they keep dying.
        """
        self._settings = settings
        self._table = table
        self._places = [asyncio.create_task(self._keep_running(each)) for each in self._workers.values()]
        ready = asyncio.create_task(self._all_ready.wait())
        await asyncio.wait((ready, *self._places), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        self._raise_failures()

    async def watch(self) -> None:
        """Return when all workers have been told to stop; raise what ended the care for a place before."""
        await asyncio.wait(self._places, return_when=asyncio.FIRST_EXCEPTION)
        self._raise_failures()

    async def stop(self, timeout_s: float, *, staggered: bool = False) -> int:
        """Let all workers drain, which takes them up to ``timeout_s``, and wait for their end.

        ``staggered``: see :class:`~edgeproxy.core.wire.frames.Drain`.
        Returns how many sessions had to be reset.
        """
        self.retire()  # feature: process.stop
        self._order(Drain(staggered))
        _, late = await asyncio.wait(self._places, timeout=timeout_s + _KILL_AFTER_S)
        self.kill()
        if late:
            await asyncio.wait(late)
        return self._sessions_reset

    def retire(self) -> None:
        """Replace no worker from now on: they have been told to stop, or will be."""
        self._stopping.set()

    def reset(self) -> None:
        """End all sessions now, each with a reset, and then the workers.

        A worker that is killed leaves it to the kernel to close its sockets, which ends them in order, so
        that an answer cut off in the middle looks whole.
        """
        self.retire()
        self._order(Reset())
        asyncio.get_running_loop().call_later(_KILL_AFTER_S, self.kill)

    def kill(self) -> None:
        """End all workers now."""
        self.retire()
        for worker in self._workers.values():
            worker.kill()

    def _order(self, frame: Drain | Reset) -> None:
        for worker in self._workers.values():
            worker.send(frame)

    def _raise_failures(self) -> None:
        # All are asked, since asyncio complains of an exception that nobody has seen.
        failures = [place.exception() for place in self._places if place.done()]
        for failure in filter(None, failures):
            raise failure

    # ---- what everybody must know ------------------------------------------------------------

    def publish(self, news: News) -> None:
        """Send ``news`` to all workers that run; one that does not keep up gets the state of later."""
        frames = tuple(news.pieces()) if isinstance(news, TableChanged) else (news,)
        for worker in self._workers.values():
            if not worker.lagging and worker.unsent_bytes() > _LAGGING_BYTES:
                worker.lagging = True
                self.troubles.lags += 1
                self._observer.lagged(worker.place)
            if not worker.lagging:
                for frame in frames:
                    worker.send(frame)

    def change_settings(self, settings: Start) -> None:
        """Have all workers, and those to come, go by ``settings``, as far as a running worker can."""
        self._settings = settings
        self.publish(SettingsChanged(settings))

    def change_tls(self, tls: TlsSettings) -> None:
        """Let all workers, later ones too, do TLS like this."""
        assert self._settings is not None
        self._settings = msgspec.structs.replace(self._settings, tls=tls)
        self.publish(TlsChanged(tls))

    def catch_up(self) -> None:
        """Tell workers that lagged and read again how everything is now. To be called now and then."""
        assert self._settings is not None
        for worker in self._workers.values():
            if worker.lagging and not worker.unsent_bytes():
                worker.lagging = False
                worker.send(SettingsChanged(self._settings))
                worker.send(GeoDatabaseChanged())
                self._tell_table(worker)

    async def watch_for_hangs(self, timeout_s: float) -> None:
        """Have each worker replaced that answers nothing for so long, until cancelled."""
        while True:
            await asyncio.sleep(timeout_s / _LOOKS_PER_HANG)
            self.look_for_hangs()

    def look_for_hangs(self) -> None:
        """Ask each worker whether it is there; kill those that have not answered for some looks."""
        for worker in self._workers.values():
            if worker.unanswered == _LOOKS_PER_HANG:
                self.troubles.hangs += 1  # feature: workers.hung
                self._observer.hung(worker.place, worker.pid)
                worker.kill()
            if worker.is_ready:
                worker.unanswered += 1
                worker.send(Ping())

    async def open_connections(
        self, count: int, order: ConnectionOrder, timeout_s: float = _CENSUS_TIMEOUT_S
    ) -> tuple[list[OpenConnection], int]:
        """Ask all workers for their ``count`` first connections in ``order``.

        Returns what came within ``timeout_s``, unsorted, and how many workers did not answer.
        """
        self._questions += 1
        number = self._questions
        answers: dict[int, asyncio.Future[tuple[OpenConnection, ...]]] = {}
        for worker in self._workers.values():
            if worker.is_ready:
                answer = asyncio.get_running_loop().create_future()
                answers[worker.place] = worker.answers[number] = answer
                worker.send(ListConnections(number, count, order))
        if answers:
            await asyncio.wait(answers.values(), timeout=timeout_s)
        for worker in self._workers.values():
            worker.answers.pop(number, None)
        found = [each for answer in answers.values() if answer.done() for each in answer.result()]
        return found, sum(not answer.done() for answer in answers.values())

    def applied_version(self) -> int:
        """The table version that every worker has reached."""
        return min((worker.version for worker in self._workers.values()), default=-1)

    def any_ready(self) -> bool:
        """Whether clients are accepted. One worker is enough, since the others' are back in a moment."""
        return any(worker.is_ready for worker in self._workers.values())

    def pids(self) -> list[int]:
        """Process ids of the workers that run, in the order of their places."""
        return [self._workers[place].pid for place in sorted(self._workers)]

    # ---- one worker's place ------------------------------------------------------------------

    def _spawn(self, place: int) -> Worker:
        worker = spawn(place, self._program, self._listeners[place], self._segment_fd)
        self._workers[place] = worker
        return worker

    async def _keep_running(self, worker: Worker) -> None:
        """Serve one place: its worker, and whoever replaces it.

        Raises:
            EdgeproxyError: one after another dies before the proxy has come up.
        """
        place, pause_s, failures = worker.place, 0.0, 0
        while True:
            exit_code = await self._serve(worker)
            if self._stopping.is_set():
                return
            failures = 0 if worker.is_ready else failures + 1
            if failures == _FAILURES_BEFORE_GIVING_UP and not self._all_ready.is_set():
                raise EdgeproxyError(
                    f"workers end before they are ready (exit code {exit_code}): see the lines above"
                )
            is_stable = monotonic() - worker.started_s >= _STABLE_S
            pause_s = 0.0 if is_stable else _longer(pause_s)
            replacement = None
            while replacement is None:
                if await self._stops_within(pause_s):
                    return
                try:
                    replacement = self._spawn(place)
                except OSError as error:
                    self._observer.not_started(place, str(error.strerror))
                    pause_s = _longer(pause_s)
            worker = replacement
            self.restarts += 1  # feature: workers.replaced

    async def _stops_within(self, pause_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause_s)
        return self._stopping.is_set()

    async def _serve(self, worker: Worker) -> int:
        """Until ``worker`` has ended and its leases are given back; return its exit code."""
        try:
            await worker.connect()
            self._introduce(worker)
            await worker.read(self._heard)
        except FrameError as error:
            self.troubles.undecodable += 1
            self._observer.undecodable(worker.place, str(error))
            worker.kill()
        except BaseException:
            worker.kill()
            raise
        finally:
            exit_code = await worker.exited()
            del self._workers[worker.place]
            for answer in worker.answers.values():
                answer.set_result(())  # its connections ended with it
            worker.close()
            self._counts.clear_worker(self._rows[worker.place])
        if worker.has_drained:
            # A service manager tells all processes at once, and this one may be the last to hear of it.
            await self._stops_within(_FIRST_PAUSE_S)
        if not self._stopping.is_set():
            self._observer.died(worker.place, worker.pid, exit_code)
        return exit_code

    def _introduce(self, worker: Worker) -> None:
        assert self._settings is not None
        worker.send(msgspec.structs.replace(self._settings, worker=self._rows[worker.place]))
        self._tell_table(worker)
        if self._stopping.is_set():
            worker.send(Drain())

    def _tell_table(self, worker: Worker) -> None:
        assert self._table is not None
        for hosts in self._table.resolved_hosts():
            worker.send(hosts)
        worker.send(self._table.whole_table())

    def _heard(self, worker: Worker, frame: FromWorker) -> None:
        worker.unanswered = 0
        match frame:
            case Ready(version):
                worker.is_ready = True
                worker.version = version
                # A place that waits for its next worker has none here.
                if sum(each.is_ready for each in self._workers.values()) == len(self._listeners):
                    self._all_ready.set()
            case TableApplied(version):
                worker.version = version
            case Report():
                self._observer.reported(worker.place, frame)
            case OpenConnections(number, connections):
                answer = worker.answers.pop(number, None)
                if answer is not None:
                    answer.set_result(connections)
            case Notice():
                self._observer.noticed(worker.place, frame)
            case Drained(reset):
                worker.has_drained = True
                self._sessions_reset += reset


def _longer(pause_s: float) -> float:
    return min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
