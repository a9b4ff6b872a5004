"""The checks of one backend hold testkit's contract of judges of health."""

from __future__ import annotations

import pytest

from edgeproxy.core.controlplane.health import Health, HealthSettings
from testkit.contracts.health_thresholds import HealthThresholdsContract, Status


class Judge:
    def __init__(self, rise: int, fall: int) -> None:
        self._health = Health(HealthSettings(healthy_threshold=rise, unhealthy_threshold=fall))

    @property
    def status(self) -> Status:
        return Status(self._health.status.value)

    def checked(self, is_good: bool) -> bool:
        return self._health.checked(None if is_good else "refused")


class Harness:
    def open(self, rise: int, fall: int) -> Judge:
        return Judge(rise, fall)


@pytest.mark.feature("health.checks")
class TestHealth(HealthThresholdsContract):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness()
