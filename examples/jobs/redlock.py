"""A lock over several Valkey servers, held by whoever has most of them (Redlock).

A server that was down and has forgotten all votes again, so it must be kept out for longer than locks last,
or write everything down.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from random import SystemRandom
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as ValkeyConnectionError
from redis.exceptions import TimeoutError as ValkeyTimeoutError

Question = Callable[[Redis], Awaitable[Any]]

_UNREACHABLE = (ValkeyConnectionError, ValkeyTimeoutError, OSError)
_IF_MINE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call({}) else return 0 end"
_GIVE_BACK = _IF_MINE.format("'DEL', KEYS[1]")
_EXTEND = _IF_MINE.format("'PEXPIRE', KEYS[1], ARGV[2]")
# Clocks of servers differ by less than this share of a lock's time.
_DRIFT = 0.01
_POLL_S = 0.01
_random = SystemRandom()


class NotHeldError(Exception):
    """Whoever asks does not hold the lock."""


class NotAcquiredError(Exception):
    """Somebody else held the lock all the time, or too few servers could be reached."""


class QuorumLock:
    """One client's view of a lock.

    ``clients`` should give up on a server soon: its time to answer is taken off the lock's.
    """

    def __init__(self, clients: Sequence[Redis], name: str, *, ttl_s: float, wait_s: float) -> None:
        if not name or ttl_s <= 0:
            raise ValueError(f"a lock needs a name and a time, not {name!r} and {ttl_s}")
        self.name = name
        self._clients = clients
        self._name = f"lock:{name}"
        self._ttl_s = ttl_s
        self._wait_s = wait_s
        self._owner = ""

    async def acquire(self, *, wait_s: float = 0.0) -> bool:
        """Take it, or say that it could not be had within ``wait_s``."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        while not await self._take():
            if loop.time() >= until_s:
                return False
            # Two that split the votes do not meet again at once.
            await asyncio.sleep(_POLL_S * _random.uniform(0.5, 2))
        return True

    async def acquire_with_retries(self, retries: int, *, delay_s: float) -> bool:
        """Ask again ``retries`` times, after ``delay_s`` and then twice as long each time."""
        for attempt in range(retries):
            if await self._take():
                return True
            await asyncio.sleep(delay_s * 2**attempt)
        return await self._take()

    async def release(self) -> None:
        """Give it back.

        Raises:
            NotHeldError: it was not held, or no longer.
        """
        given_back = await self._give_back(self._owner)
        # Not before: whoever was cancelled meanwhile can try again.
        self._owner = ""
        if not self._is_quorum(given_back):
            raise NotHeldError(self._name)

    async def extend(self, ttl_s: float) -> None:
        """Hold it for ``ttl_s`` from now.

        Raises:
            NotHeldError: it is not held, or no longer.
        """
        answers = await self._ask(lambda each: each.eval(_EXTEND, 1, self._name, self._owner, _ms(ttl_s)))
        if not self._is_quorum(sum(answer == 1 for answer in answers)):
            raise NotHeldError(self._name)

    async def is_held(self) -> bool:
        """Whether this client holds it."""
        answers = await self._ask(lambda each: each.get(self._name))
        return bool(self._owner) and self._is_quorum(answers.count(self._owner.encode()))

    async def __aenter__(self) -> Self:
        if not await self.acquire(wait_s=self._wait_s):
            raise NotAcquiredError(self._name)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    async def _take(self) -> bool:
        loop = asyncio.get_running_loop()
        owner, began_s = secrets.token_hex(8), loop.time()
        try:
            answers = await self._ask(lambda each: each.set(self._name, owner, nx=True, px=_ms(self._ttl_s)))
        except asyncio.CancelledError:
            await self._give_back(owner)
            raise
        left_s = self._ttl_s * (1 - _DRIFT) - (loop.time() - began_s)
        if left_s > 0 and self._is_quorum(sum(bool(answer) for answer in answers)):
            self._owner = owner
            return True
        await self._give_back(owner)
        return False

    async def _give_back(self, owner: str) -> int:
        answers = await self._ask(lambda each: each.eval(_GIVE_BACK, 1, self._name, owner))
        return sum(answer == 1 for answer in answers)

    async def _ask(self, question: Question) -> list[Any]:
        """What each server that could be reached says."""

        async def ask(client: Redis) -> Any:
            try:
                return await question(client)
            except _UNREACHABLE:
                return None

        return await asyncio.gather(*(ask(client) for client in self._clients))

    def _is_quorum(self, votes: int) -> bool:
        return votes > len(self._clients) // 2


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
