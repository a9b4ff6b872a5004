"""The contract of programs that a supervisor starts, held by the reference; ours do in their packages."""

from __future__ import annotations

import pytest

from testkit.contracts.bootstrap import BootstrapContract
from testkit.contracts.references.bootstrap import MemoryBootstrap


class TestReference(BootstrapContract):
    @pytest.fixture
    def harness(self) -> MemoryBootstrap:
        return MemoryBootstrap()
