"""Time limits with a known bug."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.time_limits import LearningLimit, MemoryLimits
from testkit.contracts.time_limits import Operation, TimeLimitContract

Contract = TimeLimitContract
BUGS = PlantedBugs(Contract, lambda kind: kind())


@BUGS.caught_by(Contract.test_call_that_takes_longer_ends_at_the_limit)
class LooksOnlyAfterwards(MemoryLimits):
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        began_s = asyncio.get_running_loop().time()
        result = await operation()
        if asyncio.get_running_loop().time() - began_s > limit_s:
            raise TimeoutError
        return result


@BUGS.caught_by(Contract.test_call_that_takes_longer_is_cancelled)
class LetsTheCallGoOn(MemoryLimits):
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        return await super().limited(lambda: asyncio.shield(asyncio.ensure_future(operation())), limit_s)


@BUGS.caught_by(Contract.test_clean_up_of_the_call_is_waited_for)
class DoesNotWaitForCleanUp(MemoryLimits):
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        task = asyncio.ensure_future(operation())
        try:
            done, _ = await asyncio.wait([task], timeout=limit_s)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.sleep(0)
            raise
        if not done:
            task.cancel()
            raise TimeoutError
        return task.result()


@BUGS.caught_by(Contract.test_error_of_the_call_is_raised)
class TakesErrorsForTimeouts(MemoryLimits):
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        try:
            return await super().limited(operation, limit_s)
        except ValueError:
            raise TimeoutError from None


@BUGS.caught_by(Contract.test_cancelling_the_caller_is_no_timeout)
class TakesCancellingForATimeout(MemoryLimits):
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        try:
            return await super().limited(operation, limit_s)
        except asyncio.CancelledError:
            raise TimeoutError from None


@BUGS.caught_by(Contract.test_limit_of_nothing_is_over_at_once)
class TakesNothingForNoLimit(MemoryLimits):
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        return await super().limited(operation, limit_s or 1e6)


@BUGS.caught_by(Contract.test_very_short_limit_is_kept)
class RoundsToHundredths(MemoryLimits):
    async def limited(self, operation: Operation, limit_s: float) -> Any:
        return await super().limited(operation, round(limit_s, 2))


@BUGS.caught_by(Contract.test_results_in_time_are_returned_when_the_time_is_up)
class AllOrNothing(MemoryLimits):
    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        results = await super().partial(operations, limit_s)
        return results if len(results) == len(operations) else []


@BUGS.caught_by(Contract.test_results_in_time_are_returned_when_the_time_is_up)
class ReturnsInTheOrderOfTheEnds(MemoryLimits):
    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        return (await super().partial(operations, limit_s))[::-1]


@BUGS.caught_by(Contract.test_all_results_are_returned_as_soon_as_all_are_there)
class WaitsUntilTheTimeIsUp(MemoryLimits):
    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + limit_s
        results = await super().partial(operations, limit_s)
        await asyncio.sleep(max(0.0, until_s - loop.time()))
        return results


@BUGS.caught_by(Contract.test_calls_that_are_not_done_in_time_are_cancelled)
class LeavesStragglersRunning(MemoryLimits):
    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        tasks = [asyncio.ensure_future(operation()) for operation in operations]
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)
        return [task.result() for task in tasks if task.done() and task.exception() is None]


@BUGS.caught_by(Contract.test_call_that_fails_takes_no_result_from_others)
class FailsWithOneOfThem(MemoryLimits):
    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        tasks = [asyncio.ensure_future(operation()) for operation in operations]
        if not tasks:
            return []
        done, late = await asyncio.wait(tasks, timeout=limit_s)
        for task in late:
            task.cancel()
        return [task.result() for task in tasks if task in done]


class _Adapts(MemoryLimits):
    """One with another idea of learning."""

    kind: type[LearningLimit] = LearningLimit

    def adaptive(self, *, initial_s: float, least_s: float, most_s: float) -> LearningLimit:
        return self.kind(initial_s, least_s, most_s)


class _Unbounded(LearningLimit):
    def learn(self, seconds: float) -> None:
        super().learn(seconds)
        self.limit_s = 2 * max(self._seconds)


class _Fixed(LearningLimit):
    def learn(self, seconds: float) -> None: ...


class _Stubborn(LearningLimit):
    """Takes in only calls that succeeded, so it never learns that they have become slower."""

    def learn(self, seconds: float) -> None:
        if seconds < self.limit_s:
            super().learn(seconds)


class _Elephant(LearningLimit):
    slowest_s = 0.0

    def learn(self, seconds: float) -> None:
        self.slowest_s = max(self.slowest_s, seconds)
        super().learn(self.slowest_s)


class _CountsRefusals(LearningLimit):
    async def call(self, operation: Operation) -> Any:
        try:
            return await super().call(operation)
        except ValueError:
            self.learn(0.0)
            raise


@BUGS.caught_by(Contract.test_adaptive_limit_stays_in_its_bounds)
class KnowsNoBounds(_Adapts):
    kind = _Unbounded


@BUGS.caught_by(
    Contract.test_adaptive_limit_follows_calls_down_and_up, Contract.test_adaptive_limit_stays_in_its_bounds
)
class NeverAdapts(_Adapts):
    kind = _Fixed


@BUGS.caught_by(Contract.test_adaptive_limit_recovers_from_calls_that_timed_out)
class LearnsNothingFromTimeouts(_Adapts):
    kind = _Stubborn


@BUGS.caught_by(Contract.test_adaptive_limit_forgets_what_was_long_ago)
class ForgetsNothing(_Adapts):
    kind = _Elephant


@BUGS.caught_by(Contract.test_failed_calls_do_not_shorten_the_limit)
class LearnsFromRefusals(_Adapts):
    kind = _CountsRefusals


SUITE = Suite(Contract, "testkit.contracts.references.time_limits:MemoryLimits", BUGS)
