"""An event loop whose clock jumps ahead when all wait, so that contracts about time take none."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

HORIZON_S = 7 * 86_400.0
"""Whoever is not done by then never will be."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Begins at second 0. A loop in which everybody waits for somebody else fails instead of hanging."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now_s

    def jump(self, seconds: float) -> None:
        self._now_s += seconds


class _JumpingSelector(selectors.BaseSelector):
    """Asks what is ready at once; when nothing is, the time that the loop would have waited has passed."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self._loop.time() > HORIZON_S:
            raise AssertionError("everybody waits for somebody else, and no timer will wake them")
        self._loop.jump(max(0.0, timeout))
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
