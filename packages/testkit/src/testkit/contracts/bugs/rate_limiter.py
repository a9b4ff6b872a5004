"""Rate limiters with a known bug."""

from __future__ import annotations

from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.rate_limiter import RateLimiterContract
from testkit.contracts.references.rate_limiter import MemoryLimiter, MemoryLimiters

Contract = RateLimiterContract
BUGS = PlantedBugs(Contract, MemoryLimiters)


@BUGS.caught_by(Contract.test_new_client_has_its_burst_and_no_more)
class GivesOneTooMany(MemoryLimiter):
    def __init__(self, burst: float, per_s: float) -> None:
        super().__init__(burst + 1, per_s)


@BUGS.caught_by(Contract.test_tokens_come_back_at_the_rate)
class GivesNothingBack(MemoryLimiter):
    def remaining(self, client: str, now_s: float) -> float:
        return self.buckets.get(client, (self.burst, now_s))[0]


@BUGS.caught_by(Contract.test_bucket_holds_no_more_than_its_burst)
class Overflows(MemoryLimiter):
    def remaining(self, client: str, now_s: float) -> float:
        level, at_s = self.buckets.get(client, (self.burst, now_s))
        return level + (now_s - at_s) * self.per_s


@BUGS.caught_by(Contract.test_refusals_cost_nothing)
class ChargesForRefusals(MemoryLimiter):
    def take(self, client: str, now_s: float, cost: float = 1.0) -> bool:
        if super().take(client, now_s, cost):
            return True
        self.buckets[client] = 0.0, now_s
        return False


@BUGS.caught_by(Contract.test_fractions_add_up)
class CountsWholeSeconds(MemoryLimiter):
    def take(self, client: str, now_s: float, cost: float = 1.0) -> bool:
        is_taken = super().take(client, now_s, cost)
        level, _ = self.buckets.get(client, (self.burst, now_s))
        self.buckets[client] = (level if is_taken else int(self.remaining(client, now_s))), now_s
        return is_taken


@BUGS.caught_by(Contract.test_clients_have_buckets_of_their_own)
class HasOneBucketForAll(MemoryLimiter):
    def take(self, client: str, now_s: float, cost: float = 1.0) -> bool:
        return super().take("everybody", now_s, cost)


@BUGS.caught_by(Contract.test_cost_is_taken_whole_or_not_at_all)
class ForgetsTheCost(MemoryLimiter):
    def take(self, client: str, now_s: float, cost: float = 1.0) -> bool:
        return super().take(client, now_s)


@BUGS.caught_by(Contract.test_cost_beyond_the_burst_is_never_granted)
class GoesIntoDebt(MemoryLimiter):
    def take(self, client: str, now_s: float, cost: float = 1.0) -> bool:
        if cost > self.burst and self.remaining(client, now_s) == self.burst:
            self.buckets[client] = self.burst - cost, now_s
            return True
        return super().take(client, now_s, cost)


@BUGS.caught_by(Contract.test_asking_what_remains_takes_nothing)
class ChargesForQuestions(MemoryLimiter):
    def remaining(self, client: str, now_s: float) -> float:
        level = super().remaining(client, now_s)
        self.buckets[client] = max(0.0, level - 1), now_s
        return level

    def take(self, client: str, now_s: float, cost: float = 1.0) -> bool:
        level = super().remaining(client, now_s)
        if level < cost:
            return False
        self.buckets[client] = level - cost, now_s
        return True


@BUGS.caught_by(Contract.test_cleared_client_is_as_a_new_one)
class ClearsEverybody(MemoryLimiter):
    def clear(self, client: str) -> None:
        self.buckets.clear()


SUITE = Suite(
    Contract,
    "testkit.contracts.references.rate_limiter:MemoryLimiters",
    BUGS,
    mutate=(MemoryLimiter.__name__,),
)
