"""The contract of connection pools, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.connection_pool import ConnectionPoolContract
from testkit.contracts.references.connection_pool import MemoryHarness


class TestReference(ConnectionPoolContract, level=2):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()
