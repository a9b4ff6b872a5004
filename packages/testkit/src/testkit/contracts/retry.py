"""What everything that calls an operation again must do: when, how often, for which errors, to what end.

The tests look at nothing but the operation: how often it is called, and when by the loop's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises_async
from testkit.contracts.contract import Contract, needs, since


class Strategy(StrEnum):
    """How long the n-th delay is, before jitter and bound: n counts from 1."""

    FIXED = "fixed"
    """base"""
    LINEAR = "linear"
    """n times base"""
    EXPONENTIAL = "exponential"
    """base, then twice the one before"""
    FIBONACCI = "fibonacci"
    """1, 1, 2, 3, 5 … times base"""
    DECORRELATED = "decorrelated"
    """drawn between base and three times the delay before"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to call again."""

    strategy: Strategy = Strategy.EXPONENTIAL
    base_s: float = 1.0
    longest_s: float = 1_000.0
    """No delay is longer."""
    attempts: int = 5
    """Calls at most, the first included."""
    jitter: bool = False
    """Draw each delay, so that those who failed together do not come again together."""
    errors: tuple[type[Exception], ...] = (Exception,)
    """Those that are worth another attempt."""


BeforeRetry = Callable[[int, Exception, float], None]
"""Told before each delay: how many calls have failed, the last error, the delay in seconds."""


class RetryHarness(Protocol):
    """What a test must know of an implementation."""

    async def call(
        self,
        operation: Callable[[], Awaitable[Any]],
        plan: Plan,
        *,
        before_retry: BeforeRetry | None = None,
        fallback: Callable[[Exception], Any] | None = None,
    ) -> Any:
        """Return the operation's result. When no attempt is left, raise its last error, or return what
        ``fallback`` makes of it. ``before_retry`` and ``fallback`` are given only to who has them."""
        ...


class Operation:
    """Fails with the errors given, one a call, then succeeds; remembers when it was called."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.times_s: list[float] = []

    async def __call__(self) -> str:
        self.times_s.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    @property
    def calls(self) -> int:
        return len(self.times_s)

    @property
    def delays_s(self) -> list[float]:
        return [round(after - before, 6) for before, after in pairwise(self.times_s)]


class RetryContract(
    Contract,
    contract="retry",
    capabilities={
        "linear": "delays that grow by the base each time",
        "fibonacci": "delays that grow as Fibonacci's numbers do",
        "decorrelated": "delays that are drawn from the one before",
        "jitter": "delays can be drawn",
        "callbacks": "somebody is told before each retry",
        "fallback": "something else answers when no attempt is left",
    },
    virtual_time=True,
):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    # ---- how often ---------------------------------------------------------------------------------

    async def test_success_is_returned_at_once(self, harness: RetryHarness) -> None:
        operation = Operation()
        assert await harness.call(operation, Plan()) == "done"
        assert operation.calls == 1
        assert asyncio.get_running_loop().time() == operation.times_s[0]

    async def test_operation_is_called_until_it_succeeds(self, harness: RetryHarness) -> None:
        operation = failing(3)
        assert await harness.call(operation, Plan()) == "done"
        assert operation.calls == 4

    async def test_attempts_are_bounded_and_the_last_error_is_raised(self, harness: RetryHarness) -> None:
        errors = [ValueError(str(number)) for number in range(5)]
        operation = Operation(*errors)
        error = await assert_raises_async(ValueError, lambda: harness.call(operation, Plan(attempts=5)))
        assert error is errors[-1]
        assert operation.calls == 5

    async def test_last_attempt_may_succeed(self, harness: RetryHarness) -> None:
        operation = failing(4)
        assert await harness.call(operation, Plan(attempts=5)) == "done"

    async def test_single_attempt_is_not_repeated(self, harness: RetryHarness) -> None:
        operation = failing(1)
        await assert_raises_async(ValueError, lambda: harness.call(operation, Plan(attempts=1)))
        assert operation.calls == 1

    async def test_nobody_waits_after_the_last_failure(self, harness: RetryHarness) -> None:
        operation = failing(9)
        await assert_raises_async(ValueError, lambda: harness.call(operation, Plan(attempts=3)))
        assert asyncio.get_running_loop().time() == operation.times_s[-1]

    # ---- when --------------------------------------------------------------------------------------

    async def test_exponential_delays_double(self, harness: RetryHarness) -> None:
        assert await delays(harness, Plan(Strategy.EXPONENTIAL, attempts=6)) == [1, 2, 4, 8, 16]

    async def test_fixed_delays_are_all_the_same(self, harness: RetryHarness) -> None:
        assert await delays(harness, Plan(Strategy.FIXED, base_s=2.5)) == [2.5] * 4

    @needs("linear")
    async def test_linear_delays_grow_by_the_base(self, harness: RetryHarness) -> None:
        assert await delays(harness, Plan(Strategy.LINEAR, base_s=0.5)) == [0.5, 1.0, 1.5, 2.0]

    @needs("fibonacci")
    async def test_fibonacci_delays_are_the_sum_of_the_two_before(self, harness: RetryHarness) -> None:
        assert await delays(harness, Plan(Strategy.FIBONACCI, attempts=8)) == [1, 1, 2, 3, 5, 8, 13]

    async def test_delays_begin_with_the_base(self, harness: RetryHarness) -> None:
        for strategy in (Strategy.EXPONENTIAL, Strategy.FIXED):
            assert (await delays(harness, Plan(strategy, base_s=0.25)))[0] == 0.25

    async def test_no_delay_is_longer_than_the_longest(self, harness: RetryHarness) -> None:
        plan = Plan(Strategy.EXPONENTIAL, longest_s=5.0, attempts=6)
        assert await delays(harness, plan) == [1, 2, 4, 5, 5]

    @needs("linear", "fibonacci")
    async def test_longest_delay_binds_every_strategy(self, harness: RetryHarness) -> None:
        assert await delays(harness, Plan(Strategy.LINEAR, longest_s=2.5)) == [1, 2, 2.5, 2.5]
        assert await delays(harness, Plan(Strategy.FIBONACCI, longest_s=2.5)) == [1, 1, 2, 2.5]

    # ---- jitter ------------------------------------------------------------------------------------

    @needs("jitter")
    async def test_jitter_sets_callers_apart(self, harness: RetryHarness) -> None:
        first = [(await delays(harness, Plan(jitter=True, attempts=2)))[0] for _ in range(30)]
        assert len({*first}) > 20, "those who failed together come again together"

    @needs("jitter")
    async def test_jitter_stays_in_bounds(self, harness: RetryHarness) -> None:
        for _ in range(30):
            for drawn, nominal in zip(await delays(harness, Plan(jitter=True)), [1, 2, 4, 8], strict=True):
                assert 0 <= drawn <= 2 * nominal

    @needs("jitter")
    async def test_jitter_does_not_exceed_the_longest_delay(self, harness: RetryHarness) -> None:
        for _ in range(30):
            assert max(await delays(harness, Plan(base_s=8.0, longest_s=10.0, jitter=True))) <= 10.0

    @needs("decorrelated")
    async def test_decorrelated_delays_are_drawn_from_the_one_before(self, harness: RetryHarness) -> None:
        seen: set[float] = set()
        grown = False
        for _ in range(30):
            drawn = await delays(harness, Plan(Strategy.DECORRELATED, longest_s=20.0))
            for before, after in pairwise([1.0, *drawn]):
                assert 1.0 <= after <= min(20.0, 3 * before) + 1e-5
            seen.update(drawn)
            grown = grown or max(drawn) > 3.0
        assert len(seen) > 60
        assert grown, "a delay is drawn from the one before, not from the base"

    # ---- which errors ------------------------------------------------------------------------------

    async def test_other_errors_are_raised_at_once(self, harness: RetryHarness) -> None:
        operation = Operation(KeyError("other"))
        plan = Plan(errors=(ValueError, OSError))
        await assert_raises_async(KeyError, lambda: harness.call(operation, plan))
        assert operation.calls == 1

    async def test_listed_errors_and_their_kinds_are_retried(self, harness: RetryHarness) -> None:
        operation = Operation(ValueError(), ConnectionResetError(), OSError())
        assert await harness.call(operation, Plan(errors=(ValueError, OSError))) == "done"

    async def test_other_error_ends_retries_under_way(self, harness: RetryHarness) -> None:
        operation = Operation(ValueError(), KeyError("other"), ValueError())
        await assert_raises_async(KeyError, lambda: harness.call(operation, Plan(errors=(ValueError,))))
        assert operation.calls == 2

    async def test_cancelling_is_never_retried(self, harness: RetryHarness) -> None:
        operation = Operation(asyncio.CancelledError())
        await assert_raises_async(asyncio.CancelledError, lambda: harness.call(operation, Plan()))
        assert operation.calls == 1

    async def test_delay_can_be_cancelled(self, harness: RetryHarness) -> None:
        operation = failing(5)
        calling = asyncio.ensure_future(harness.call(operation, Plan(base_s=100.0)))
        await asyncio.sleep(1.0)
        calling.cancel()
        await asyncio.wait([calling])
        assert calling.cancelled()
        await asyncio.sleep(500.0)
        assert operation.calls == 1

    # ---- who is told, and what else there is -------------------------------------------------------

    @needs("callbacks")
    async def test_callback_is_told_before_each_retry(self, harness: RetryHarness) -> None:
        errors = [ValueError(str(number)) for number in range(3)]
        told: list[tuple[float, int, Exception, float]] = []

        def before_retry(failed: int, error: Exception, delay_s: float) -> None:
            told.append((asyncio.get_running_loop().time(), failed, error, round(delay_s, 6)))

        operation = Operation(*errors)
        await harness.call(operation, Plan(), before_retry=before_retry)
        assert told == [
            (operation.times_s[number], number + 1, errors[number], delay_s)
            for number, delay_s in enumerate([1, 2, 4])
        ]

    @needs("callbacks")
    async def test_callback_is_not_told_where_nothing_is_retried(self, harness: RetryHarness) -> None:
        told: list[int] = []

        def before_retry(failed: int, error: Exception, delay_s: float) -> None:
            told.append(failed)

        await harness.call(Operation(), Plan(), before_retry=before_retry)
        await assert_raises_async(
            ValueError, lambda: harness.call(failing(9), Plan(attempts=2), before_retry=before_retry)
        )
        assert told == [1], "the last failure is followed by no retry"

    @needs("fallback")
    async def test_fallback_answers_when_no_attempt_is_left(self, harness: RetryHarness) -> None:
        errors = [ValueError(str(number)) for number in range(3)]
        given: list[Exception] = []

        def fall_back(error: Exception) -> str:
            given.append(error)
            return "instead"

        assert await harness.call(Operation(*errors), Plan(attempts=3), fallback=fall_back) == "instead"
        assert given == [errors[-1]]

    @needs("fallback")
    async def test_fallback_is_not_asked_when_an_attempt_succeeds(self, harness: RetryHarness) -> None:
        def fall_back(error: Exception) -> str:
            raise AssertionError("there was no need")

        assert await harness.call(failing(2), Plan(attempts=3), fallback=fall_back) == "done"

    @needs("fallback")
    async def test_error_of_the_fallback_is_raised(self, harness: RetryHarness) -> None:
        def fall_back(error: Exception) -> str:
            raise LookupError("nothing in the cache either")

        await assert_raises_async(
            LookupError, lambda: harness.call(failing(9), Plan(attempts=2), fallback=fall_back)
        )

    # ---- many at once ------------------------------------------------------------------------------

    @since(2)
    async def test_calls_side_by_side_do_not_share_their_delays(self, harness: RetryHarness) -> None:
        operations = [failing(3) for _ in range(20)]
        await asyncio.gather(*(harness.call(each, Plan()) for each in operations))
        assert all(each.delays_s == [1, 2, 4] for each in operations)

    @since(2)
    async def test_a_thousand_attempts_are_no_trouble(self, harness: RetryHarness) -> None:
        plan = Plan(longest_s=10.0, attempts=1_200)
        operation = failing(1_199)
        assert await harness.call(operation, plan) == "done"
        assert operation.delays_s[-1] == 10.0


def failing(times: int) -> Operation:
    """Fails so often, with ``ValueError``, then succeeds."""
    return Operation(*(ValueError(str(number)) for number in range(times)))


async def delays(harness: RetryHarness, plan: Plan) -> list[float]:
    """The delays of a call that needs all its attempts."""
    operation = failing(plan.attempts - 1)
    await harness.call(operation, plan)
    return operation.delays_s
