"""The contract of judges of health, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.health_thresholds import HealthThresholdsContract
from testkit.contracts.references.health_thresholds import MemoryJudges


class TestReference(HealthThresholdsContract):
    @pytest.fixture
    def harness(self) -> MemoryJudges:
        return MemoryJudges()
