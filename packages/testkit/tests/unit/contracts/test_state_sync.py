"""The contract of shared state, held by the reference."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from testkit.contracts.references.state_sync import MemoryStateHarness
from testkit.contracts.state_sync import StateSyncContract


class TestReference(StateSyncContract):
    @pytest.fixture
    async def harness(self) -> AsyncIterator[MemoryStateHarness]:
        async with MemoryStateHarness() as harness:
            yield harness
