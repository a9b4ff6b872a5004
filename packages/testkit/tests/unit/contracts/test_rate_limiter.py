"""The contract of rate limiters, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.rate_limiter import RateLimiterContract
from testkit.contracts.references.rate_limiter import MemoryLimiters


class TestReference(RateLimiterContract):
    @pytest.fixture
    def harness(self) -> MemoryLimiters:
        return MemoryLimiters()
