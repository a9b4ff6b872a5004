"""The contract of just-in-time users, held by the reference; the chat among the examples has it on SQLite."""

from __future__ import annotations

import pytest

from testkit.contracts.provisioning import ProvisioningContract
from testkit.contracts.references.provisioning import MemoryProvisioning


class TestReference(ProvisioningContract):
    @pytest.fixture
    def harness(self) -> MemoryProvisioning:
        return MemoryProvisioning()
