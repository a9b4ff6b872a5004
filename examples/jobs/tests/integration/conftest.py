"""Three Valkey servers that write everything down, shared by the tests of a process; and quick programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from testkit.forked import programs_by_fork
from testkit.valkey import ValkeyServer, valkey_server


@pytest.fixture(scope="session", autouse=True)
def _programs_by_fork() -> Iterator[None]:
    """Start the program in a fraction of the time, most of which its libraries take."""
    with programs_by_fork(["examples.jobs"], ["redis.asyncio", "saq.queue.redis"]):
        yield


@pytest.fixture(scope="session")
def three_servers(valkey_program: Path) -> Iterator[list[ValkeyServer]]:
    with ExitStack() as running:
        yield [running.enter_context(valkey_server(valkey_program, durable=True)) for _ in range(3)]


@pytest.fixture
def servers(three_servers: list[ValkeyServer]) -> list[ValkeyServer]:
    """All up, and empty."""
    for server in three_servers:
        if not server.running:
            server.start()
        server.empty()
    return three_servers


@pytest.fixture
async def clients(servers: list[ValkeyServer]) -> AsyncIterator[list[Redis]]:
    # Once more: the first attempt may find the connection to a server that has been restarted.
    clients = [Redis.from_url(server.url, retry=Retry(NoBackoff(), 1)) for server in servers]
    yield clients
    for client in clients:
        await client.aclose()
