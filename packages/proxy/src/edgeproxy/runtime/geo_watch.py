"""Notices that the country database was replaced, and lets only valid ones pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeproxy.errors import GeoDatabaseError
from edgeproxy.ports import CountryLookup

if TYPE_CHECKING:
    from edgeproxy.runtime.logs import Logger

INTERVAL_S = 1.0


class Database(CountryLookup, Protocol):
    """A country database that can say what it is and be closed."""

    @property
    def description(self) -> object: ...

    def close(self) -> None: ...


class GeoWatch:
    """The country database of the control process, equal to the workers'."""

    def __init__(
        self,
        path: Path | None,
        open_database: Callable[[Path | None], Database],
        signature: Callable[[Path], object],
    ) -> None:
        """Open ``path``, the embedded database when it is ``None``.

        Raises:
            GeoDatabaseError: it cannot be used.
        """
        self._path = path
        self._open = open_database
        self._signature = signature
        self._seen = self._sign()
        self.database = open_database(path)

    async def watch(self, log: Logger, on_change: Callable[[], None]) -> None:
        """Follow the file until cancelled; the embedded one does not change."""
        while self._path is not None:
            await asyncio.sleep(INTERVAL_S)
            if (seen := self._sign()) != self._seen:
                self._seen = seen
                await self._reopen(log, on_change)

    def _sign(self) -> object:
        return self._signature(self._path) if self._path is not None else None

    async def _reopen(self, log: Logger, on_change: Callable[[], None]) -> None:
        try:
            database = await asyncio.to_thread(self._open, self._path)
        except GeoDatabaseError as error:
            log.warning("keeping the country database in use", why=str(error))
            return
        self.database.close()
        self.database = database  # feature: geography.own_database
        log.info("country database replaced", countries=str(database.description))
        on_change()
