"""Upgrades of a proxy that serves: one at a time, asked for by a command or by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Any

from edgeproxy import __version__
from edgeproxy.errors import EdgeproxyError
from edgeproxy.runtime.upgrade import Successor

Tell = Callable[[str, dict[str, Any]], None]
"""Takes the name of what happened and its fields."""


class Upgrading:
    """Has a successor take over, or says why it cannot."""

    def __init__(
        self,
        start: Callable[[], Awaitable[Successor]],
        may_begin: Callable[[], bool],
        tell: Tell,
        on_success: Callable[[], None],
        on_failure: Callable[[EdgeproxyError], None],
    ) -> None:
        """``start`` returns when the successor serves; ``on_success`` lets go of what it serves now."""
        self._start = start
        self._may_begin = may_begin
        self._tell = tell
        self._on_success = on_success
        self._on_failure = on_failure
        self._under_way: asyncio.Task[Successor] | None = None
        self._signalled: asyncio.Task[None] | None = None
        self.successor: Successor | None = None

    def on_signal(self) -> None:
        """Begin, for somebody who waits for no answer: the log has it."""
        self._signalled = asyncio.create_task(self._suppressed())

    def cancel(self) -> None:
        """End the one that is under way, if there is one."""
        if self._under_way is not None:
            self._under_way.cancel()

    async def answer(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Have a successor serve, and say who it is.

        Raises:
            EdgeproxyError: why it cannot; the proxy goes on.
        """
        if not self._may_begin():
            raise EdgeproxyError("cannot upgrade: the proxy is only starting, or is stopping already")
        if self._under_way is not None:
            raise EdgeproxyError("an upgrade is under way already")
        self._tell("upgrading", {"version": __version__})
        self._under_way = asyncio.ensure_future(self._start())
        try:
            self.successor = successor = await self._under_way
        except EdgeproxyError as error:
            self._on_failure(error)
            raise
        finally:
            self._under_way = None
        self._tell("upgraded", {"successor": successor.pid, "version": successor.version})
        self._on_success()
        return {"pid": successor.pid, "version": successor.version, "predecessor": os.getpid()}

    async def _suppressed(self) -> None:
        with contextlib.suppress(EdgeproxyError):  # said already
            await self.answer({})
