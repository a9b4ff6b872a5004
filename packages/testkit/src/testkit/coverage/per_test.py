"""A plugin for pytest that measures each test in a context of its own.

``pytest -p testkit.coverage.per_test`` loads it. Processes that a test starts are measured in its context,
too.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import coverage
import pytest

_INHERITED = "COVERAGE_PROCESS_CONFIG"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Name the context like the test while it runs, fixtures included."""
    with in_context(item.nodeid):
        return (yield)


@contextmanager
def in_context(name: str) -> Iterator[None]:
    """Measure this process and those it starts in the context ``name``; without measurement, do nothing."""
    measuring = coverage.Coverage.current()
    inherited = os.environ.get(_INHERITED)
    if measuring is not None:
        measuring.switch_context(name)
    if inherited is not None:
        os.environ[_INHERITED] = _with_context(inherited, name)
    try:
        yield
    finally:
        if inherited is not None:
            os.environ[_INHERITED] = inherited
        if measuring is not None:
            measuring.switch_context("")


def _with_context(serialized: str, name: str) -> str:
    # The form in which coverage.py hands its settings to child processes (patch = subprocess).
    settings = json.loads(base64.b64decode(serialized))
    settings["context"] = name
    return base64.b64encode(json.dumps(settings).encode()).decode()
