"""The contract of membership, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.membership import MembershipContract
from testkit.contracts.references.membership import MemoryNetwork


class TestReference(MembershipContract):
    @pytest.fixture
    def harness(self) -> MemoryNetwork:
        return MemoryNetwork()
