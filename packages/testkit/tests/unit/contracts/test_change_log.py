"""The contract of change logs, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.change_log import ChangeLogContract
from testkit.contracts.references.change_log import LoggedHarness


class TestReference(ChangeLogContract):
    @pytest.fixture
    def harness(self) -> LoggedHarness:
        return LoggedHarness()
