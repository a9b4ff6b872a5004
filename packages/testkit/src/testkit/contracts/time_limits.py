"""What everything that limits the time of a call must do: end it in time, and leave nothing running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises_async
from testkit.contracts.contract import Contract, needs, since

Operation = Callable[[], Awaitable[Any]]


class AdaptiveLimit(Protocol):
    """A limit that follows how long calls took lately."""

    @property
    def limit_s(self) -> float:
        """Of the next call."""
        ...

    async def call(self, operation: Operation) -> Any:
        """Return the operation's result; ``TimeoutError`` when it takes longer than :attr:`limit_s`."""
        ...


class TimeLimitHarness(Protocol):
    """What a test must know of an implementation."""

    async def limited(self, operation: Operation, limit_s: float) -> Any:
        """Return the operation's result; ``TimeoutError`` when it takes longer."""
        ...

    async def partial(self, operations: Sequence[Operation], limit_s: float) -> list[Any]:
        """Run all side by side; return the results there are when the time is up, or all are done, in the
        order of ``operations``. Those that failed have none."""
        ...

    def adaptive(self, *, initial_s: float, least_s: float, most_s: float) -> AdaptiveLimit:
        """A limit that knows nothing yet, and is never outside these bounds."""
        ...


class Work:
    """Takes so long, then returns ``result``; remembers what became of it."""

    def __init__(self, seconds: float, result: Any = "done", error: BaseException | None = None) -> None:
        self._seconds = seconds
        self._result = result
        self._error = error
        self.ended = ""
        """``done``, ``failed`` or ``cancelled``; empty before."""

    async def __call__(self) -> Any:
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        if self._error is not None:
            self.ended = "failed"
            raise self._error
        self.ended = "done"
        return self._result


class TimeLimitContract(
    Contract,
    contract="time_limits",
    capabilities={
        "patience": "a call that was cancelled may wait for something while it tidies up",
        "partial": "of several calls, those that are done in time count",
        "adaptive": "the limit follows how long calls took lately",
    },
    virtual_time=True,
):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    # ---- one call ----------------------------------------------------------------------------------

    async def test_result_in_time_is_returned(self, harness: TimeLimitHarness) -> None:
        assert await harness.limited(Work(0.9), 1.0) == "done"

    async def test_call_that_takes_longer_ends_at_the_limit(self, harness: TimeLimitHarness) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await assert_raises_async(TimeoutError, lambda: harness.limited(Work(60.0), 5.0))
        assert loop.time() - began_s == 5.0

    async def test_call_that_takes_longer_is_cancelled(self, harness: TimeLimitHarness) -> None:
        work = Work(60.0)
        await assert_raises_async(TimeoutError, lambda: harness.limited(work, 5.0))
        await asyncio.sleep(100.0)
        assert work.ended == "cancelled"

    @needs("patience")
    async def test_clean_up_of_the_call_is_waited_for(self, harness: TimeLimitHarness) -> None:
        cleaned: list[str] = []

        async def tidy() -> None:
            try:
                await asyncio.sleep(60.0)
            finally:
                await asyncio.sleep(1.0)
                cleaned.append("up")

        await assert_raises_async(TimeoutError, lambda: harness.limited(tidy, 5.0))
        assert cleaned == ["up"]

    async def test_error_of_the_call_is_raised(self, harness: TimeLimitHarness) -> None:
        error = ValueError("its own")
        raised = await assert_raises_async(ValueError, lambda: harness.limited(Work(0.5, error=error), 1.0))
        assert raised is error

    async def test_limit_of_nothing_is_over_at_once(self, harness: TimeLimitHarness) -> None:
        began_s = asyncio.get_running_loop().time()
        await assert_raises_async(TimeoutError, lambda: harness.limited(Work(1.0), 0.0))
        assert asyncio.get_running_loop().time() == began_s

    async def test_very_short_limit_is_kept(self, harness: TimeLimitHarness) -> None:
        await assert_raises_async(TimeoutError, lambda: harness.limited(Work(0.01), 0.001))
        assert await harness.limited(Work(0.0005), 0.001) == "done"

    async def test_cancelling_the_caller_is_no_timeout(self, harness: TimeLimitHarness) -> None:
        work = Work(60.0)
        calling = asyncio.ensure_future(harness.limited(work, 100.0))
        await asyncio.sleep(1.0)
        calling.cancel()
        await asyncio.wait([calling])
        assert calling.cancelled()
        assert work.ended == "cancelled"

    @since(2)
    async def test_limits_may_be_nested_and_the_shorter_one_holds(self, harness: TimeLimitHarness) -> None:
        loop = asyncio.get_running_loop()
        for outer_s, inner_s in ((2.0, 50.0), (50.0, 2.0)):
            began_s = loop.time()

            async def inner(limit_s: float = inner_s) -> Any:
                return await harness.limited(Work(60.0), limit_s)

            await assert_raises_async(TimeoutError, partial(harness.limited, inner, outer_s))
            assert loop.time() - began_s == 2.0

    # ---- several calls -----------------------------------------------------------------------------

    @needs("partial")
    async def test_all_results_are_returned_as_soon_as_all_are_there(self, harness: TimeLimitHarness) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        assert await harness.partial([Work(3.0, "a"), Work(1.0, "b")], 60.0) == ["a", "b"]
        assert loop.time() - began_s == 3.0

    @needs("partial")
    async def test_results_in_time_are_returned_when_the_time_is_up(self, harness: TimeLimitHarness) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        works = [Work(60.0, "late"), Work(2.0, "b"), Work(60.0, "late"), Work(1.0, "d")]
        assert await harness.partial(works, 5.0) == ["b", "d"]
        assert loop.time() - began_s == 5.0

    @needs("partial")
    async def test_calls_that_are_not_done_in_time_are_cancelled(self, harness: TimeLimitHarness) -> None:
        late, quick = Work(60.0), Work(1.0)
        await harness.partial([late, quick], 5.0)
        await asyncio.sleep(100.0)
        assert (late.ended, quick.ended) == ("cancelled", "done")

    @needs("partial")
    async def test_no_result_in_time_is_no_error(self, harness: TimeLimitHarness) -> None:
        assert await harness.partial([Work(60.0), Work(61.0)], 5.0) == []
        assert await harness.partial([], 5.0) == []

    @needs("partial")
    async def test_call_that_fails_takes_no_result_from_others(self, harness: TimeLimitHarness) -> None:
        works = [Work(1.0, error=ValueError("its own")), Work(2.0, "b"), Work(60.0, "late")]
        assert await harness.partial(works, 5.0) == ["b"]

    # ---- limits that adapt -------------------------------------------------------------------------

    @needs("adaptive")
    async def test_adaptive_limit_begins_with_the_initial_one(self, harness: TimeLimitHarness) -> None:
        limit = harness.adaptive(initial_s=10.0, least_s=0.1, most_s=60.0)
        assert limit.limit_s == 10.0
        assert await limit.call(Work(9.0)) == "done"
        other = harness.adaptive(initial_s=10.0, least_s=0.1, most_s=60.0)
        await assert_raises_async(TimeoutError, lambda: other.call(Work(11.0)))

    @needs("adaptive")
    async def test_adaptive_limit_follows_calls_down_and_up(self, harness: TimeLimitHarness) -> None:
        limit = harness.adaptive(initial_s=10.0, least_s=0.1, most_s=60.0)
        await repeat(limit, 1.0)
        short_s = limit.limit_s
        assert 1.0 < short_s < 10.0
        await repeat(limit, short_s * 0.9)
        assert limit.limit_s > short_s

    @needs("adaptive")
    async def test_adaptive_limit_stays_in_its_bounds(self, harness: TimeLimitHarness) -> None:
        limit = harness.adaptive(initial_s=5.0, least_s=2.0, most_s=6.0)
        await repeat(limit, 0.001)
        assert limit.limit_s == 2.0
        for _ in range(50):
            await repeat(limit, limit.limit_s * 0.95, times=5)
        assert limit.limit_s == 6.0

    @needs("adaptive")
    async def test_adaptive_limit_holds_for_the_next_call(self, harness: TimeLimitHarness) -> None:
        limit = harness.adaptive(initial_s=10.0, least_s=0.1, most_s=60.0)
        await repeat(limit, 1.0)
        loop, allowed_s = asyncio.get_running_loop(), limit.limit_s
        began_s = loop.time()
        await assert_raises_async(TimeoutError, lambda: limit.call(Work(60.0)))
        assert round(loop.time() - began_s, 6) == round(allowed_s, 6)

    @needs("adaptive")
    async def test_adaptive_limit_recovers_from_calls_that_timed_out(self, harness: TimeLimitHarness) -> None:
        limit = harness.adaptive(initial_s=10.0, least_s=0.1, most_s=60.0)
        await repeat(limit, 1.0)
        for _ in range(50):
            try:
                await limit.call(Work(20.0))
            except TimeoutError:
                continue
            break
        else:
            raise AssertionError("calls take longer now, and the limit never learns it")

    @needs("adaptive")
    async def test_adaptive_limit_forgets_what_was_long_ago(self, harness: TimeLimitHarness) -> None:
        limit = harness.adaptive(initial_s=10.0, least_s=0.1, most_s=60.0)
        await repeat(limit, 9.0)
        await repeat(limit, 1.0, times=1_000)
        assert limit.limit_s < 9.0

    @needs("adaptive")
    async def test_failed_calls_do_not_shorten_the_limit(self, harness: TimeLimitHarness) -> None:
        limit = harness.adaptive(initial_s=10.0, least_s=0.1, most_s=60.0)
        await repeat(limit, 2.0)
        before_s = limit.limit_s
        for _ in range(100):
            await assert_raises_async(ValueError, lambda: limit.call(Work(0.0, error=ValueError("refused"))))
        assert limit.limit_s >= before_s


async def repeat(limit: AdaptiveLimit, seconds: float, times: int = 100) -> None:
    """Make so many calls that each take so long."""
    for _ in range(times):
        await limit.call(Work(seconds))
