"""An event loop whose clock jumps ahead when all wait, so that a test about 90 seconds takes none of them.

::

    @virtual_time
    async def test_silent_client_is_dropped():
        await asyncio.sleep(90)  # at once

Everything that asks the loop for the time follows: ``asyncio.sleep``, ``timeout``, ``wait_for``,
``call_later``, and what is built on them. ``time.monotonic()`` does not: code under test takes a clock, and
is given ``loop.time``.

The clock jumps only when nothing is under way in the real world:

- Bytes between two sockets of this loop, and connections being made, are waited for: they are on their way.
- So are threads of ``run_in_executor`` and ``asyncio.to_thread``; meanwhile the clock runs at real speed.
- Whoever is outside (another process, a thread of its own) may have something to say at any time. They get
  ``patience_s`` of real time before each jump, and as long as they need inside :func:`real_time`.

When all wait and no timer will wake any of them, the loop raises :class:`DeadlockError`, which says who waits
where.

Linux only: the kernel is asked how many bytes of a connection are on their way.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import inspect
import selectors
import socket
import struct
import termios
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

HORIZON_S = 7 * 86_400.0
"""Whoever is not done by then polls for what will never be."""

PATIENCE_S = 0.05

_TCP = {(family, socket.SOCK_STREAM) for family in (socket.AF_INET, socket.AF_INET6)}

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Address = tuple[object, object]


class DeadlockError(AssertionError):
    """Everybody waits for somebody else."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Begins at second 0. For ``asyncio.Runner(loop_factory=VirtualTimeLoop)``, or :func:`run`."""

    def __init__(self, *, patience_s: float = PATIENCE_S, horizon_s: float = HORIZON_S) -> None:
        self.patience_s = patience_s
        self.horizon_s = horizon_s
        self._now_s = 0.0
        self._holders = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now_s

    def jump(self, seconds: float) -> None:
        """Let that much time have passed; what was due in between is done late, as after a pause."""
        self._now_s += seconds

    @property
    def in_real_time(self) -> bool:
        """Whether somebody holds the clock to real time."""
        return self._holders > 0

    @contextmanager
    def real_time(self) -> Iterator[None]:
        """Within, the clock runs as real ones do, for something outside that takes its time."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._holders += 1
        future.add_done_callback(self._let_go)
        return future

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        # Its threads are no jobs of an executor, and take their time too.
        with self.real_time():
            await super().shutdown_default_executor(*timeout)

    def _let_go(self, _: object) -> None:
        self._holders -= 1

    def who_waits(self) -> str:
        """Each task that is not done, and the line where it waits."""
        return "\n".join(f"  {_place(task)}" for task in asyncio.all_tasks(self))


def run(coroutine: Coroutine[Any, Any, T], *, patience_s: float = PATIENCE_S) -> T:
    """Like ``asyncio.run``, in virtual time.

    Raises:
        DeadlockError: all tasks wait and nothing will wake them, or it is not done within `HORIZON_S`.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience_s=patience_s)) as runner:
        return runner.run(coroutine)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a coroutine function a plain one that runs in virtual time, whatever runs the tests.

    Fixtures that need a running loop have another one: make what they would make inside the test.
    """

    @functools.wraps(test)
    def run_test(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test(*args, **kwargs))

    return run_test


def real_time() -> AbstractContextManager[None]:
    """For the length of a ``with``, let the running loop's clock pass as real ones do.

    Does nothing in a loop whose clock is real anyway.
    """
    loop = asyncio.get_running_loop()
    return loop.real_time() if isinstance(loop, VirtualTimeLoop) else nullcontext()


class _JumpingSelector(selectors.BaseSelector):
    """Asks what is ready at once; when nothing is, the time that the loop would have waited has passed."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()
        self._wakeup: Any = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._loop.in_real_time:
            return self._wait_in_real_time(timeout)
        if _under_way(key.fd for key in self._real.get_map().values() if key.fileobj != self._wakeup):
            ready = self._real.select(self._loop.patience_s)
            if ready:
                return ready
        if timeout is None:
            raise DeadlockError(f"everybody waits for somebody else, and no timer:\n{self._loop.who_waits()}")
        if self._loop.time() > self._loop.horizon_s:
            raise DeadlockError(f"not done after {self._loop.horizon_s:g} s:\n{self._loop.who_waits()}")
        self._loop.jump(timeout)
        # What was on its way when first asked, and is no longer, has arrived.
        return self._real.select(0)

    def _wait_in_real_time(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        began_s = time.monotonic()
        ready = self._real.select(timeout)
        self._loop.jump(time.monotonic() - began_s)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._wakeup is None:
            # The loop's first: the pair of sockets with which other threads wake it.
            self._wakeup = fileobj
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def _under_way(descriptors: Iterator[int]) -> bool:
    """Whether anything may happen that no timer starts: bytes on their way, or somebody outside.

    On the loopback interface, bytes that the other end's kernel has taken are readable there. So what two
    sockets of one loop said to each other is either ready or counted as not acknowledged.
    """
    connections: set[tuple[Address, Address]] = set()
    for descriptor in descriptors:
        try:
            peeked = socket.socket(fileno=descriptor)
        except OSError:
            return True  # a pipe, a process
        try:
            if peeked.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                continue
            if (peeked.family, peeked.type) not in _TCP or _unacknowledged(descriptor):
                return True
            connections.add((peeked.getsockname()[:2], peeked.getpeername()[:2]))
        except OSError:
            return True  # not connected yet
        finally:
            peeked.detach()
    return any((there, here) not in connections for here, there in connections)


def _unacknowledged(descriptor: int) -> bool:
    (waiting,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4))
    return bool(waiting)


def _place(task: asyncio.Task[Any]) -> str:
    """Name of the task, and the innermost line of code where it waits."""
    waits_in: object = task.get_coro()
    place = "has not begun"
    while inspect.iscoroutine(waits_in) and waits_in.cr_frame is not None:
        frame = waits_in.cr_frame
        place = f"{waits_in.__qualname__}, {frame.f_code.co_filename}:{frame.f_lineno}"
        waits_in = waits_in.cr_await
    return f"{task.get_name()}: {place}"
