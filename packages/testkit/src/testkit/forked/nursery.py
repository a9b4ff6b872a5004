"""The process that programs are forked from: ``python -P -m testkit.forked.nursery FD PROGRAMS MODULE...``.

It imports the modules, then becomes a program for each order that comes over its socket: one byte with
descriptors, of which the first is of a file in memory with the `Order`, the others are for the program. The
answer is written into that file and announced with one byte. The nursery ends when the socket does.

A program shall be a child of the process that asks for it, not of this one. So it is forked twice, the
process between ends, and the kernel gives the orphan to the nearest of its ancestors that takes orphans, as
who asks does for this moment. So a nursery must descend from who asks, and each program begins with the
nursery of the programs that it will start itself, forked from this one.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import socket
import sys
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from testkit.forked.order import Order
from testkit.forked.popen import MAX_DESCRIPTORS, Nursery, start_by_fork

# Not os._exit, in whose place coverage.py saves what was measured. Here there is nothing to save, or it is
# saved.
_end_now = ctypes.CDLL(None)["_exit"]


def main(arguments: Sequence[str]) -> None:
    """Serve orders and return; in each program, run that and return."""
    channel, programs = socket.socket(fileno=int(arguments[0])), arguments[1].split(",")
    for module in arguments[2:]:
        importlib.import_module(module)
    _save_what_was_measured()
    gc.collect()
    # Each page that the collector writes to would have to be copied for each program.
    gc.freeze()
    if (order := _serve(channel)) is None:
        return
    while order is not None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        nursery = os.fork()
        if nursery:
            theirs.close()
            # Whoever looks for the processes of the program's group, or signals them, does not mean this one.
            os.setpgid(nursery, nursery)
            start_by_fork(Nursery(ours, programs, order.environment))
            _end(_run(order.module))
        _keep_nothing_but(theirs)
        ours.detach()
        order = _serve(theirs)
    _end_now(0)


def _run(module: str) -> object:
    """Return what it ends with, as `SystemExit` has it; other exceptions end the interpreter as ever."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code
    return None


def _end(code: object) -> NoReturn:
    """Do all that an interpreter does at its end, but do not take it apart.

    That visits every object of every module, whose pages would all be copied for it: a third of what a short
    program costs.
    """
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    with suppress(OSError):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
        _end_now(code or 0)
    # What cannot be written any more is for the interpreter to tell.
    sys.exit(code)


def _save_what_was_measured() -> None:
    """Else each program would save it, too."""
    if "coverage" in sys.modules:
        from coverage import Coverage

        if (measuring := Coverage.current()) is not None:
            measuring.save()
            # All programs would share the open file.
            measuring.get_data().close(force=True)


def _serve(channel: socket.socket) -> Order | None:
    """Fork until the channel ends; return in each program what it is to be."""
    while True:
        _, fds, _, _ = socket.recv_fds(channel, 1, MAX_DESCRIPTORS)
        if not fds:
            return None
        between = os.fork()
        if not between:
            channel.detach()
            return _be_born(fds)
        for fd in fds:
            os.close(fd)
        os.waitpid(between, 0)
        channel.send(b".")


def _be_born(fds: Sequence[int]) -> Order:
    """Return in the program. The process between ends here, when the program is all that was ordered."""
    between = os.getpid()
    waiting, done = os.pipe()
    if os.fork():
        os.close(done)
        os.read(waiting, 1)
        _end_now(0)
    order = Order.read(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
    memory, done = _arrange(fds[1:], order.descriptors, keep=(fds[0], done))
    answer: dict[str, object] = {"pid": os.getpid()}
    try:
        order.carry_out()
    except OSError as error:
        answer |= {"errno": error.errno, "filename": error.filename}
    os.ftruncate(memory, 0)
    os.pwrite(memory, json.dumps(answer).encode("ascii"), 0)
    if "errno" in answer:
        _end_now(1)
    os.close(memory)
    os.close(done)
    while os.getppid() == between:
        os.sched_yield()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An interpreter decides when it starts, by what its standard output is then.
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
    return order


def _arrange(given: Sequence[int], wanted: Sequence[int], keep: Sequence[int]) -> list[int]:
    """Give descriptors the numbers that are wanted, and close all others but for some; return these."""
    free = max(wanted) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free) for fd in (*keep, *given)]
    _close_all_but(moved)
    for fd, number in zip(moved[len(keep) :], wanted, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    return moved[: len(keep)]


def _keep_nothing_but(channel: socket.socket) -> None:
    """Close what a program was given, so that others see the end of it."""
    _close_all_but([channel.fileno()])
    for _ in range(3):
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _close_all_but(kept: Collection[int]) -> None:
    for each in Path("/proc/self/fd").iterdir():
        if int(each.name) not in kept:
            # The one that lists them is closed already.
            with suppress(OSError):
                os.close(int(each.name))


if __name__ == "__main__":
    main(sys.argv[1:])
