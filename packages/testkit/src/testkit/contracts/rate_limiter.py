"""What every rate limiter of the token-bucket kind must do: a burst, then a rate, for each client by itself.

Time is an argument, in seconds on any clock that does not run backwards.
"""

from __future__ import annotations

from typing import Protocol

from testkit.contracts.contract import Contract, needs

T = 5_000.0
"""Now, when a test begins."""


class Limiter(Protocol):
    """The limiter under test."""

    def take(self, client: str, now_s: float, cost: float = 1.0) -> bool:
        """Whether the client may; if so, that is counted."""
        ...

    def remaining(self, client: str, now_s: float) -> float:
        """What the client may take at once."""
        ...

    def clear(self, client: str) -> None:
        """Make it a new client."""
        ...


class RateLimiterHarness(Protocol):
    """What a test must know of an implementation."""

    def open(self, burst: float, per_s: float) -> Limiter: ...


class RateLimiterContract(
    Contract,
    contract="rate_limiter",
    capabilities={
        "costs": "what is taken may be more than one",
        "remaining": "it says what is left",
        "clearing": "a client can be made a new one",
    },
):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    def test_new_client_has_its_burst_and_no_more(self, harness: RateLimiterHarness) -> None:
        assert take_all(harness.open(burst=10, per_s=1), "a", T) == 10

    def test_empty_bucket_gives_nothing(self, harness: RateLimiterHarness) -> None:
        limiter = emptied(harness, burst=10, per_s=1)
        assert not limiter.take("a", T)
        assert not limiter.take("a", T + 0.9)

    def test_tokens_come_back_at_the_rate(self, harness: RateLimiterHarness) -> None:
        limiter = emptied(harness, burst=10, per_s=2)
        assert take_all(limiter, "a", T + 1.0) == 2
        assert take_all(limiter, "a", T + 3.5) == 5

    def test_bucket_holds_no_more_than_its_burst(self, harness: RateLimiterHarness) -> None:
        limiter = emptied(harness, burst=10, per_s=2)
        assert take_all(limiter, "a", T + 10_000.0) == 10

    def test_refusals_cost_nothing(self, harness: RateLimiterHarness) -> None:
        limiter = emptied(harness, burst=5, per_s=1)
        for tenth in range(10):
            assert not limiter.take("a", T + tenth / 10)
        assert limiter.take("a", T + 1.0)

    def test_fractions_add_up(self, harness: RateLimiterHarness) -> None:
        limiter = emptied(harness, burst=5, per_s=1)
        taken = sum(limiter.take("a", T + step / 3) for step in range(1, 31))
        assert taken == 10

    def test_clients_have_buckets_of_their_own(self, harness: RateLimiterHarness) -> None:
        limiter = emptied(harness, burst=5, per_s=1)
        assert take_all(limiter, "b", T) == 5
        assert not limiter.take("a", T)

    def test_rate_is_kept_over_a_long_time(self, harness: RateLimiterHarness) -> None:
        limiter = harness.open(burst=10, per_s=5)
        taken = sum(limiter.take("a", T + step / 100) for step in range(10_001))
        assert abs(taken - (10 + 5 * 100)) <= 1

    @needs("costs")
    def test_cost_is_taken_whole_or_not_at_all(self, harness: RateLimiterHarness) -> None:
        limiter = harness.open(burst=10, per_s=1)
        assert limiter.take("a", T, cost=7)
        assert not limiter.take("a", T, cost=4)
        assert limiter.take("a", T, cost=3)
        assert not limiter.take("a", T)

    @needs("costs")
    def test_cost_beyond_the_burst_is_never_granted(self, harness: RateLimiterHarness) -> None:
        limiter = harness.open(burst=10, per_s=1)
        assert not limiter.take("a", T, cost=11)
        assert not limiter.take("a", T + 1_000.0, cost=11)
        assert limiter.take("a", T + 1_000.0, cost=10)

    @needs("remaining")
    def test_remaining_tells_what_can_be_taken(self, harness: RateLimiterHarness) -> None:
        limiter = harness.open(burst=10, per_s=1)
        assert limiter.remaining("a", T) == 10
        for _ in range(4):
            limiter.take("a", T)
        assert limiter.remaining("a", T) == 6
        assert limiter.remaining("a", T + 2.0) == 8
        assert limiter.remaining("a", T + 100.0) == 10

    @needs("remaining")
    def test_asking_what_remains_takes_nothing(self, harness: RateLimiterHarness) -> None:
        limiter = harness.open(burst=3, per_s=1)
        for _ in range(10):
            limiter.remaining("a", T)
        assert take_all(limiter, "a", T) == 3

    @needs("clearing")
    def test_cleared_client_is_as_a_new_one(self, harness: RateLimiterHarness) -> None:
        limiter = emptied(harness, burst=5, per_s=1)
        take_all(limiter, "b", T)
        limiter.clear("a")
        assert take_all(limiter, "a", T) == 5
        assert take_all(limiter, "b", T) == 0


def take_all(limiter: Limiter, client: str, now_s: float) -> int:
    """Take one at a time until it is refused; return how many there were."""
    for taken in range(1_000):
        if not limiter.take(client, now_s):
            return taken
    raise AssertionError("there is no limit")


def emptied(harness: RateLimiterHarness, *, burst: float, per_s: float) -> Limiter:
    """A limiter of which ``a`` has taken all."""
    limiter = harness.open(burst, per_s)
    take_all(limiter, "a", T)
    return limiter
