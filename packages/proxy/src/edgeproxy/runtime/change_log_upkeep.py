"""Sees to it that every edit is logged, and that the log stays within its bounds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.errors import StoreError
from edgeproxy.ports import ChangeLog

if TYPE_CHECKING:
    from edgeproxy.runtime.logs import Logger

UPKEEP_INTERVAL_S = 10.0
"""Triggers log by themselves. This is for what they missed and for what grows, and it takes the write lock:
it comes seldom, so that a script that does not wait for locks hardly ever meets it."""


async def keep_change_log(store: ChangeLog, log: Logger) -> None:
    """Tend the log at once and then again and again, until cancelled."""
    obstacle: str | None = None
    while True:
        before = obstacle
        try:
            obstacle = await asyncio.to_thread(store.tend)
        except StoreError as error:
            # Who reads the store warns when it is away; the next round makes up for this one.
            log.debug("the change log is left as it is", why=str(error))
        if obstacle != before:
            if obstacle is not None:
                log.warning("changes are not logged", why=obstacle)
            else:
                log.info("changes are logged")
        await asyncio.sleep(UPKEEP_INTERVAL_S)
