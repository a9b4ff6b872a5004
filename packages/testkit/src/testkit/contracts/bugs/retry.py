"""Retries with a known bug."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.retry import Retrier
from testkit.contracts.retry import BeforeRetry, Plan, RetryContract, Strategy

Contract = RetryContract
BUGS = PlantedBugs(Contract, lambda kind: kind())


class _Altered(Retrier):
    """One that changes what it was asked for."""

    def altered(self, plan: Plan) -> Plan:
        return plan

    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        return await super().call(operation, self.altered(plan), before_retry=before_retry, fallback=fallback)


@BUGS.caught_by(Contract.test_attempts_are_bounded_and_the_last_error_is_raised)
class CountsRetriesAsAttempts(_Altered):
    def altered(self, plan: Plan) -> Plan:
        return replace(plan, attempts=plan.attempts + 1)


@BUGS.caught_by(Contract.test_last_attempt_may_succeed)
class GivesUpOneEarly(_Altered):
    def altered(self, plan: Plan) -> Plan:
        return replace(plan, attempts=max(1, plan.attempts - 1))


@BUGS.caught_by(
    Contract.test_other_errors_are_raised_at_once, Contract.test_other_error_ends_retries_under_way
)
class RetriesEverything(_Altered):
    def altered(self, plan: Plan) -> Plan:
        return replace(plan, errors=(Exception,))


@BUGS.caught_by(Contract.test_cancelling_is_never_retried)
class RetriesCancelling(_Altered):
    def altered(self, plan: Plan) -> Plan:
        return replace(plan, errors=(*plan.errors, asyncio.CancelledError))  # type: ignore[arg-type]


@BUGS.caught_by(Contract.test_listed_errors_and_their_kinds_are_retried)
class RetriesTheFirstKindOnly(_Altered):
    def altered(self, plan: Plan) -> Plan:
        return replace(plan, errors=plan.errors[:1])


@BUGS.caught_by(Contract.test_jitter_sets_callers_apart)
class DrawsTheSameForAll(_Altered):
    def altered(self, plan: Plan) -> Plan:
        self.random = Random(1)
        return plan


@BUGS.caught_by(Contract.test_exponential_delays_double)
class BeginsWithTheSecondDelay(Retrier):
    def factor(self, plan: Plan, failed: int) -> float:
        return super().factor(plan, failed + 1)


@BUGS.caught_by(Contract.test_no_delay_is_longer_than_the_longest)
class KnowsNoLongestDelay(_Altered):
    def altered(self, plan: Plan) -> Plan:
        return replace(plan, longest_s=1e9)


@BUGS.caught_by(Contract.test_jitter_does_not_exceed_the_longest_delay)
class AddsJitterToTheBound(Retrier):
    def delay_s(self, plan: Plan, failed: int, before_s: float) -> float:
        delay_s = super().delay_s(replace(plan, jitter=False), failed, before_s)
        return delay_s * (1 + self.random.random()) if plan.jitter else delay_s


@BUGS.caught_by(Contract.test_linear_delays_grow_by_the_base)
class TakesLinearForFixed(Retrier):
    def factor(self, plan: Plan, failed: int) -> float:
        return 1 if plan.strategy is Strategy.LINEAR else super().factor(plan, failed)


@BUGS.caught_by(Contract.test_fibonacci_delays_are_the_sum_of_the_two_before)
class SkipsAFibonacciNumber(Retrier):
    def factor(self, plan: Plan, failed: int) -> float:
        return super().factor(plan, failed + (plan.strategy is Strategy.FIBONACCI))


@BUGS.caught_by(Contract.test_decorrelated_delays_are_drawn_from_the_one_before)
class DrawsFromTheBase(Retrier):
    def delay_s(self, plan: Plan, failed: int, before_s: float) -> float:
        return super().delay_s(plan, failed, plan.base_s)


@BUGS.caught_by(Contract.test_delay_can_be_cancelled)
class ShieldsItsDelays(Retrier):
    async def wait(self, delay_s: float) -> None:
        try:
            await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            await asyncio.sleep(delay_s)


@BUGS.caught_by(Contract.test_nobody_waits_after_the_last_failure)
class WaitsBeforeItGivesUp(Retrier):
    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        try:
            return await super().call(operation, plan, before_retry=before_retry, fallback=fallback)
        except plan.errors:
            await self.wait(plan.base_s)
            raise


class _Tells(Retrier):
    """One that tells something else."""

    def told(self, before_retry: BeforeRetry, failed: int, error: Exception, delay_s: float) -> None:
        before_retry(failed, error, delay_s)

    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        def tell(failed: int, error: Exception, delay_s: float) -> None:
            if before_retry is not None:
                self.told(before_retry, failed, error, delay_s)

        return await super().call(operation, plan, before_retry=tell, fallback=fallback)


@BUGS.caught_by(Contract.test_callback_is_told_before_each_retry)
class CountsFromZero(_Tells):
    def told(self, before_retry: BeforeRetry, failed: int, error: Exception, delay_s: float) -> None:
        before_retry(failed - 1, error, delay_s)


@BUGS.caught_by(Contract.test_callback_is_told_before_each_retry)
class TellsOnlyOnce(_Tells):
    def told(self, before_retry: BeforeRetry, failed: int, error: Exception, delay_s: float) -> None:
        if failed == 1:
            before_retry(failed, error, delay_s)


class _FallsBack(Retrier):
    """One with another idea of falling back."""

    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        try:
            return await super().call(operation, plan, before_retry=before_retry)
        except plan.errors as error:
            if fallback is None:
                raise
            return self.fall_back(fallback, error)

    def fall_back(self, fallback: Callable[[Exception], Any], error: Exception) -> Any:
        return fallback(error)


@BUGS.caught_by(Contract.test_fallback_answers_when_no_attempt_is_left)
class FallsBackToNothing(_FallsBack):
    def fall_back(self, fallback: Callable[[Exception], Any], error: Exception) -> Any:
        return None


@BUGS.caught_by(Contract.test_error_of_the_fallback_is_raised)
class HidesTheErrorOfTheFallback(_FallsBack):
    def fall_back(self, fallback: Callable[[Exception], Any], error: Exception) -> Any:
        try:
            return fallback(error)
        except LookupError:
            raise error from None


@BUGS.caught_by(Contract.test_calls_side_by_side_do_not_share_their_delays)
class CountsFailuresOfAllTogether(Retrier):
    failures = 0

    def factor(self, plan: Plan, failed: int) -> float:
        self.failures += 1
        return super().factor(plan, self.failures)


@BUGS.caught_by(Contract.test_a_thousand_attempts_are_no_trouble)
class OverflowsInTheEnd(Retrier):
    def factor(self, plan: Plan, failed: int) -> float:
        return 2.0 ** (failed - 1) if plan.strategy is Strategy.EXPONENTIAL else super().factor(plan, failed)


SUITE = Suite(Contract, "testkit.contracts.references.retry:Retrier", BUGS)
