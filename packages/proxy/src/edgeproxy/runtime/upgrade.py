"""Starting the successor of this control process, and waiting until it serves."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import monotonic

from edgeproxy.errors import EdgeproxyError
from edgeproxy.ports import UPGRADE_TIMEOUT_S
from edgeproxy.runtime.handover import Estate, Refused, TakenOver, environment, read_answer, written

RECLAIM_INTERVAL_S = 1.0
_EXIT_POLL_S = 0.01
_LAST_WORDS_S = 2.0
_READ_BYTES = 64 << 10


class Successor:
    """A control process that serves in place of this one. While it is referred to, it knows that this one
    has not ended."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket, version: str) -> None:
        self._process = process
        self._channel = channel
        self.pid = process.pid
        self.version = version


def command_line() -> list[str]:
    """The command that started this process, for the interpreter that runs it."""
    return [sys.executable, *sys.orig_argv[1:]]


async def reclaim_rows(reclaim: Callable[[], int]) -> None:
    """Free the rows that former control processes and their workers have left, again and again."""
    while True:
        reclaim()
        await asyncio.sleep(RECLAIM_INTERVAL_S)


async def start_successor(
    command: Sequence[str], estate: Estate, timeout_s: float = UPGRADE_TIMEOUT_S
) -> Successor:
    """Start ``command``, hand it the estate, and return when it serves.

    Raises:
        EdgeproxyError: it cannot be started or refused; it has ended, and all is as it was before.
    """
    if os.getpid() == 1:
        raise EdgeproxyError(
            "cannot upgrade: the proxy is process 1 here, with whose end the container ends; "
            "run it under an init process, or replace the container"
        )
    process, channel = _start(command, estate)
    channel.setblocking(False)
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _hand_over(channel, estate)
    except TimeoutError:
        process.terminate()
        answer = Refused(f"it was not ready after {timeout_s:g} s")
    except BaseException:
        process.terminate()
        raise
    if isinstance(answer, TakenOver):
        return Successor(process, channel, answer.version)  # feature: process.upgrade
    channel.close()
    await _end(process)
    raise EdgeproxyError(f"the successor cannot start, so this proxy goes on: {answer.why}")


def _start(command: Sequence[str], estate: Estate) -> tuple[subprocess.Popen[bytes], socket.socket]:
    channel, theirs = socket.socketpair()
    descriptors = [fd for each in estate.bequests for fd in each.descriptors]
    with theirs:
        try:
            process = subprocess.Popen(
                command,
                env=environment(theirs.fileno()),
                pass_fds=(theirs.fileno(), estate.segment_fd, *descriptors),
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            channel.close()
            raise EdgeproxyError(f"cannot start {command[0]}: {error.strerror}") from error
    return process, channel


async def _hand_over(channel: socket.socket, estate: Estate) -> TakenOver | Refused:
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(channel, written(estate))
        return read_answer(await loop.sock_recv(channel, _READ_BYTES))
    except ConnectionError:
        return read_answer(b"")


async def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process that refused end by itself for a moment, so that it can say why, then kill it."""
    kill_at_s = monotonic() + _LAST_WORDS_S
    while process.poll() is None:
        if monotonic() > kill_at_s:
            process.kill()
        await asyncio.sleep(_EXIT_POLL_S)
