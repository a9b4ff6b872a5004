"""The contract of byte streams, held by the reference."""

from __future__ import annotations

import asyncio

import pytest

from testkit.contracts.byte_stream import ByteStreamContract
from testkit.contracts.references.byte_stream import MemoryRelay
from testkit.virtual_time import VirtualTimeLoop


class TestReference(ByteStreamContract):
    @pytest.fixture
    def harness(self) -> MemoryRelay:
        return MemoryRelay()


def test_nothing_of_a_connection_that_is_over_is_kept() -> None:
    relay = MemoryRelay()

    async def story() -> int:
        for is_orderly in (True, False):
            near = await relay.connect()
            far = await relay.accept()
            await near.send(b"question")
            await far.receive()
            await (near.close() if is_orderly else near.reset())
            await far.close()
        await asyncio.sleep(1)
        return len(relay._serving)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(story()) == 0
