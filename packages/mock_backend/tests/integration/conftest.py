"""What the tests of running backends share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testkit.forked import programs_by_fork


@pytest.fixture(scope="session", autouse=True)
def _programs_by_fork() -> Iterator[None]:
    """Start backends in a fraction of the time."""
    with programs_by_fork(["mock_backend"], ["mock_backend.server"]):
        yield
