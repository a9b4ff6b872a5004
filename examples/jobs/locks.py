"""The locks that one instance of the service holds: kept while jobs go on, given back when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from redis.asyncio import Redis

from examples.jobs.redlock import NotHeldError, QuorumLock


class Locks:
    """Hands out locks over the servers of ``clients``, and knows those that were taken and not given back."""

    def __init__(self, clients: Sequence[Redis]) -> None:
        self._clients = clients
        self._taken: set[_Accounted] = set()

    def lock(self, name: str, *, ttl_s: float, wait_s: float) -> QuorumLock:
        """See `QuorumLock`."""
        return _Accounted(self._taken, self._clients, name, ttl_s=ttl_s, wait_s=wait_s)

    async def held(self) -> list[str]:
        """Names of those that are held."""
        return [lock.name for lock in list(self._taken) if await lock.is_held()]

    async def renew(self) -> None:
        """Have those that are held last as long again from now."""
        for lock in list(self._taken):
            with suppress(NotHeldError):
                await lock.renew()

    async def clean_up(self) -> list[str]:
        """Forget those whose time was over before they were given back, and return their names."""
        over = [lock for lock in list(self._taken) if not await lock.is_held()]
        # Others may have been given back while these were asked about.
        lost = self._taken.intersection(over)
        self._taken.difference_update(lost)
        return [lock.name for lock in lost]

    async def release_all(self) -> None:
        """Give all back that are held: those whose holders were cancelled while they did."""
        for lock in list(self._taken):
            with suppress(NotHeldError):
                await lock.release()


class _Accounted(QuorumLock):
    """Is in ``taken`` from when it is taken until it is given back, or turns out to be lost."""

    def __init__(
        self, taken: set[_Accounted], clients: Sequence[Redis], name: str, *, ttl_s: float, wait_s: float
    ) -> None:
        super().__init__(clients, name, ttl_s=ttl_s, wait_s=wait_s)
        self._taken = taken

    async def renew(self) -> None:
        """Raises `NotHeldError`."""
        await self.extend(self._ttl_s)

    async def release(self) -> None:
        try:
            await super().release()
        except NotHeldError:
            self._taken.discard(self)
            raise
        self._taken.discard(self)

    async def _take(self) -> bool:
        is_taken = await super()._take()
        if is_taken:
            self._taken.add(self)
        return is_taken
