"""What every distributed lock must do: be held by one, for a time, and never for ever.

A lock has a name that all clients know, is held for a time that its holder can extend, and is then anybody's.
What an implementation may lack is a capability. With the capability ``quorum`` it asks several instances and
is held by whoever has most of them, as Redlock does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from testkit.contracts.checking import assert_raises, assert_raises_async
from testkit.contracts.contract import Contract, needs

TTL_S = 30.0
SHORT_S = 0.03
LONG_S = 20.0
CONTENDERS = 12


@dataclass(frozen=True, slots=True)
class LockInfo:
    """Who holds a lock, in whatever words, and for how many seconds more."""

    owner: str
    left_s: float


class Lock(Protocol):
    """One client's view of the lock of a name."""

    async def acquire(self, *, wait_s: float = 0.0) -> bool:
        """Take it, or say that it could not be had within ``wait_s``; 0: do not wait."""
        ...

    async def acquire_with_retries(self, retries: int, *, delay_s: float) -> bool:
        """Take it, asking again ``retries`` times, after ``delay_s`` and then twice as long each time."""
        ...

    async def release(self) -> None:
        """Give it back; an error if this client does not hold it."""
        ...

    async def extend(self, ttl_s: float) -> None:
        """Hold it for ``ttl_s`` from now; an error if this client does not hold it."""
        ...

    async def is_held(self) -> bool:
        """Whether this client holds it."""
        ...

    async def info(self) -> LockInfo | None:
        """Who holds it now, ``None`` when nobody does."""
        ...

    async def __aenter__(self) -> Self:
        """Take it, waiting as long as the harness was told."""
        ...

    async def __aexit__(self, *exception: object) -> None: ...


class LockManager(Protocol):
    """Looks after the locks that it handed out."""

    def lock(self, name: str, *, ttl_s: float = TTL_S) -> Lock: ...

    async def held(self) -> Sequence[str]:
        """Names of its locks that are held."""
        ...

    async def clean_up(self) -> Sequence[str]:
        """Forget those whose time is over, and say which."""
        ...

    async def release_all(self) -> None: ...


class LockHarness(Protocol):
    """What a test must know of an implementation. Begins without locks."""

    @property
    def not_held(self) -> type[Exception]:
        """What is raised to whoever gives back or extends what they do not hold."""
        ...

    @property
    def not_acquired(self) -> type[Exception]:
        """What ``async with`` raises when the lock cannot be had."""
        ...

    def lock(self, name: str, *, ttl_s: float = TTL_S, wait_s: float = LONG_S) -> Lock:
        """A client of its own for the lock; ``wait_s``: how long ``async with`` waits."""
        ...

    def manager(self) -> LockManager: ...

    async def pass_time(self, seconds: float) -> None:
        """Let that time pass for the locks."""
        ...

    @property
    def instances(self) -> int:
        """Over how many a quorum is taken; odd."""
        ...

    async def cut_off(self, instance: int) -> None:
        """Put one out of reach; asking it fails at once."""
        ...

    async def restore(self, instance: int, *, forgets: bool = False) -> None:
        """Undo :meth:`cut_off`; ``forgets``: as one that had written nothing down."""
        ...

    async def votes(self, name: str) -> int:
        """How many instances say that somebody holds the lock."""
        ...


class DistributedLockContract(
    Contract,
    contract="distributed_lock",
    capabilities={
        "cancelling": "a task that takes it can be cancelled, and has nothing then",
        "retries": "taking it can be tried a number of times, with growing delays",
        "info": "anybody can ask who holds it",
        "manager": "a manager lists its locks, forgets expired ones and gives all back",
        "quorum": "it is held by whoever has most of several instances",
    },
):
    """Subclass it, define the fixture ``harness``, and pytest runs it."""

    # ---- taking ------------------------------------------------------------------------------------

    async def test_lock_that_nobody_took_is_held_by_nobody(self, harness: LockHarness) -> None:
        assert not await harness.lock("a").is_held()

    async def test_free_lock_is_taken_at_once(self, harness: LockHarness) -> None:
        lock = harness.lock("a")
        assert await lock.acquire()
        assert await lock.is_held()

    async def test_taken_lock_is_refused_at_once(self, harness: LockHarness) -> None:
        holder, other = harness.lock("a"), harness.lock("a")
        assert await holder.acquire()
        assert not await other.acquire()
        assert not await other.is_held()
        assert await holder.is_held()

    async def test_locks_of_other_names_are_free(self, harness: LockHarness) -> None:
        names = ["a", "A", "a ", "a:b", "ä", "a" * 300]
        assert [await harness.lock(name).acquire() for name in names] == [True] * len(names)

    async def test_waiting_taker_gets_it_when_it_is_given_back(self, harness: LockHarness) -> None:
        holder, waiting = harness.lock("a"), harness.lock("a")
        assert await holder.acquire()
        taken = asyncio.create_task(waiting.acquire(wait_s=LONG_S))
        await asyncio.sleep(0)
        assert not await waiting.is_held()
        await holder.release()
        assert await taken
        assert await waiting.is_held()

    async def test_waiting_ends_after_its_time(self, harness: LockHarness) -> None:
        holder, waiting = harness.lock("a"), harness.lock("a")
        assert await holder.acquire()
        async with asyncio.timeout(LONG_S):
            assert not await waiting.acquire(wait_s=SHORT_S)
        assert await holder.is_held()

    @needs("cancelling")
    async def test_taker_that_gives_up_leaves_nothing(self, harness: LockHarness) -> None:
        holder, waiting = harness.lock("a"), harness.lock("a")
        assert await holder.acquire()
        assert not await waiting.acquire()
        given_up = asyncio.create_task(waiting.acquire(wait_s=LONG_S))
        await asyncio.sleep(0)
        given_up.cancel()
        # It may have something to give back first; what goes on as before would wait for all its time.
        await asyncio.wait([given_up], timeout=LONG_S / 2)
        assert given_up.cancelled()
        await holder.release()
        assert await harness.lock("a").acquire()

    # ---- retries -----------------------------------------------------------------------------------

    @needs("retries")
    async def test_retries_back_off_and_end(self, harness: LockHarness) -> None:
        loop = asyncio.get_running_loop()
        holder, other = harness.lock("a"), harness.lock("a")
        assert await holder.acquire()
        began_s = loop.time()
        assert not await other.acquire_with_retries(3, delay_s=0.01)
        # After 10, 20 and 40 ms.
        assert loop.time() - began_s >= 0.0699
        assert await holder.is_held()

    @needs("retries")
    async def test_no_retries_is_one_attempt(self, harness: LockHarness) -> None:
        holder = harness.lock("a")
        assert await holder.acquire_with_retries(0, delay_s=LONG_S)
        assert not await harness.lock("a").acquire_with_retries(0, delay_s=LONG_S)

    @needs("retries")
    async def test_retry_takes_what_was_given_back(self, harness: LockHarness) -> None:
        holder, other = harness.lock("a"), harness.lock("a")
        assert await holder.acquire()
        taken = asyncio.create_task(other.acquire_with_retries(10, delay_s=0.005))
        await asyncio.sleep(0)
        await holder.release()
        assert await taken
        assert await other.is_held()

    # ---- giving back -------------------------------------------------------------------------------

    async def test_lock_that_is_given_back_is_free(self, harness: LockHarness) -> None:
        holder, other = harness.lock("a"), harness.lock("a")
        assert await holder.acquire()
        await holder.release()
        assert not await holder.is_held()
        assert await other.acquire()

    async def test_only_the_holder_gives_it_back(self, harness: LockHarness) -> None:
        holder, other = harness.lock("a"), harness.lock("a")
        await assert_raises_async(harness.not_held, other.release)
        assert await holder.acquire()
        await assert_raises_async(harness.not_held, other.release)
        assert await holder.is_held()

    async def test_giving_back_twice_is_an_error(self, harness: LockHarness) -> None:
        holder = harness.lock("a")
        assert await holder.acquire()
        await holder.release()
        await assert_raises_async(harness.not_held, holder.release)

    async def test_late_holder_does_not_give_back_what_is_somebody_elses(self, harness: LockHarness) -> None:
        late, other = harness.lock("a"), harness.lock("a")
        assert await late.acquire()
        await harness.pass_time(TTL_S + 1)
        assert await other.acquire()
        assert not await late.is_held()
        await assert_raises_async(harness.not_held, late.release)
        assert await other.is_held()

    async def test_block_takes_it_and_gives_it_back(self, harness: LockHarness) -> None:
        other = harness.lock("a")
        async with harness.lock("a") as lock:
            assert await lock.is_held()
            assert not await other.acquire()
        assert await other.acquire()

    async def test_block_that_fails_gives_it_back(self, harness: LockHarness) -> None:
        async def fail() -> None:
            async with harness.lock("a"):
                raise ZeroDivisionError("on purpose")

        await assert_raises_async(ZeroDivisionError, fail)
        assert await harness.lock("a").acquire()

    async def test_block_without_the_lock_is_not_entered(self, harness: LockHarness) -> None:
        assert await harness.lock("a").acquire()
        entered = []

        async def enter() -> None:
            async with asyncio.timeout(LONG_S), harness.lock("a", wait_s=SHORT_S):
                entered.append("a")

        await assert_raises_async(harness.not_acquired, enter)
        assert entered == []

    # ---- time --------------------------------------------------------------------------------------

    async def test_lock_lasts_for_its_time(self, harness: LockHarness) -> None:
        holder = harness.lock("a")
        assert await holder.acquire()
        await harness.pass_time(TTL_S / 2)
        assert await holder.is_held()
        assert not await harness.lock("a").acquire()

    async def test_holder_that_died_is_no_deadlock(self, harness: LockHarness) -> None:
        assert await harness.lock("a").acquire()
        waiting = harness.lock("a")
        taken = asyncio.create_task(waiting.acquire(wait_s=LONG_S))
        await asyncio.sleep(0)
        await harness.pass_time(TTL_S + 1)
        assert await taken
        assert await waiting.is_held()

    async def test_very_short_time_is_over_as_any_other(self, harness: LockHarness) -> None:
        # Of several servers, asking is a part of the time: where the machine is busy, it may be all of it.
        assert await harness.lock("a", ttl_s=0.5).acquire(wait_s=LONG_S)
        await harness.pass_time(0.6)
        assert await harness.lock("a").acquire()

    async def test_extension_counts_from_now(self, harness: LockHarness) -> None:
        holder = harness.lock("a")
        assert await holder.acquire()
        await harness.pass_time(TTL_S - 5)
        await holder.extend(TTL_S)
        await harness.pass_time(TTL_S - 5)
        assert await holder.is_held()
        assert not await harness.lock("a").acquire()
        await harness.pass_time(6)
        assert not await holder.is_held()
        assert await harness.lock("a").acquire()

    async def test_only_the_holder_extends_it(self, harness: LockHarness) -> None:
        holder, other = harness.lock("a"), harness.lock("a")
        assert await holder.acquire()
        await assert_raises_async(harness.not_held, lambda: other.extend(10 * TTL_S))
        await harness.pass_time(TTL_S + 1)
        assert await other.acquire()

    async def test_what_is_over_cannot_be_extended(self, harness: LockHarness) -> None:
        late = harness.lock("a")
        assert await late.acquire()
        await harness.pass_time(TTL_S + 1)
        await assert_raises_async(harness.not_held, lambda: late.extend(TTL_S))
        assert await harness.lock("a").acquire()

    # ---- many at once ------------------------------------------------------------------------------

    async def test_one_of_many_that_ask_at_once_gets_it(self, harness: LockHarness) -> None:
        locks = [harness.lock("a") for _ in range(CONTENDERS)]
        taken = await asyncio.gather(*(lock.acquire() for lock in locks))
        held = [await lock.is_held() for lock in locks]
        assert [*taken] == held
        assert sum(held) <= 1
        if not any(held):
            # With a quorum none may have most; then what they had is free again.
            assert harness.instances > 1
            assert await harness.lock("a").acquire()

    async def test_all_that_wait_get_it_one_after_the_other(self, harness: LockHarness) -> None:
        inside, most, served = 0, 0, 0

        async def work() -> None:
            nonlocal inside, most, served
            async with harness.lock("a"):
                inside += 1
                most = max(most, inside)
                for _ in range(3):
                    await asyncio.sleep(0)
                inside -= 1
                served += 1

        await asyncio.gather(*(work() for _ in range(CONTENDERS)))
        assert (most, served) == (1, CONTENDERS)

    # ---- what makes no sense -----------------------------------------------------------------------

    async def test_lock_needs_a_name_and_a_time(self, harness: LockHarness) -> None:
        assert_raises(ValueError, lambda: harness.lock(""))
        for ttl_s in (0.0, -1.0):
            assert_raises(ValueError, lambda ttl_s=ttl_s: harness.lock("a", ttl_s=ttl_s))  # type: ignore[misc]

    # ---- information -------------------------------------------------------------------------------

    @needs("info")
    async def test_nobody_is_told_of_a_lock_that_nobody_holds(self, harness: LockHarness) -> None:
        assert await harness.lock("nothing").info() is None
        lock = harness.lock("a")
        assert await lock.acquire()
        await lock.release()
        assert await lock.info() is None
        assert await lock.acquire()
        await harness.pass_time(TTL_S + 1)
        assert await lock.info() is None

    @needs("info")
    async def test_anybody_is_told_who_holds_it_and_how_long(self, harness: LockHarness) -> None:
        holder, other = harness.lock("a"), harness.lock("a")
        assert await holder.acquire()
        seen = await other.info()
        assert seen is not None
        assert TTL_S * 0.8 < seen.left_s <= TTL_S
        await harness.pass_time(TTL_S / 2)
        later = await holder.info()
        assert later is not None
        assert later.owner == seen.owner
        assert later.left_s <= TTL_S / 2
        await holder.release()
        assert await other.acquire()
        of_other = await other.info()
        assert of_other is not None
        assert of_other.owner != seen.owner

    # ---- manager -----------------------------------------------------------------------------------

    @needs("manager")
    async def test_manager_lists_what_is_held(self, harness: LockHarness) -> None:
        manager = harness.manager()
        assert list(await manager.held()) == []
        first, second, _ = manager.lock("a"), manager.lock("b"), manager.lock("c")
        assert await first.acquire()
        assert await second.acquire()
        assert sorted(await manager.held()) == ["a", "b"]
        await first.release()
        assert list(await manager.held()) == ["b"]

    @needs("manager")
    async def test_manager_gives_all_back(self, harness: LockHarness) -> None:
        manager, foreign = harness.manager(), harness.lock("c")
        assert await foreign.acquire()
        for name in ("a", "b"):
            assert await manager.lock(name).acquire()
        manager.lock("c")
        await manager.release_all()
        assert [await harness.lock(name).acquire() for name in ("a", "b", "c")] == [True, True, False]

    @needs("manager")
    async def test_expired_locks_are_cleaned_up_and_others_left(self, harness: LockHarness) -> None:
        manager = harness.manager()
        short, long = manager.lock("short", ttl_s=5), manager.lock("long")
        assert await short.acquire()
        assert await long.acquire()
        assert list(await manager.clean_up()) == []
        await harness.pass_time(6)
        assert list(await manager.held()) == ["long"]
        assert list(await manager.clean_up()) == ["short"]
        assert list(await manager.clean_up()) == []
        assert await long.is_held()

    # ---- quorum ------------------------------------------------------------------------------------

    @needs("quorum")
    async def test_minority_out_of_reach_is_no_matter(self, harness: LockHarness) -> None:
        for instance in range(harness.instances // 2):
            await harness.cut_off(instance)
        lock = harness.lock("a")
        assert await lock.acquire()
        assert not await harness.lock("a").acquire()
        await lock.extend(TTL_S)
        await lock.release()
        assert await harness.lock("a").acquire()

    @needs("quorum")
    async def test_majority_out_of_reach_is_no_lock(self, harness: LockHarness) -> None:
        for instance in range(harness.instances // 2 + 1):
            await harness.cut_off(instance)
        lock = harness.lock("a")
        assert not await lock.acquire()
        assert not await lock.is_held()
        assert await harness.votes("a") == 0

    @needs("quorum")
    async def test_lock_is_lost_with_the_majority(self, harness: LockHarness) -> None:
        lock = harness.lock("a")
        assert await lock.acquire()
        for instance in range(harness.instances // 2 + 1):
            await harness.cut_off(instance)
        assert not await lock.is_held()
        await assert_raises_async(harness.not_held, lambda: lock.extend(TTL_S))

    @needs("quorum")
    async def test_minority_that_forgets_gives_nothing_away(self, harness: LockHarness) -> None:
        holder = harness.lock("a")
        assert await holder.acquire()
        for instance in range(harness.instances // 2):
            await harness.cut_off(instance)
            await harness.restore(instance, forgets=True)
        other = harness.lock("a")
        assert not await other.acquire()
        # What the forgetful gave to the other was taken back.
        assert await harness.votes("a") == harness.instances // 2 + 1
        assert await holder.is_held()

    @needs("quorum")
    async def test_refused_taker_leaves_no_votes_behind(self, harness: LockHarness) -> None:
        holder = harness.lock("a")
        assert await holder.acquire()
        assert not await harness.lock("a").acquire()
        await holder.release()
        assert await harness.votes("a") == 0
