"""Judges of health with a known bug."""

from __future__ import annotations

from testkit.contracts.health_thresholds import HealthThresholdsContract, Status
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.health_thresholds import MemoryJudge, MemoryJudges

Contract = HealthThresholdsContract
BUGS = PlantedBugs(Contract, MemoryJudges)


@BUGS.caught_by(Contract.test_nothing_is_known_at_first)
class BelievesInHealth(MemoryJudge):
    def __init__(self, rise: int, fall: int) -> None:
        super().__init__(rise, fall)
        self.status = Status.HEALTHY


@BUGS.caught_by(
    Contract.test_so_many_good_results_are_health, Contract.test_unhealthy_rises_after_so_many_good_results
)
class RisesOneEarly(MemoryJudge):
    def __init__(self, rise: int, fall: int) -> None:
        super().__init__(max(1, rise - 1), fall)


@BUGS.caught_by(
    Contract.test_so_many_bad_results_are_none, Contract.test_healthy_falls_after_so_many_bad_results
)
class FallsOneLate(MemoryJudge):
    def __init__(self, rise: int, fall: int) -> None:
        super().__init__(rise, fall + 1)


@BUGS.caught_by(
    Contract.test_good_result_ends_a_row_of_bad_ones,
    Contract.test_bad_result_ends_a_row_of_good_ones,
    Contract.test_unknown_stays_unknown_while_results_alternate,
)
class CountsResultsThatAreNotInARow(MemoryJudge):
    good = bad = 0

    def is_enough(self, is_good: bool) -> bool:
        self.good += is_good
        self.bad += not is_good
        return self.good >= self.rise if is_good else self.bad >= self.fall


@BUGS.caught_by(Contract.test_each_change_is_told_once)
class TellsEachResult(MemoryJudge):
    def checked(self, is_good: bool) -> bool:
        super().checked(is_good)
        return self.is_enough(is_good)


@BUGS.caught_by(Contract.test_thresholds_of_one_follow_every_result)
class WantsTwoAtLeast(MemoryJudge):
    def __init__(self, rise: int, fall: int) -> None:
        super().__init__(max(2, rise), max(2, fall))


@BUGS.caught_by(Contract.test_long_health_earns_no_patience)
class WeighsAllResults(MemoryJudge):
    score = 0

    def checked(self, is_good: bool) -> bool:
        self.score += 1 if is_good else -1
        return super().checked(is_good)

    def is_enough(self, is_good: bool) -> bool:
        return super().is_enough(is_good) and (is_good or self.score < self.rise)


SUITE = Suite(
    Contract,
    "testkit.contracts.references.health_thresholds:MemoryJudges",
    BUGS,
    mutate=(MemoryJudge.__name__,),
)
