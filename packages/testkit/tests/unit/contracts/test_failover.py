"""The contract of failover, held by the reference on nodes in memory."""

from __future__ import annotations

import pytest

from testkit.contracts.failover import FailoverContract
from testkit.contracts.references.failover import MemoryHarness


class TestReference(FailoverContract, level=2):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()
