"""What the stories have in common: the POP they run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.processes import Pop
from testkit.process import ProcessFactory


@pytest.fixture
def pop(tmp_path: Path, process_factory: ProcessFactory) -> Pop:
    """Return a POP in region ``eu`` with an empty folder; what it starts is stopped with the test."""
    return Pop(tmp_path, process_factory)
