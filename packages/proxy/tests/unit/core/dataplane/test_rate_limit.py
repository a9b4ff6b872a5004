"""Token buckets: what they let through, to the fraction of a token.

These are the facts of the original's limiter; its names for them stand in ``docs/rate-limiting.md``. Those
that need a table of clients are in ``tests/integration/worker/test_client_buckets.py``.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeproxy.core.dataplane.rate_limit import TokenBucket, client_tag

TERMS = TokenBucket(burst=10, per_s=100)


class Bucket:
    """One client's bucket, as the shared table keeps it."""

    def __init__(self, terms: TokenBucket) -> None:
        self.terms = terms
        self.tokens = terms.burst
        self.at_s = 0.0

    def level(self, now_s: float) -> float:
        return self.terms.level(self.tokens, self.at_s, now_s)

    def take(self, now_s: float, cost: float = 1.0) -> bool:
        level = self.level(now_s)
        if not self.terms.allows(level, cost):
            return False
        self.tokens, self.at_s = level - cost, now_s
        return True

    def take_all(self, now_s: float) -> int:
        taken = 0
        while self.take(now_s):
            taken += 1
        return taken


@pytest.mark.parametrize("now_s", [0.0, 1.0, 12345.678, 8_640_000.123])
def test_a_new_client_has_a_full_bucket(now_s: float) -> None:
    assert Bucket(TERMS).take_all(now_s) == 10


def test_an_empty_bucket_gives_nothing() -> None:
    bucket = Bucket(TERMS)
    bucket.take_all(50.0)
    assert not bucket.take(50.0)
    assert bucket.level(50.0) == 0


def test_tokens_come_back_at_the_rate() -> None:
    bucket = Bucket(TERMS)
    bucket.take_all(50.0)
    assert bucket.take_all(50.05) == 5


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = Bucket(TERMS)
    bucket.take_all(50.0)
    assert bucket.level(5_000.0) == 10
    assert bucket.take_all(5_000.0) == 10


def test_an_empty_bucket_is_full_after_its_time_to_fill() -> None:
    bucket = Bucket(TERMS)
    bucket.take_all(50.0)
    assert TERMS.fill_s == 0.1
    assert bucket.level(50.0 + TERMS.fill_s) == pytest.approx(10)


def test_the_level_counts_fractions() -> None:
    bucket = Bucket(TERMS)
    assert bucket.level(50.0) == 10
    bucket.take(50.0)
    assert bucket.level(50.0) == 9
    assert bucket.level(50.0025) == pytest.approx(9.25)


def test_a_cost_takes_so_many_tokens() -> None:
    bucket = Bucket(TERMS)
    assert bucket.take(50.0, cost=7)
    assert bucket.level(50.0) == 3
    assert not bucket.take(50.0, cost=4)
    assert bucket.take(50.0, cost=3)


def test_a_cost_beyond_the_burst_is_never_met() -> None:
    assert not Bucket(TERMS).take(1e6, cost=11)


def test_a_refusal_costs_nothing() -> None:
    bucket = Bucket(TERMS)
    bucket.take_all(50.0)
    for _ in range(100):
        assert not bucket.take(50.009)
    assert bucket.take(50.01)


def test_no_fraction_is_lost_however_often_somebody_asks() -> None:
    """The original rounded at each refill: who asked often enough got nothing."""
    bucket = Bucket(TokenBucket(burst=1, per_s=1))
    taken = sum(bucket.take(50 + milliseconds / 1000) for milliseconds in range(100_001))
    assert taken == 101


@given(per_s=st.floats(1e-4, 1e8), now_s=st.floats(0, 1e8), burst=st.integers(1, 1_000))
def test_a_burst_is_exact_at_any_rate_and_time(per_s: float, now_s: float, burst: int) -> None:
    assert Bucket(TokenBucket(burst, per_s)).take_all(now_s) == burst


def test_tags_tell_clients_and_segments_apart() -> None:
    tags = {client_tag(secret, network) for secret in (1, 2) for network in range(100)}
    assert len(tags) == 200
    assert all(0 < tag < 2**64 for tag in tags)


class BucketAgainstLevel(RuleBasedStateMachine):
    """Any sequence of waits and takes, compared with a level that is refilled in exact arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.bucket = Bucket(TokenBucket(burst=5, per_s=3))
        self.now = Fraction(1000)
        self.level = Fraction(5)

    @rule(milliseconds=st.integers(0, 3_000))
    def wait(self, milliseconds: int) -> None:
        passed = Fraction(milliseconds, 1000)
        self.now += passed
        self.level = min(Fraction(5), self.level + passed * 3)

    @rule(cost=st.sampled_from([0.5, 1.0, 1.0, 2.0, 6.0]))
    def take(self, cost: float) -> None:
        taken = self.bucket.take(float(self.now), cost)
        missing = Fraction(cost) - self.level
        # So much may be missing; on the very edge, rounding decides.
        if abs(missing - Fraction(1, 1000)) > Fraction(1, 10**6):
            assert taken is (missing < Fraction(1, 1000))
        if taken:
            self.level -= Fraction(cost)

    @invariant()
    def levels_agree(self) -> None:
        assert self.bucket.level(float(self.now)) == pytest.approx(float(self.level), abs=1e-9)


TestBucketAgainstLevel = BucketAgainstLevel.TestCase
