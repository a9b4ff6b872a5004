"""`subprocess`, with programs of Python forked from a nursery instead of a new interpreter."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from testkit.forked.order import Inherited, Order, read_at_start

MAX_DESCRIPTORS = 250
"""With one order; the kernel would take three more."""
_END_TIMEOUT_S = 20.0
_SET_CHILD_SUBREAPER, _GET_CHILD_SUBREAPER = 36, 37

_USUAL = (None, None, True, False, None, None, None, -1)
"""Executable, function before it, closing of descriptors, shell, identity: where nothing is said of them."""

_libc = ctypes.CDLL(None)
_start: Any = vars(subprocess.Popen)["_execute_child"]
_nurseries: tuple[Nursery, ...] = ()


@contextmanager
def programs_by_fork(
    programs: Collection[str], preload: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> Iterator[None]:
    """Start these modules by fork, from a process that has imported ``preload``; see this package.

    ``environment`` is that of the process: programs shall have the same of what an interpreter reads.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", "-m", "testkit.forked.nursery", str(theirs.fileno()), ",".join(programs)]
    with closing(theirs):
        # Ctrl-C at the terminal is for the tests, which then end this process, too.
        process = subprocess.Popen(
            [*command, *preload],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            process_group=0,
            env=environment,
        )
    nursery = Nursery(ours, programs, environment)
    start_by_fork(*_nurseries, nursery)
    try:
        yield
    finally:
        start_by_fork(*(each for each in _nurseries if each is not nursery))
        ours.close()
        process.wait(_END_TIMEOUT_S)


@contextmanager
def started_as_ever() -> Iterator[None]:
    """Start everything by a new interpreter in spite of :func:`programs_by_fork`."""
    before = _nurseries
    start_by_fork()
    try:
        yield
    finally:
        start_by_fork(*before)


def start_by_fork(*nurseries: Nursery) -> None:
    """Let `subprocess` ask ``nurseries`` from now on, and nobody else."""
    global _nurseries
    _nurseries = nurseries
    # The one method that makes the child. Pipes, waiting and signals stay what they are, and asyncio's, too.
    started_by = _execute_child if nurseries else _start
    subprocess.Popen._execute_child = started_by  # type: ignore[attr-defined]  # noqa: SLF001


class Nursery:
    """The process that programs are forked from, for one that starts them."""

    def __init__(
        self, channel: socket.socket, programs: Collection[str], environment: Mapping[str, str]
    ) -> None:
        self._channel = channel
        self._programs = frozenset(programs)
        self._read_at_start = read_at_start(environment)
        self._lock = threading.Lock()

    def takes(self, words: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether the command is one of its programs, for an interpreter as its own is."""
        match words:
            case [sys.executable, "-m", program, *_] | [sys.executable, "-P", "-m", program, *_]:
                return program in self._programs and read_at_start(environment) == self._read_at_start
        return False

    def start(self, order: Order, fds: Sequence[int]) -> int:
        """Return the process id of a new child of this process.

        Raises:
            OSError: it cannot be what is ordered.
        """
        memory = os.memfd_create("order")
        try:
            os.pwrite(memory, order.written(), 0)
            with self._lock, _taking_orphans():
                self._ask(memory, *fds)
            answer = json.loads(os.pread(memory, os.fstat(memory).st_size, 0))
        finally:
            os.close(memory)
        pid: int = answer["pid"]
        if "errno" in answer:
            os.waitpid(pid, 0)
            raise OSError(answer["errno"], os.strerror(answer["errno"]), answer["filename"])
        return pid

    def _ask(self, *fds: int) -> None:
        with suppress(ConnectionError):
            socket.send_fds(self._channel, [b"."], fds)
            if self._channel.recv(1):
                return
        raise ChildProcessError("the process that programs are forked from has ended")


@contextmanager
def _taking_orphans() -> Iterator[None]:
    """Be the one to whom the kernel gives descendants whose parent has ended."""
    before = ctypes.c_int()
    _libc.prctl(_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        _libc.prctl(_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def _execute_child(
    self: subprocess.Popen[Any],
    args: Any,
    executable: Any,
    preexec_fn: Any,
    close_fds: bool,
    pass_fds: Collection[int],
    cwd: Any,
    env: Mapping[Any, Any] | None,
    startupinfo: Any,
    creationflags: int,
    shell: bool,
    *pipes_and_identity: Any,
) -> None:
    *pipes, _, gid, gids, uid, umask, start_new_session, process_group = pipes_and_identity
    environment = _decoded(os.environ if env is None else env)
    words = [os.fsdecode(word) for word in args] if isinstance(args, list | tuple) else []
    usual = (executable, preexec_fn, close_fds, shell, gid, gids, uid, umask) == _USUAL
    nursery = next((each for each in _nurseries if each.takes(words, environment)), None) if usual else None
    if nursery is None:
        others = (pass_fds, cwd, env, startupinfo, creationflags, shell, *pipes_and_identity)
        _start(self, args, executable, preexec_fn, close_fds, *others)
        return
    p2cread, _, _, c2pwrite, _, errwrite = pipes
    ends = [number if end == -1 else end for number, end in enumerate((p2cread, c2pwrite, errwrite))]
    module_at = words.index("-m") + 1
    order = Order(
        safe_path="-P" in words[:module_at],
        module=words[module_at],
        arguments=words[module_at + 1 :],
        environment=environment,
        working_directory=str(Path(os.fsdecode(cwd or ".")).absolute()),
        descriptors=[0, 1, 2, *pass_fds],
        new_session=start_new_session,
        group=os.getpgrp() if process_group == -1 else process_group,
        inherited=Inherited.of_this_process(),
    )
    self.pid = nursery.start(order, [*ends, *pass_fds])
    self._child_created = True  # type: ignore[attr-defined]
    self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _decoded(environment: Mapping[Any, Any]) -> dict[str, str]:
    return {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
