"""Pipes that bytes pass through."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.worker import pipes as module
from edgeproxy.worker.pipes import Pipe, Pipes


def pass_through(pipe: Pipe, data: bytes) -> bytes:
    os.write(pipe.write_fd, data)
    return os.read(pipe.read_fd, len(data))


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def taken(pipes: Pipes) -> Pipe:
    pipe = pipes.take()
    assert pipe is not None
    return pipe


def test_an_empty_pipe_is_used_again() -> None:
    pipes = Pipes()
    first = taken(pipes)
    assert pass_through(first, b"hello") == b"hello"
    pipes.put_back(first)
    assert (pipes.in_use, pipes.idle) == (0, 1)
    assert taken(pipes) is first
    assert (pipes.in_use, pipes.idle) == (1, 0)


def test_a_pipe_that_holds_bytes_is_closed() -> None:
    pipes = Pipes()
    pipe = taken(pipes)
    ends = (pipe.read_fd, pipe.write_fd)
    pipe.filled_bytes = os.write(pipe.write_fd, b"of somebody")
    pipes.put_back(pipe)
    del pipe
    assert not any(map(is_open, ends))
    assert (pipes.in_use, pipes.idle) == (0, 0)


def test_few_are_kept_for_later() -> None:
    pipes = Pipes()
    busy = [taken(pipes) for _ in range(module._IDLE_LIMIT + 3)]
    while busy:
        pipes.put_back(busy.pop())
    assert (pipes.in_use, pipes.idle) == (0, module._IDLE_LIMIT)


def test_there_are_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_LIMIT", 2)
    pipes = Pipes()
    one, other = taken(pipes), taken(pipes)
    assert pipes.take() is None
    pipes.put_back(one)
    assert pipes.take() is one
    assert other is not one


def test_slow_readers_claim_no_more_than_64_mib() -> None:
    pipe = taken(Pipes())
    assert pipe.capacity_bytes * module._OPEN_LIMIT <= 64 << 20


def test_a_pipe_is_as_large_as_every_user_may_have() -> None:
    allowed_bytes = int(Path("/proc/sys/fs/pipe-max-size").read_text())
    assert taken(Pipes()).capacity_bytes == min(allowed_bytes, 1 << 20)


def test_without_descriptors_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    pipes = Pipes()
    assert pipes.take() is None
    assert pipes.in_use == 0


def fcntl_with(answers: dict[int, int | OSError]) -> Callable[..., int]:
    def answer(_fd: int, operation: int, _argument: int = 0) -> int:
        result = answers[operation]
        if isinstance(result, OSError):
            raise result
        return result

    return answer


@pytest.mark.parametrize(("granted_bytes", "is_usable"), [(1 << 16, True), (1 << 13, False)])
def test_a_pipe_of_usual_size_will_do_but_no_smaller_one(
    monkeypatch: pytest.MonkeyPatch, granted_bytes: int, is_usable: bool
) -> None:
    refused = PermissionError(1, "Operation not permitted")
    monkeypatch.setattr(
        fcntl, "fcntl", fcntl_with({fcntl.F_SETPIPE_SZ: refused, fcntl.F_GETPIPE_SZ: granted_bytes})
    )
    pipe = Pipes().take()
    assert (pipe is not None) == is_usable
    assert pipe is None or pipe.capacity_bytes == granted_bytes
