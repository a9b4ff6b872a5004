"""What the tests of the log share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testkit.forked import programs_by_fork


@pytest.fixture(scope="session", autouse=True)
def _programs_by_fork() -> Iterator[None]:
    """Start the program in a fraction of the time, most of which its libraries take."""
    with programs_by_fork(["examples.log"], ["asyncio", "msgspec", "sqlite3"]):
        yield
