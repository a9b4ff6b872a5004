"""Notices that certificates changed, and lets only usable ones pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edgeproxy.core.dataplane.identities import Identity
from edgeproxy.errors import ConfigError

if TYPE_CHECKING:
    from edgeproxy.runtime.logs import Logger

INTERVAL_S = 1.0


class Loaded(Protocol):
    """What was found."""

    @property
    def identities(self) -> tuple[Identity, ...]: ...

    @property
    def problems(self) -> Sequence[str]: ...

    @property
    def warnings(self) -> Sequence[str]: ...


class Source(Protocol):
    """Where certificates come from."""

    def signature(self) -> object: ...

    def load(self) -> Loaded: ...


class CertificateWatch:
    """The certificates of the control process, equal to the workers'."""

    def __init__(self, source: Source) -> None:
        """Load them.

        Raises:
            ConfigError: not one of them can be used.
        """
        self.follow(source)

    def follow(self, source: Source) -> None:
        """Take certificates from ``source`` from now on.

        Raises:
            ConfigError: not one of them can be used; nothing has changed.
        """
        seen, loaded = source.signature(), source.load()
        if not loaded.identities:
            raise ConfigError(loaded.problems)
        self._source, self._seen, self._loaded = source, seen, loaded

    @property
    def identities(self) -> tuple[Identity, ...]:
        return self._loaded.identities

    def tell(self, log: Logger) -> None:
        """Log what is wrong with those in use."""
        for problem in self._loaded.problems:
            log.warning("a certificate cannot be used", why=problem)
        for warning in self._loaded.warnings:
            log.warning("a certificate should be replaced", why=warning)

    async def watch(self, log: Logger, on_change: Callable[[tuple[Identity, ...]], None]) -> None:
        """Follow the files until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            if (seen := self._source.signature()) == self._seen:
                continue
            self._seen = seen
            before, loaded = self.identities, await asyncio.to_thread(self._source.load)
            if not loaded.identities:
                for problem in loaded.problems:
                    log.warning("keeping the certificates in use", why=problem)
                continue
            self._loaded = loaded
            self.tell(log)
            if self.identities != before:
                log.info("certificates replaced", names=[list(each.names) for each in self.identities])
                on_change(self.identities)
