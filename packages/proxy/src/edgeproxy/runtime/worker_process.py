"""One worker process as the control process sees it: the process and the channel to it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Sequence
from time import monotonic

from edgeproxy.core.wire.frames import FrameReader, FromWorker, OpenConnection, ToWorker, encode
from edgeproxy.runtime.boot import boot

_READ_BYTES = 256 << 10
_EXIT_TIMEOUT_S = 2.0
"""How long a worker that has closed its channel, the last thing it does, may take to end."""
_EXIT_POLL_S = 0.01


class Worker:
    """A worker process from its start on. ``place`` is its number among the workers."""

    def __init__(self, place: int, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.place = place
        self.started_s = monotonic()
        self.is_ready = False
        self.has_drained = False
        """It ends because it was told to."""
        self.version = -1
        """Table version it routes by."""
        self.lagging = False
        """Something was not sent to it that it should know."""
        self.unanswered = 0
        """How often it was asked whether it is there since it last said something."""
        self.answers: dict[int, asyncio.Future[tuple[OpenConnection, ...]]] = {}
        """What it was asked for and has not answered, by the number of the question."""
        self._process = process
        self._channel = channel
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    async def connect(self) -> None:
        """Take over the channel; before this nothing is sent or read."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._channel)

    async def read(self, on_frame: Callable[[Worker, FromWorker], None]) -> None:
        """Hand on frames until the channel ends.

        Raises:
            FrameError: the worker sent what is no frame.
        """
        assert self._reader is not None
        frames: FrameReader[FromWorker] = FrameReader(FromWorker)
        while data := await self._read_some(self._reader):
            for frame in frames.feed(data):
                on_frame(self, frame)

    async def _read_some(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(_READ_BYTES)
        except ConnectionError:
            return b""

    def send(self, frame: ToWorker) -> None:
        """Queue a frame; one for a worker that is gone, or not connected yet, is dropped."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode(frame))

    def unsent_bytes(self) -> int:
        """How much the worker has not taken yet."""
        return self._writer.transport.get_write_buffer_size() if self._writer is not None else 0

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()

    async def exited(self) -> int:
        """Wait until the process, which has closed its channel, has ended; return its exit code.

        Asks again and again: waiting in a thread would stand in line behind whatever else waits there.
        """
        kill_at_s = monotonic() + _EXIT_TIMEOUT_S
        while (exit_code := self._process.poll()) is None:
            if monotonic() > kill_at_s:
                self.kill()
            await asyncio.sleep(_EXIT_POLL_S)
        return exit_code

    def close(self) -> None:
        """Close the channel."""
        if self._writer is not None:
            self._writer.close()
        else:
            self._channel.close()


def spawn(place: int, program: Sequence[str], listeners: Sequence[socket.socket], segment_fd: int) -> Worker:
    """Start the worker of ``place``.

    Raises:
        OSError: the operating system refuses another process or descriptor.
    """
    return Worker(place, *boot(program, listeners, segment_fd))
