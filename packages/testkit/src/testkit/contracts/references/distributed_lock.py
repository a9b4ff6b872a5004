"""A lock in memory: held by whoever has most of three instances, each of which knows owners and times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Self

from testkit.clocks import ManualClock
from testkit.contracts.distributed_lock import LONG_S, TTL_S, LockInfo

_POLL_S = 0.02
_owners = count(1)


class NotHeldError(Exception):
    """Whoever asks does not hold the lock."""


class NotAcquiredError(Exception):
    """Somebody else held the lock all the time."""


class Instance:
    """Knows who holds what until when; each call is one step."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._held: dict[str, tuple[str, float]] = {}
        self.reachable = True

    def owner(self, name: str) -> tuple[str, float] | None:
        """Who holds it, and for how many seconds more.

        Raises:
            ConnectionError: it is cut off.
        """
        if not self.reachable:
            raise ConnectionError("cut off")
        owner, until_s = self._held.get(name, ("", 0.0))
        left_s = until_s - self._clock()
        return (owner, left_s) if left_s > 0 else None

    def take(self, name: str, owner: str, ttl_s: float) -> bool:
        if self.owner(name) is not None:
            return False
        self._held[name] = owner, self._clock() + ttl_s
        return True

    def extend(self, name: str, owner: str, ttl_s: float) -> bool:
        held = self.owner(name)
        if held is None or held[0] != owner:
            return False
        self._held[name] = owner, self._clock() + ttl_s
        return True

    def give_back(self, name: str, owner: str) -> None:
        held = self.owner(name)
        if held is not None and held[0] == owner:
            del self._held[name]

    def forget(self) -> None:
        self._held.clear()


class MemoryLock:
    """One client's view; what it calls itself is new with each time that it takes the lock."""

    def __init__(self, instances: list[Instance], name: str, ttl_s: float, wait_s: float = LONG_S) -> None:
        if not name or ttl_s <= 0:
            raise ValueError(f"a lock needs a name and a time, not {name!r} and {ttl_s}")
        self.name = name
        self._instances = instances
        self._ttl_s = ttl_s
        self._wait_s = wait_s
        self._owner = ""

    @property
    def was_taken(self) -> bool:
        """Whether it was taken and not given back; its time may be over."""
        return self._owner != ""

    async def acquire(self, *, wait_s: float = 0.0) -> bool:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while not await self._take():
            if loop.time() >= until_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def acquire_with_retries(self, retries: int, *, delay_s: float) -> bool:
        for attempt in range(retries):
            if await self._take():
                return True
            await asyncio.sleep(delay_s * 2**attempt)
        return await self._take()

    async def release(self) -> None:
        held = await self.is_held()
        self._give_up(self._owner)
        self._owner = ""
        if not held:
            raise NotHeldError(self.name)

    async def extend(self, ttl_s: float) -> None:
        extended = await self._ask(lambda each: each.extend(self.name, self._owner, ttl_s))
        if not self._is_quorum(extended):
            raise NotHeldError(self.name)

    async def is_held(self) -> bool:
        mine = await self._ask(lambda each: (each.owner(self.name) or ("", 0))[0] == self._owner != "")
        return self._is_quorum(mine)

    async def info(self) -> LockInfo | None:
        told = [each.owner(self.name) for each in self._instances if each.reachable]
        held = [each for each in told if each is not None]
        owners = [owner for owner, _ in held]
        return next((LockInfo(*each) for each in held if self._is_quorum(owners.count(each[0]))), None)

    async def __aenter__(self) -> Self:
        if not await self.acquire(wait_s=self._wait_s):
            raise NotAcquiredError(self.name)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.release()

    async def _take(self) -> bool:
        owner = f"owner-{next(_owners)}"
        taken = await self._ask(lambda each: each.take(self.name, owner, self._ttl_s))
        if self._is_quorum(taken):
            self._owner = owner
            return True
        self._give_up(owner)
        return False

    def _give_up(self, owner: str) -> None:
        for each in self._instances:
            if each.reachable:
                each.give_back(self.name, owner)

    async def _ask(self, question: Callable[[Instance], bool]) -> int:
        """How many say yes. Each is asked in turn, and others may come in between."""
        votes = 0
        for each in self._instances:
            try:
                votes += question(each)
            except ConnectionError:
                continue
            await asyncio.sleep(0)
        return votes

    def _is_quorum(self, votes: int) -> bool:
        return votes > len(self._instances) // 2


class MemoryLockManager:
    """Hands out locks and remembers which."""

    def __init__(self, harness: MemoryLockHarness) -> None:
        self._harness = harness
        self._locks: list[MemoryLock] = []

    def lock(self, name: str, *, ttl_s: float = TTL_S) -> MemoryLock:
        lock = self._harness.lock(name, ttl_s=ttl_s)
        self._locks.append(lock)
        return lock

    async def held(self) -> list[str]:
        return [lock.name for lock in self._locks if await lock.is_held()]

    async def clean_up(self) -> list[str]:
        held = await self.held()
        expired = [lock for lock in self._locks if lock.was_taken and lock.name not in held]
        self._locks = [lock for lock in self._locks if lock not in expired]
        return [lock.name for lock in expired]

    async def release_all(self) -> None:
        for lock in self._locks:
            if await lock.is_held():
                await lock.release()


class MemoryLockHarness:
    """Locks over three instances, or of a class made from them."""

    not_held = NotHeldError
    not_acquired = NotAcquiredError
    instances = 3

    def __init__(self, kind: type[MemoryLock] = MemoryLock) -> None:
        self._kind = kind
        self._clock = ManualClock()
        self._instances = [Instance(self._clock) for _ in range(self.instances)]

    def lock(self, name: str, *, ttl_s: float = TTL_S, wait_s: float = LONG_S) -> MemoryLock:
        return self._kind(self._instances, name, ttl_s, wait_s)

    def manager(self) -> MemoryLockManager:
        return MemoryLockManager(self)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def cut_off(self, instance: int) -> None:
        self._instances[instance].reachable = False

    async def restore(self, instance: int, *, forgets: bool = False) -> None:
        self._instances[instance].reachable = True
        if forgets:
            self._instances[instance].forget()

    async def votes(self, name: str) -> int:
        return sum(each.reachable and each.owner(name) is not None for each in self._instances)
