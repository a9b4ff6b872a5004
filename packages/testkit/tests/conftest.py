"""What runs of pytest within tests load, and the measurements of the process that runs these tests."""

from __future__ import annotations

import coverage
import pytest


@pytest.fixture
def testkits_plugin_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the runs that a test starts: to load all that this environment has takes seconds."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "testkit.plugin")


def pytest_sessionfinish() -> None:
    """Save what this process measured, before it ends.

    The code under test makes ``Coverage`` objects. With the first of them coverage.py stops saving at exit
    what it measures by itself in a child process, which a worker of xdist is.
    """
    measuring = coverage.Coverage.current()
    if measuring is not None:
        measuring.save()
