"""Names through the system's resolver: found, not found, and never in anybody's way."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from edgeproxy.outbound.resolver_system import SystemResolver


async def test_finds_the_addresses_of_a_name_each_once() -> None:
    addresses = await SystemResolver().resolve("localhost")
    assert set(addresses) & {"127.0.0.1", "::1"}
    assert len(addresses) == len(set(addresses))


async def test_an_address_is_its_own() -> None:
    assert await SystemResolver().resolve("192.0.2.7") == ("192.0.2.7",)


@pytest.mark.parametrize("name", ["no-such-host.invalid", "." * 300, "ä" * 100])
async def test_a_name_that_has_no_address_gives_none(name: str) -> None:
    assert await SystemResolver().resolve(name) == ()


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.look_up)
    return server


class NameServer:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked = threading.Semaphore(0)
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def look_up(self, _host: str, _port: None, **_options: Any) -> list[Any]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        self.asked.release()
        assert self.answer.wait(10)
        with self._lock:
            self._at_once -= 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]


async def test_a_name_server_that_does_not_answer_holds_up_nothing_else(name_server: NameServer) -> None:
    resolver = SystemResolver()
    lookups = [asyncio.create_task(resolver.resolve(f"name-{number}")) for number in range(40)]
    await asyncio.to_thread(name_server.asked.acquire)
    # The loop's own threads are free.
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 10) == "done"
    name_server.answer.set()
    assert await asyncio.gather(*lookups) == [("192.0.2.1",)] * 40
    assert name_server.most_at_once == 16


def test_a_look_up_under_way_keeps_no_process_from_ending(name_server: NameServer) -> None:
    async def give_up() -> None:
        lookup = asyncio.create_task(SystemResolver().resolve("name"))
        await asyncio.to_thread(name_server.asked.acquire)
        lookup.cancel()

    asyncio.run(give_up())
    (thread,) = [each for each in threading.enumerate() if each.name == "resolve name"]
    assert thread.daemon
    # The answer comes when nobody is there any more, which is no error.
    name_server.answer.set()
    thread.join(10)
    assert not thread.is_alive()


async def test_an_answer_to_a_question_that_was_given_up_is_dropped(name_server: NameServer) -> None:
    lookup = asyncio.create_task(SystemResolver().resolve("name"))
    await asyncio.to_thread(name_server.asked.acquire)
    lookup.cancel()
    name_server.answer.set()
    (thread,) = [each for each in threading.enumerate() if each.name == "resolve name"]
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    assert lookup.cancelled()
