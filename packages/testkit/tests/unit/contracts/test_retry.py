"""The contract of retries, held by the reference, tenacity, stamina, backoff and redis-py's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

import backoff
import pytest
import stamina
import tenacity
from redis.asyncio.retry import Retry
from redis.backoff import (
    AbstractBackoff,
    ConstantBackoff,
    DecorrelatedJitterBackoff,
    ExponentialBackoff,
    FullJitterBackoff,
)

from testkit.contracts.checking import assert_raises_async
from testkit.contracts.references.retry import Retrier
from testkit.contracts.retry import BeforeRetry, Plan, RetryContract, RetryHarness, Strategy, failing
from testkit.virtual_time import virtual_time


class TestReference(RetryContract, level=2):
    @pytest.fixture
    def harness(self) -> Retrier:
        return Retrier()


class Tenacity:
    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        def tell(state: tenacity.RetryCallState) -> None:
            assert state.next_action is not None
            assert before_retry is not None
            before_retry(state.attempt_number, _error_of(state), state.next_action.sleep)

        def fall_back(state: tenacity.RetryCallState) -> Any:
            assert fallback is not None
            return fallback(_error_of(state))

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(plan.attempts),
            wait=_wait(plan),
            retry=tenacity.retry_if_exception_type(plan.errors),
            before_sleep=None if before_retry is None else tell,
            retry_error_callback=None if fallback is None else fall_back,
            reraise=True,
        )
        return await retrying(operation)


def _error_of(state: tenacity.RetryCallState) -> Exception:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, Exception)
    return error


def _wait(plan: Plan) -> Any:
    base_s, longest_s = plan.base_s, plan.longest_s
    match plan.strategy:
        case Strategy.FIXED:
            return tenacity.wait_fixed(base_s)
        case Strategy.LINEAR:
            return tenacity.wait_incrementing(start=base_s, increment=base_s, max=longest_s)
        case Strategy.EXPONENTIAL if plan.jitter:
            return tenacity.wait_random_exponential(multiplier=base_s, max=longest_s)
        case Strategy.EXPONENTIAL:
            return tenacity.wait_exponential(multiplier=base_s, max=longest_s)
    raise NotImplementedError(plan.strategy)


class TestTenacity(
    RetryContract,
    level=2,
    lacks={
        "fibonacci": "wait strategies are fixed, incrementing, exponential and random",
        "decorrelated": "no wait strategy looks at the delay before",
    },
):
    @pytest.fixture
    def harness(self) -> Tenacity:
        return Tenacity()


class Stamina:
    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        caller = stamina.AsyncRetryingCaller(
            attempts=plan.attempts,
            timeout=None,
            wait_initial=plan.base_s,
            wait_max=plan.longest_s,
            wait_jitter=plan.base_s if plan.jitter else 0.0,
            wait_exp_base=1.0 if plan.strategy is Strategy.FIXED else 2.0,
        )
        return await caller(plan.errors, operation)


class TestStamina(
    RetryContract,
    level=2,
    lacks={
        "linear": "delays are exponential",
        "fibonacci": "delays are exponential",
        "decorrelated": "delays are exponential",
        "callbacks": "instrumentation is told of every retry of the process, not of one call's",
        "fallback": "the last error is raised",
    },
):
    @pytest.fixture
    def harness(self) -> Stamina:
        return Stamina()


class RedisRetry:
    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        async def ignore(_error: Exception) -> None: ...

        retry = Retry(_backoff(plan), plan.attempts - 1, plan.errors)  # type: ignore[arg-type]
        return await retry.call_with_retry(operation, ignore)


def _backoff(plan: Plan) -> AbstractBackoff:
    # Its first exponential delay is twice what it calls the base.
    match plan.strategy:
        case Strategy.FIXED:
            return ConstantBackoff(plan.base_s)
        case Strategy.EXPONENTIAL if plan.jitter:
            return FullJitterBackoff(plan.longest_s, plan.base_s / 2)
        case Strategy.EXPONENTIAL:
            return ExponentialBackoff(plan.longest_s, plan.base_s / 2)
        case Strategy.DECORRELATED:
            return DecorrelatedJitterBackoff(plan.longest_s, plan.base_s)
    raise NotImplementedError(plan.strategy)


class TestRedisRetry(
    RetryContract,
    level=2,
    lacks={
        "linear": "delays are constant, exponential or drawn",
        "fibonacci": "delays are constant, exponential or drawn",
        "callbacks": "who is told of a failure is told of the last one, too, and of no delay",
        "fallback": "the last error is raised",
    },
    overrides={
        "test_a_thousand_attempts_are_no_trouble": "a delay that has doubled a thousand times is no number"
    },
):
    @pytest.fixture
    def harness(self) -> RedisRetry:
        return RedisRetry()

    @virtual_time
    async def test_a_thousand_attempts_are_no_trouble(  # type: ignore[override]  # plain in the contract, too
        self, harness: RetryHarness
    ) -> None:
        # Redis-py doubles first and looks at the longest delay then.
        operation = failing(1_199)
        plan = Plan(longest_s=10.0, attempts=1_200)
        await assert_raises_async(OverflowError, lambda: harness.call(operation, plan))
        assert operation.calls > 1_000
        assert operation.delays_s[-1] == 10.0


class Backoff:
    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        def tell(details: Any) -> None:
            assert before_retry is not None
            before_retry(details["tries"], details["exception"], details["wait"])

        retrying = backoff.on_exception(
            _waits(plan),
            plan.errors,
            max_tries=plan.attempts,
            jitter=backoff.full_jitter if plan.jitter else None,
            on_backoff=None if before_retry is None else tell,
            logger=None,
        )

        # Only what is a coroutine function itself is awaited.
        async def attempt() -> Any:
            return await operation()

        return await retrying(attempt)()


def _waits(plan: Plan) -> Callable[[], Generator[float, Any, None]]:
    match plan.strategy:
        case Strategy.FIXED:
            return partial(backoff.constant, plan.base_s)  # type: ignore[arg-type]
        case Strategy.EXPONENTIAL:
            return partial(backoff.expo, factor=plan.base_s, max_value=plan.longest_s)
        case Strategy.FIBONACCI if plan.base_s == 1:
            return partial(backoff.fibo, max_value=plan.longest_s)  # type: ignore[arg-type]
    raise NotImplementedError(plan.strategy)


class TestBackoff(
    RetryContract,
    level=2,
    lacks={
        "linear": "delays are constant, powers, or Fibonacci's numbers",
        "decorrelated": "jitter is drawn from each delay, whatever the one before was",
        "fallback": "who is told that it gives up cannot answer",
    },
):
    """Its last release is of 2022, and it is still what many programs retry with."""

    @pytest.fixture
    def harness(self) -> Backoff:
        return Backoff()
