"""Keeps the measurements of the process that runs these tests."""

from __future__ import annotations

import coverage


def pytest_sessionfinish() -> None:
    """Save what this process measured, before it ends.

    The code under test makes ``Coverage`` objects. With the first of them coverage.py stops saving at exit
    what it measures by itself in a child process, which a worker of xdist is.
    """
    measuring = coverage.Coverage.current()
    if measuring is not None:
        measuring.save()
