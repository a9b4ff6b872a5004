"""Virtual time and real sockets: what is on its way is waited for, what is idle is not."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable

import pytest

from testkit.virtual_time import DeadlockError, _under_way, real_time, run, virtual_time

HEARTBEAT_S = 90.0


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def drop_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo lines; whoever says nothing for 90 s is dropped."""
    try:
        while line := await asyncio.wait_for(reader.readline(), HEARTBEAT_S):
            writer.write(line)
    except TimeoutError:
        writer.write(b"too late\n")
    finally:
        writer.close()


@virtual_time
async def test_heartbeat_of_90_seconds_is_tested_in_none() -> None:
    began_s = time.monotonic()
    server = await asyncio.start_server(drop_silent, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    for _ in range(5):
        writer.write(b"alive\n")
        assert await reader.readline() == b"alive\n"
        await asyncio.sleep(HEARTBEAT_S - 1)
    assert now_s() == 5 * (HEARTBEAT_S - 1)
    assert await reader.read() == b"too late\n"
    # From the last line that was heard.
    assert now_s() == 5 * HEARTBEAT_S - 4
    writer.close()
    await writer.wait_closed()
    server.close()
    assert time.monotonic() - began_s < HEARTBEAT_S


@virtual_time
async def test_megabytes_on_their_way_are_waited_for() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = 0
        while chunk := await reader.read(1 << 16):
            received += len(chunk)
        writer.write(str(received).encode())
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    async with asyncio.timeout(0.001):
        writer.write(b"x" * (8 << 20))
        writer.write_eof()
        assert await reader.read() == str(8 << 20).encode()
    writer.close()
    await writer.wait_closed()
    server.close()


@virtual_time
async def test_answer_from_outside_is_waited_for_within_real_time() -> None:
    here, there = socket.socketpair()
    go = threading.Event()

    def answer() -> None:
        go.wait(30)
        there.sendall(b"answer")

    outside = threading.Thread(target=answer)
    outside.start()
    reader, writer = await asyncio.open_connection(sock=here)
    asyncio.get_running_loop().call_later(0.1, go.set)
    with real_time():
        async with asyncio.timeout(30):
            assert await reader.readexactly(6) == b"answer"
    outside.join()
    writer.close()
    await writer.wait_closed()
    there.close()


def test_who_is_outside_gets_a_moment_before_each_jump() -> None:
    async def story() -> float:
        here, there = socket.socketpair()
        heard = asyncio.Event()
        asyncio.get_running_loop().add_reader(here, heard.set)
        # Not before the loop has seen that there is nothing yet.
        sender = threading.Timer(0.05, there.sendall, args=(b"x",))
        sender.start()
        async with asyncio.timeout(86_400):
            await heard.wait()
        asyncio.get_running_loop().remove_reader(here)
        sender.join()
        here.close()
        there.close()
        return now_s()

    assert run(story(), patience_s=30) == 0.0


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: socket.create_server(("127.0.0.1", 0)), False),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM), True),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), True),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), True),
    ],
    ids=["listening", "not connected", "datagrams", "unix"],
)
def test_what_may_have_something_under_way(make: Callable[[], socket.socket], expected: bool) -> None:
    with make() as one:
        assert _under_way(iter([one.fileno()])) is expected


@virtual_time
async def test_connection_to_where_nobody_answers_runs_into_its_timeout() -> None:
    # A queue for accepted connections that is full: the kernel leaves further ones without an answer.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers: list[asyncio.StreamWriter] = []

        async def fill() -> None:
            while True:
                _, writer = await asyncio.open_connection(*listener.getsockname())
                fillers.append(writer)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fill(), 60)
        assert now_s() == 60.0
        for writer in fillers:
            writer.close()
            await writer.wait_closed()


def test_server_that_nobody_connects_to_is_a_deadlock() -> None:
    async def serve() -> None:
        server = await asyncio.start_server(drop_silent, "127.0.0.1", 0)
        async with server:
            await server.serve_forever()

    with pytest.raises(DeadlockError, match=r"serve_forever"):
        run(serve())


@virtual_time
async def test_child_processes_can_be_waited_for() -> None:
    child = await asyncio.create_subprocess_exec("true")
    with real_time():
        assert await child.wait() == 0


@virtual_time
async def test_pipe_of_a_child_is_read_while_time_stands_still() -> None:
    child = await asyncio.create_subprocess_exec("echo", "said", stdout=asyncio.subprocess.PIPE)
    with real_time():
        said, _ = await child.communicate()
    assert said == b"said\n"
