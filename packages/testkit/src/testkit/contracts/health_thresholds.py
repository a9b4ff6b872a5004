"""What everything that judges health by checks must do: change its mind after so many results in a row."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from testkit.contracts.contract import Contract


class Status(StrEnum):
    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Judge(Protocol):
    """The judge under test."""

    @property
    def status(self) -> Status: ...

    def checked(self, is_good: bool) -> bool:
        """Take in a result; whether the status has changed."""
        ...


class HealthThresholdsHarness(Protocol):
    """What a test must know of an implementation."""

    def open(self, rise: int, fall: int) -> Judge:
        """A judge that knows nothing: ``rise`` good results in a row are health, ``fall`` bad ones end it."""
        ...


class HealthThresholdsContract(Contract, contract="health_thresholds"):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    def test_nothing_is_known_at_first(self, harness: HealthThresholdsHarness) -> None:
        assert harness.open(2, 3).status is Status.UNKNOWN

    def test_so_many_good_results_are_health(self, harness: HealthThresholdsHarness) -> None:
        assert told(harness.open(2, 3), "++") == ["unknown", "healthy"]

    def test_so_many_bad_results_are_none(self, harness: HealthThresholdsHarness) -> None:
        assert told(harness.open(2, 3), "---") == ["unknown", "unknown", "unhealthy"]

    def test_healthy_falls_after_so_many_bad_results(self, harness: HealthThresholdsHarness) -> None:
        assert told(harness.open(2, 3), "++---")[-3:] == ["healthy", "healthy", "unhealthy"]

    def test_unhealthy_rises_after_so_many_good_results(self, harness: HealthThresholdsHarness) -> None:
        assert told(harness.open(2, 3), "---++")[-2:] == ["unhealthy", "healthy"]

    def test_good_result_ends_a_row_of_bad_ones(self, harness: HealthThresholdsHarness) -> None:
        assert {*told(harness.open(2, 3), "++" + "--+" * 10)[1:]} == {"healthy"}

    def test_bad_result_ends_a_row_of_good_ones(self, harness: HealthThresholdsHarness) -> None:
        assert {*told(harness.open(3, 2), "--" + "++-" * 10)[1:]} == {"unhealthy"}

    def test_unknown_stays_unknown_while_results_alternate(self, harness: HealthThresholdsHarness) -> None:
        assert {*told(harness.open(2, 2), "+-" * 10)} == {"unknown"}

    def test_thresholds_of_one_follow_every_result(self, harness: HealthThresholdsHarness) -> None:
        assert told(harness.open(1, 1), "+-+") == ["healthy", "unhealthy", "healthy"]

    def test_each_change_is_told_once(self, harness: HealthThresholdsHarness) -> None:
        judge = harness.open(2, 3)
        changes = [judge.checked(each == "+") for each in "+++----++"]
        assert changes == [False, True, False, False, False, True, False, False, True]

    def test_long_health_earns_no_patience(self, harness: HealthThresholdsHarness) -> None:
        judge = harness.open(2, 3)
        assert told(judge, "+" * 1_000 + "---")[-1] == "unhealthy"


def told(judge: Judge, results: str) -> list[str]:
    """The status after each of the results, ``+`` or ``-``."""
    seen = []
    for result in results:
        judge.checked(result == "+")
        seen.append(judge.status.value)
    return seen
