"""Adds to the archive what was changed, for as long as the proxy runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edgeproxy.errors import EdgeproxyError

if TYPE_CHECKING:
    from edgeproxy.runtime.logs import Logger


class Step(Protocol):
    """What was added."""

    @property
    def more(self) -> bool:
        """Whether there is more to add at once."""
        ...


class Keeper(Protocol):
    """See :class:`edgeproxy.outbound.archive.ArchiveKeeper`."""

    def step(self) -> Step: ...


async def keep_archive(open_keeper: Callable[[], Keeper], interval_s: float, log: Logger) -> None:
    """Take steps until cancelled: at once while there is more to add, else each ``interval_s`` seconds.

    What fails is tried again; the log hears of it once, and of its end.
    """
    keeper: Keeper | None = None
    trouble: str | None = None
    while True:
        before = trouble
        more = False
        try:
            if keeper is None:
                keeper = await asyncio.to_thread(open_keeper)
            more = (await asyncio.to_thread(keeper.step)).more
            trouble = None
        except EdgeproxyError as error:
            trouble = str(error)
        if trouble is not None and before is None:
            log.warning("changes are not archived, trying again", why=trouble)
        elif trouble is None and before is not None:
            log.info("changes are archived again")
        if not more:
            await asyncio.sleep(interval_s)
