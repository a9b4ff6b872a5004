"""Our shared state on a real server, held to testkit's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from examples.jobs.state import ConflictError, Namespaces, ValkeyState
from testkit.contracts.state_sync import Entry, StateSyncContract
from testkit.valkey import ValkeyServer


class ValkeyStateHarness:
    conflict = ConflictError

    def __init__(self, server: ValkeyServer) -> None:
        self._server = server
        self._client = Redis.from_url(server.url)
        self._opened: list[tuple[Redis, ValkeyState]] = []

    def open(self, namespace: str = "default") -> ValkeyState:
        client = Redis.from_url(self._server.url)
        self._opened.append((client, ValkeyState(client, namespace, made=Entry)))
        return self._opened[-1][1]

    def manager(self) -> Namespaces:
        return Namespaces(self._client, made=Entry)

    async def pass_time(self, seconds: float) -> None:
        self._server.pass_time(seconds)

    async def announce_rubbish(self, namespace: str = "default") -> None:
        for rubbish in ("{", "marker\nnobody's", "x\n{\n[", "1\n\nnull", ""):
            await self._client.publish(f"changes:{namespace}", rubbish)

    async def close(self) -> None:
        for client, state in self._opened:
            await state.stop()
            await client.aclose()
        await self._client.aclose()


async def test_when_one_namespace_cannot_be_started_none_is(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise ConnectionError("on purpose")

    client = Redis.from_url(valkey.url)
    states = Namespaces(client)
    first, second = states.namespace("a"), states.namespace("b")
    monkeypatch.setattr(second, "start", fail)
    with pytest.raises(ConnectionError):
        await states.start()
    assert await client.pubsub_numsub("changes:a") == [(b"changes:a", 0)]
    await first.stop()
    await client.aclose()


class TestValkeyState(StateSyncContract):
    @pytest.fixture
    async def harness(self, valkey: ValkeyServer) -> AsyncIterator[ValkeyStateHarness]:
        harness = ValkeyStateHarness(valkey)
        yield harness
        await harness.close()
