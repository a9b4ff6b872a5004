"""Starts the workers, keeps their number, tells them what changed and hears what they count."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

import msgspec

from edgeproxy.core.wire.frames import (
    Drain,
    Drained,
    FrameError,
    FrameReader,
    FromWorker,
    HostAddresses,
    Notice,
    Ready,
    Report,
    Start,
    TableApplied,
    TableChanged,
    ToWorker,
    encode,
)
from edgeproxy.errors import EdgeproxyError

_READ_BYTES = 256 << 10
_LAGGING_BYTES = 4 << 20
"""With more than this unsent a worker gets no changes but, once it reads again, the whole table."""

_STABLE_S = 5.0
"""A worker that lived this long is replaced at once; one that did not, after a pause that doubles."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_FAILURES_BEFORE_GIVING_UP = 3
"""Workers that die one after another before any was ever ready: the start has failed."""

_KILL_AFTER_S = 2.0
"""How long beyond the shutdown timeout a worker may take to end."""


class Counts(Protocol):
    """What the supervisor does to the segment that workers share."""

    def clear_worker(self, worker: int) -> None:
        """Give back the leases of a dead worker."""
        ...


class Observer(Protocol):
    """Who hears what workers say."""

    def reported(self, worker: int, report: Report) -> None: ...

    def noticed(self, worker: int, notice: Notice) -> None: ...

    def died(self, worker: int, pid: int, exit_code: int) -> None: ...

    def undecodable(self, worker: int, why: str) -> None: ...


class TableSource(Protocol):
    """Where a new or lagging worker's state comes from."""

    def whole_table(self) -> TableChanged: ...

    def resolved_hosts(self) -> Sequence[HostAddresses]: ...


class Worker:
    """One worker process and the channel to it."""

    def __init__(self, index: int, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.index = index
        self.process = process
        self.started_s = monotonic()
        self.is_ready = False
        self.version = -1
        """Table version it routes by."""
        self.reset_sessions = 0
        self.lagging = False
        self._channel = channel
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """Take over the channel; before this nothing can be sent or read."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._channel)

    async def read(self, on_frame: Callable[[Worker, FromWorker], None]) -> None:
        """Hand on frames until the channel ends.

        Raises:
            FrameError: the worker sent what is no frame.
        """
        assert self._reader is not None
        frames: FrameReader[FromWorker] = FrameReader(FromWorker)
        try:
            while data := await self._reader.read(_READ_BYTES):
                for frame in frames.feed(data):
                    on_frame(self, frame)
        except ConnectionError:
            return

    def send(self, frame: ToWorker) -> None:
        """Queue a frame; one for a worker that is gone is dropped."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode(frame))

    def unsent_bytes(self) -> int:
        """How much the worker has not taken yet."""
        return self._writer.transport.get_write_buffer_size() if self._writer is not None else 0

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        else:
            self._channel.close()


class Supervisor:
    """The workers of one POP."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        segment_fd: int,
        counts: Counts,
        settings: Start,
        observer: Observer,
    ) -> None:
        """``settings`` are sent to each worker with its own number in ``worker``."""
        self._listeners = listeners
        self._segment_fd = segment_fd
        self._counts = counts
        self._settings = settings
        self._observer = observer
        self._table: TableSource | None = None
        self._workers: dict[int, Worker] = {}
        self._slots: list[asyncio.Task[None]] = []
        self._early: list[Worker] = [self._spawn(index) for index in range(len(listeners))]
        self._all_ready = asyncio.Event()
        self._ever_ready = False
        self._stopping = False
        self._failure: EdgeproxyError | None = None
        self.restarts = 0

    # ---- start and stop ----------------------------------------------------------------------

    async def start(self, table: TableSource) -> None:
        """Give the workers, which boot since construction, their table; return when all accept.

        Raises:
            EdgeproxyError: they keep dying.
        """
        self._table = table
        early, self._early = self._early, []
        self._slots = [asyncio.create_task(self._keep_running(worker)) for worker in early]
        await self._all_ready.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> int:
        """Drain all workers and wait for their end; return how many sessions had to be reset."""
        self._stopping = True
        self.broadcast(Drain())
        for worker in self._early:
            worker.close()
        timeout_s = self._settings.shutdown_timeout_s + _KILL_AFTER_S
        workers = [*self._workers.values(), *self._early]
        _, late = await asyncio.wait(self._slots, timeout=timeout_s) if self._slots else ((), self._slots)
        for worker in workers:
            if worker.process.poll() is None and (late or worker in self._early):
                worker.process.kill()
        if late:
            await asyncio.wait(late)
        return sum(worker.reset_sessions for worker in workers)

    def kill(self) -> None:
        """End all workers now."""
        self._stopping = True
        for worker in (*self._workers.values(), *self._early):
            worker.process.kill()

    # ---- what everybody must know ------------------------------------------------------------

    def broadcast(self, frame: ToWorker) -> None:
        """Send ``frame`` to all workers that run."""
        for worker in self._workers.values():
            worker.send(frame)

    def publish(self, change: TableChanged) -> None:
        """Send a change of the table; a worker that does not keep up gets the whole of it later."""
        for worker in self._workers.values():
            worker.lagging = worker.lagging or worker.unsent_bytes() > _LAGGING_BYTES
            if not worker.lagging:
                worker.send(change)

    def catch_up(self) -> None:
        """Give the whole table to workers that lagged and read again. To be called now and then."""
        assert self._table is not None
        for worker in self._workers.values():
            if worker.lagging and not worker.unsent_bytes():
                worker.lagging = False
                worker.send(self._table.whole_table())

    def applied_version(self) -> int:
        """The table version that every worker has reached."""
        return min((worker.version for worker in self._workers.values()), default=-1)

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers.values()]

    # ---- one worker's place ------------------------------------------------------------------

    def _spawn(self, index: int) -> Worker:
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno(), self._listeners[index].fileno(), self._segment_fd]
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeproxy.worker", *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        return Worker(index, process, ours)

    async def _keep_running(self, worker: Worker) -> None:
        """Serve one place: its worker, and whoever replaces it."""
        index, pause_s, failures = worker.index, _FIRST_PAUSE_S, 0
        while True:
            self._workers[index] = worker
            await self._serve(worker)
            del self._workers[index]
            if self._stopping:
                return
            lived_s = monotonic() - worker.started_s
            self.restarts += 1
            failures = 0 if worker.is_ready else failures + 1
            if failures >= _FAILURES_BEFORE_GIVING_UP and not self._ever_ready:
                self._failure = EdgeproxyError(
                    f"workers end before they are ready (exit code {worker.process.returncode}): "
                    "see the log above"
                )
                self._all_ready.set()
                return
            if lived_s >= _STABLE_S:
                pause_s = _FIRST_PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            worker = self._spawn(index)

    async def _serve(self, worker: Worker) -> None:
        """Until ``worker`` has ended and its leases are given back."""
        await worker.connect()
        assert self._table is not None
        worker.send(msgspec.structs.replace(self._settings, worker=worker.index))
        for hosts in self._table.resolved_hosts():
            worker.send(hosts)
        worker.send(self._table.whole_table())
        if self._stopping:
            worker.send(Drain())
        try:
            await worker.read(self._heard)
        except FrameError as error:
            self._observer.undecodable(worker.index, str(error))
            worker.process.kill()
        exit_code = await asyncio.to_thread(_reap, worker.process)
        worker.close()
        self._counts.clear_worker(worker.index)
        if not self._stopping:
            self._observer.died(worker.index, worker.process.pid, exit_code)

    def _heard(self, worker: Worker, frame: FromWorker) -> None:
        match frame:
            case Ready(version):
                worker.is_ready = True
                worker.version = version
                self._ever_ready = True
                if len(self._workers) == len(self._listeners) and all(
                    w.is_ready for w in self._workers.values()
                ):
                    self._all_ready.set()
            case TableApplied(version):
                worker.version = version
            case Report():
                self._observer.reported(worker.index, frame)
            case Notice():
                self._observer.noticed(worker.index, frame)
            case Drained(reset):
                worker.reset_sessions = reset


def _reap(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that has closed its channel, which is the last thing it does."""
    try:
        return process.wait(_KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
