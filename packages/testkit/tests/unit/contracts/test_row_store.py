"""The contract of stores of rows, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.references.row_store import MemoryHarness
from testkit.contracts.row_store import RowStoreContract


class TestReference(RowStoreContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()
