"""The contract of circuit breakers, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.circuit_breaker import CircuitBreakerContract
from testkit.contracts.references.circuit_breaker import MemoryBreakerHarness


class TestReference(CircuitBreakerContract, level=2, lacks={"backoff": "its open time is constant"}):
    @pytest.fixture
    def harness(self) -> MemoryBreakerHarness:
        return MemoryBreakerHarness()
