"""Clients knock, machines wake, what is said gets through: on real connections, once with real processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random

import pytest

from examples.log.compute import Address, Compute, Launch, State
from examples.log.door import LOGIN_TIMEOUT_S, Door, Project
from examples.log.mysql import SALT_BYTES, greeting, read_packet
from examples.log.tests.unit.test_mysql import WITH_PASSWORD, WITHOUT_DATABASE
from testkit.process import Process, ProcessFactory
from testkit.virtual_time import run as run_in_virtual_time
from testkit.wait import wait_until_async

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SALT = bytes(range(1, SALT_BYTES + 1))
ECHO = """
import asyncio
async def serve(reader, writer):
    while piece := await reader.read(65536):
        writer.write(piece)
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("listening on", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class EchoMachine:
    """A server in this event loop."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def address(self) -> Address:
        host, port = self._server.sockets[0].getsockname()
        return (host, port)

    async def stop(self) -> None:
        self._server.close()


async def launch(project: str) -> EchoMachine:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{project}: ".encode())
        while piece := await reader.read(1 << 16):
            writer.write(piece)
        writer.write_eof()
        writer.close()

    return EchoMachine(await asyncio.start_server(serve, "127.0.0.1", 0))


async def launch_nothing(project: str) -> EchoMachine:
    raise OSError(f"no machine for {project}")


@asynccontextmanager
async def door_to(
    projects: Mapping[str, Launch], *, idle_s: float = 300.0
) -> AsyncIterator[tuple[Callable[[], asyncio.Future[Streams]], dict[str, Compute]]]:
    """Yield how to knock, and the computing of each project; ``ada`` may use all but those of others."""
    computing = {name: Compute(name, start, idle_s=idle_s) for name, start in projects.items()}
    users = {name: frozenset({"eve"} if name.startswith("others") else {"ada"}) for name in projects}
    door = Door({name: Project(each, users[name]) for name, each in computing.items()}, lambda _: SALT)
    server = await asyncio.start_server(door.serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    try:
        yield (lambda: asyncio.ensure_future(asyncio.open_connection(*address))), computing
    finally:
        server.close()
        for each in computing.values():
            await each.close()


def login(database: str) -> bytes:
    return WITH_PASSWORD.replace(b"shop", database.encode().ljust(4))


async def refused(streams: Streams, sent: bytes) -> bytes:
    """What is said to a login, after the greeting, until the end."""
    reader, writer = streams
    assert await read_packet(reader) == greeting(SALT)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    return answer


async def test_connection_wakes_the_project_that_it_names_and_gets_through(rng: Random) -> None:
    async with door_to({"shop": launch, "blog": launch_nothing}) as (knock, computing):
        reader, writer = await knock()
        assert await read_packet(reader) == greeting(SALT)
        assert computing["shop"].states == [State.SUSPENDED]
        sent = rng.randbytes(1 << 18)
        writer.write(WITH_PASSWORD + sent)
        writer.write_eof()
        assert await reader.read() == b"shop: " + greeting(SALT) + WITH_PASSWORD + sent
        writer.close()
        assert computing["shop"].states == [State.RUNNING]
        assert computing["blog"].states == [State.SUSPENDED]


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (login("none"), b"#42000Unknown database 'none'"),
        (WITHOUT_DATABASE, b"#42000Unknown database ''"),
        (login("blog"), b"#08S01blog cannot be reached"),
        (login("others"), b"#42000Access denied for user 'ada'"),
    ],
)
async def test_client_that_cannot_be_let_in_is_told_why(sent: bytes, says: bytes) -> None:
    async with door_to({"blog": launch_nothing, "others": launch}) as (knock, computing):
        if b"others" in sent:
            # One character more than the recorded login had.
            sent = len(sent[4:]).to_bytes(3, "little") + sent[3:]
        assert (await refused(await knock(), sent)).endswith(says)
        assert all(each.states == [State.SUSPENDED] for each in computing.values())


async def test_one_tenants_failure_is_nothing_to_another() -> None:
    async with door_to({"shop": launch, "blog": launch_nothing}) as (knock, _):
        assert b"cannot be reached" in await refused(await knock(), login("blog"))
        reader, writer = await knock()
        writer.write(WITH_PASSWORD)
        writer.write_eof()
        assert (await reader.read()).endswith(WITH_PASSWORD)
        writer.close()


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x05\0\0\x01short"])
async def test_what_is_no_login_ends_the_connection(sent: bytes) -> None:
    async with door_to({"shop": launch}) as (knock, computing):
        assert await refused(await knock(), sent) == b""
        assert computing["shop"].states == [State.SUSPENDED]


def test_client_that_says_nothing_is_not_waited_for() -> None:
    async def story() -> None:
        async with door_to({"shop": launch}) as (knock, _):
            loop = asyncio.get_running_loop()
            reader, writer = await knock()
            began_s = loop.time()
            await reader.read()
            assert loop.time() - began_s == pytest.approx(LOGIN_TIMEOUT_S, abs=1)
            writer.close()

    run_in_virtual_time(story())


async def test_client_that_breaks_off_leaves_a_machine_that_becomes_idle() -> None:
    async with door_to({"shop": launch}, idle_s=0.01) as (knock, computing):
        reader, writer = await knock()
        await read_packet(reader)
        writer.write(WITH_PASSWORD)
        await reader.readexactly(len(b"shop: "))
        writer.transport.abort()
        await wait_until_async(
            lambda: computing["shop"].states == [State.SUSPENDED], reason="the machine to be suspended"
        )


class ProcessMachine:
    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.address = ("127.0.0.1", port)

    async def stop(self) -> None:
        await asyncio.to_thread(self.process.stop)


async def test_real_process_is_started_suspended_and_started_again(process_factory: ProcessFactory) -> None:
    processes: list[Process] = []

    async def start(project: str) -> ProcessMachine:
        process = process_factory([sys.executable, "-c", ECHO], name=project)
        processes.append(process)
        port = await asyncio.to_thread(process.wait_output, r"listening on (\d+)")
        return ProcessMachine(process, int(port[1]))

    async with door_to({"shop": start}, idle_s=0.05) as (knock, computing):
        for number in range(2):
            reader, writer = await knock()
            writer.write(WITH_PASSWORD)
            writer.write_eof()
            assert (await reader.read()).endswith(WITH_PASSWORD)
            writer.close()
            await wait_until_async(
                lambda: computing["shop"].states == [State.SUSPENDED], reason="the process to be suspended"
            )
            assert not processes[number].running
        usages = computing["shop"].usage
        assert [usage.ended_s is not None for usage in usages] == [True, True]
        assert all((usage.resumed_in_s or 0) > 0 for usage in usages)
