"""What the stories have in common: the POP they run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.processes import Pop
from testkit.process import ProcessFactory


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="run the stories about load in full: 200,000 requests, 30 s of new connections, 1 GiB",
    )


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether stories about load are to run at full length."""
    return bool(request.config.getoption("full"))


@pytest.fixture
def pop(tmp_path: Path, process_factory: ProcessFactory) -> Pop:
    """Return a POP in region ``eu`` with an empty folder; what it starts is stopped with the test."""
    return Pop(tmp_path, process_factory)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage out of the processes that the test starts, for it would slow them down."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
