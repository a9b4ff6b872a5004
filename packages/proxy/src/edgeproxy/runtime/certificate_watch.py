"""Notices that certificates changed, and lets only usable ones pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from edgeproxy.errors import ConfigError

if TYPE_CHECKING:
    from edgeproxy.runtime.logs import Logger

INTERVAL_S = 1.0


class Loaded(Protocol):
    """What was found. Two that are equal are the same."""

    @property
    def problems(self) -> Sequence[str]: ...

    @property
    def warnings(self) -> Sequence[str]: ...

    @property
    def is_usable(self) -> bool:
        """Whether it can take the place of what is in use, whatever the problems."""
        ...


L_co = TypeVar("L_co", bound=Loaded, covariant=True)
L = TypeVar("L", bound=Loaded)


class Source(Protocol[L_co]):
    """Where certificates come from."""

    def signature(self) -> object: ...

    def load(self) -> L_co: ...


class CertificateWatch(Generic[L]):
    """The certificates of the control process, equal to the workers'."""

    def __init__(self, source: Source[L]) -> None:
        """Load them.

        Raises:
            ConfigError: they cannot be used.
        """
        self.prepare(source)()

    def prepare(self, source: Source[L]) -> Callable[[], None]:
        """Load from ``source``; return what makes it the source from now on, in place of the one before.

        Raises:
            ConfigError: what was found cannot be used.
        """
        seen, loaded = source.signature(), source.load()
        if not loaded.is_usable:
            raise ConfigError(loaded.problems)

        def follow() -> None:
            self._source, self._seen, self.loaded = source, seen, loaded

        return follow

    def tell(self, log: Logger) -> None:
        """Log what is wrong with those in use."""
        for problem in self.loaded.problems:
            log.warning("a certificate cannot be used", why=problem)
        for warning in self.loaded.warnings:
            log.warning("a certificate should be replaced", why=warning)

    async def watch(self, log: Logger, on_change: Callable[[], None]) -> None:
        """Follow the files until cancelled; ``on_change`` is called when :attr:`loaded` is another."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            source = self._source
            if (seen := source.signature()) == self._seen:
                continue
            loaded = await asyncio.to_thread(source.load)
            if source is not self._source:  # the settings name other files meanwhile
                continue
            self._seen = seen
            if not loaded.is_usable:
                for problem in loaded.problems:
                    log.warning("keeping the certificates in use", why=problem)
                continue
            before, self.loaded = self.loaded, loaded
            self.tell(log)
            if self.loaded != before:
                log.info("certificates replaced")
                on_change()
