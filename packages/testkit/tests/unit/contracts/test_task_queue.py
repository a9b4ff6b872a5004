"""The contract of task queues, held by the reference."""

from __future__ import annotations

import pytest

from testkit.contracts.references.task_queue import MemoryQueueHarness
from testkit.contracts.task_queue import TaskQueueContract


class TestReference(TaskQueueContract):
    @pytest.fixture
    def harness(self) -> MemoryQueueHarness:
        return MemoryQueueHarness()
