"""Kernel pipes that bytes pass through on their way from one socket to another.

A pipe that holds nothing may serve any connection next. One that still holds bytes when its connection is
over is closed: reused, it would send them to somebody else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

_WANTED_BYTES = 1 << 20
"""As much as the kernel allows without privileges (``/proc/sys/fs/pipe-max-size``)."""

_SMALLEST_BYTES = 64 << 10
"""Size of a pipe when nothing is wanted. A user who has many large ones is given as little as one page, which
would cost more calls than it saves copies."""

_OPEN_LIMIT = 64
"""In one worker. It bounds what slow readers can claim, 64 MiB in the kernel, and the descriptors."""

_IDLE_LIMIT = 16


class Pipe:
    """Both ends, closed when it is let go."""

    __slots__ = ("capacity_bytes", "filled_bytes", "read_fd", "write_fd")

    def __init__(self) -> None:
        """Raises OSError when no descriptors are left."""
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.filled_bytes = 0
        with contextlib.suppress(OSError):  # this user has too much in pipes already
            fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, _WANTED_BYTES)
        self.capacity_bytes = fcntl.fcntl(self.write_fd, fcntl.F_GETPIPE_SZ)

    def __del__(self) -> None:
        if hasattr(self, "write_fd"):
            os.close(self.read_fd)
            os.close(self.write_fd)


class Pipes:
    """Those of one worker."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []
        self._in_use = 0

    @property
    def in_use(self) -> int:
        return self._in_use

    @property
    def idle(self) -> int:
        return len(self._idle)

    def take(self) -> Pipe | None:
        """An empty pipe to be given back by :meth:`put_back`; ``None`` when there is none to be had."""
        if self._idle:
            self._in_use += 1
            return self._idle.pop()
        if self._in_use >= _OPEN_LIMIT:
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None
        if pipe.capacity_bytes < _SMALLEST_BYTES:
            return None
        self._in_use += 1
        return pipe

    def put_back(self, pipe: Pipe) -> None:
        """The connection that took ``pipe`` needs it no more, whatever is in it."""
        self._in_use -= 1
        if not pipe.filled_bytes and len(self._idle) < _IDLE_LIMIT:
            self._idle.append(pipe)
