"""The contract of distributed locks, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.distributed_lock import DistributedLockContract
from testkit.contracts.references.distributed_lock import MemoryLockHarness


class TestReference(DistributedLockContract):
    @pytest.fixture
    def harness(self) -> MemoryLockHarness:
        return MemoryLockHarness()
