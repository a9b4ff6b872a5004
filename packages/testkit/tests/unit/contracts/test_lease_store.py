"""The contract of stores of leases, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.lease_store import LeaseStoreContract
from testkit.contracts.references.lease_store import MemoryHarness


class TestReference(LeaseStoreContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()
