"""The admin socket: who may use it, whose it is, and what it says to nonsense."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.errors import ListenError
from edgeproxy.inbound import admin
from edgeproxy.inbound.admin import MAX_CLIENTS, MAX_REQUEST_BYTES, AdminServer
from testkit.wait import wait_until_async


def double(request: dict[str, Any]) -> dict[str, Any]:
    number = request.get("number")
    if not isinstance(number, int):
        raise ValueError("double needs a number")
    return {"doubled": 2 * number}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


@pytest.fixture
async def server(path: Path) -> AsyncIterator[AdminServer]:
    made = AdminServer(path, {"double": double, "count": lambda _: 7})
    await made.start()
    yield made
    await made.stop()


class Client:
    """One connection to the server, line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, line: bytes) -> None:
        self.writer.write(line)
        await self.writer.drain()

    async def answer(self) -> Any:
        """The next answer, ``None`` at the end."""
        line = await asyncio.wait_for(self._reader.readline(), 10)
        return json.loads(line) if line else None


Connect = Callable[[], Awaitable[Client]]


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Connect]:
    clients: list[Client] = []

    async def open_one() -> Client:
        clients.append(Client(*await asyncio.open_unix_connection(path)))
        return clients[-1]

    yield open_one
    for client in clients:
        client.writer.close()


# ---- questions -----------------------------------------------------------------------------------


@pytest.mark.feature("administration.show")
@pytest.mark.usefixtures("server")
async def test_answers_one_question_after_the_other(connect: Connect) -> None:
    client = await connect()
    await client.send(b'{"command": "double", "number": 21}\n{"command": "count"}\n')
    assert await client.answer() == {"ok": True, "result": {"doubled": 42}}
    assert await client.answer() == {"ok": True, "result": 7}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\n", "Input data was truncated"),
        (b"nonsense\n", "JSON is malformed"),
        (b'"text"\n', "Expected `object`, got `str`"),
        (b'{"command": ' + b"[" * 10_000 + b"\n", "recursion"),
        (b"{}\n", "unknown command None; there are: count, double"),
        (b'{"command": "halve"}\n', "unknown command 'halve'; there are: count, double"),
        (b'{"command": ["double"]}\n', "unknown command ['double']; there are: count, double"),
        (b'{"command": "double"}\n', "double needs a number"),
        (b'{"command": "\xff"}\n', "utf-8"),
    ],
)
@pytest.mark.usefixtures("server")
async def test_says_what_is_wrong_with_a_question_and_answers_the_next(
    connect: Connect, line: bytes, error: str
) -> None:
    client = await connect()
    await client.send(line)
    answer = await client.answer()
    assert answer["ok"] is False
    assert error in answer["error"]
    await client.send(b'{"command": "count"}\n')
    assert (await client.answer())["ok"]


@pytest.mark.usefixtures("server")
async def test_a_line_that_is_too_long_is_refused(connect: Connect) -> None:
    client = await connect()
    await client.send(b" " * (2 * MAX_REQUEST_BYTES))
    assert await client.answer() == {"ok": False, "error": "a request has 65536 bytes at most"}
    assert await client.answer() is None


@pytest.mark.usefixtures("server")
async def test_many_clients_are_answered_and_one_too_many_is_told_so(connect: Connect) -> None:
    clients = [await connect() for _ in range(MAX_CLIENTS)]
    for client in clients:
        await client.send(b'{"command": "count"}\n')
    assert [(await client.answer())["result"] for client in clients] == [7] * MAX_CLIENTS
    late = await connect()
    assert await late.answer() == {"ok": False, "error": "32 clients are connected already"}
    assert await late.answer() is None
    # A place that is given up can be taken.
    clients[0].writer.close()

    async def is_answered() -> bool:
        client = await connect()
        await client.send(b'{"command": "count"}\n')
        try:
            return bool((await client.answer())["ok"])
        except ConnectionError:
            return False

    await wait_until_async(is_answered, reason="a free place")


@pytest.mark.usefixtures("server")
async def test_a_client_that_leaves_before_the_answer_harms_nobody(connect: Connect) -> None:
    rude = await connect()
    await rude.send(b'{"command": "count"}\n' * 1_000)
    rude.writer.transport.abort()
    polite = await connect()
    await polite.send(b'{"command": "count"}\n')
    assert (await polite.answer())["ok"]


async def test_a_silent_client_is_disconnected(
    server: AdminServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "_IDLE_S", 0.01)
    client = await connect()
    assert await client.answer() is None


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def made(path: Path) -> Path:
    path.touch()
    return path


def is_there(path: Path) -> bool:
    return path.is_socket()


# ---- the socket ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("server")
async def test_only_the_owner_can_connect(path: Path) -> None:
    assert mode(path) == 0o600
    # And files made later have the permissions that the user's umask gives.
    assert mode(made(path.parent / "later")) != 0o600


async def test_a_question_asked_before_the_start_is_answered(path: Path, connect: Connect) -> None:
    server = AdminServer(path, {"count": lambda _: 7})
    client = await connect()
    await client.send(b'{"command": "count"}\n')
    await server.start()
    assert (await client.answer())["result"] == 7
    await server.stop()


async def test_the_end_disconnects_clients_and_removes_the_socket(
    server: AdminServer, connect: Connect, path: Path
) -> None:
    client = await connect()
    await client.send(b'{"command": "count"}\n')
    await client.answer()
    await server.stop()
    assert await client.answer() is None
    assert not is_there(path)
    with pytest.raises(FileNotFoundError):
        await connect()


async def test_a_server_that_never_started_removes_its_socket_too(path: Path) -> None:
    server = AdminServer(path, {})
    assert is_there(path)
    await server.stop()
    assert not is_there(path)


def test_a_socket_that_a_killed_proxy_left_behind_is_taken(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    asyncio.run(start_and_stop(path))


async def start_and_stop(path: Path) -> None:
    server = AdminServer(path, {})
    await server.start()
    await server.stop()


async def test_the_socket_of_a_live_proxy_is_left_to_it(
    server: AdminServer, path: Path, connect: Connect
) -> None:
    with pytest.raises(ListenError, match="another proxy answers on it, or it is no socket"):
        AdminServer(path, {})
    client = await connect()
    await client.send(b'{"command": "count"}\n')
    assert (await client.answer())["ok"]


def test_a_path_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match=r"admin\.sock: No such file or directory; set EDGEPROXY_ADMIN_SOC"):
        AdminServer(tmp_path / "missing" / "admin.sock", {})
