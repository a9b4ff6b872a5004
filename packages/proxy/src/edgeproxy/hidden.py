"""Imports without what would be taken along for nothing, where it is installed, and takes long to import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(module: str) -> Iterator[None]:
    """Let nothing import ``module`` within the block, as if it were not installed; unless it has been."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # so `import` is told that there is none
    try:
        yield
    finally:
        del sys.modules[module]
