"""The matrix: what pytest said of implementations, and what suites say of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testkit.contracts.checking import Report, Result, Verdict
from testkit.contracts.contract import Contract
from testkit.contracts.matrix import Implementation, SuiteRow, is_good, judge, read_outcomes, to_text
from testkit.contracts.mutants import MutantsReport, draw_mutants
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.suites import load

HELD = Report("bus", (Result("test_a", Verdict.PASSED), Result("test_b", Verdict.LACKS, "wings: none")))
BROKEN = Report("bus", (Result("test_a", Verdict.FAILED, "AssertionError: no"),))
ALL_KILLED = MutantsReport(7, 10, ())


def outcome(test: str, result: str, lacks: str = "") -> str:
    contract = {"name": "bus", "by": "TestOurs", "lacks": lacks, "level": 2}
    return json.dumps({"test": test, "outcome": result, "contract": contract})


def test_outcomes_are_gathered_by_contract_and_implementation(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    lines = [
        json.dumps({"test": "other", "outcome": "passed"}),
        outcome("test_a", "passed"),
        outcome("test_b", "skipped", "wings: it walks; and swims; legs: it flies"),
        outcome("test_c", "failed"),
        # Advisory and failed, which pytest calls skipped.
        outcome("test_d", "skipped"),
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    (found,) = read_outcomes(file)
    assert found == Implementation(
        *("bus", "TestOurs", 2),
        passed=1,
        failed=["test_c"],
        lacks={"wings": "it walks; and swims", "legs": "it flies"},
        left_out=2,
    )


def test_matrix_names_whatever_is_not_as_it_should_be() -> None:
    rows = [
        SuiteRow("bus", 2, HELD, 5, (), MutantsReport(7, 10, ("-old\n+new",))),
        SuiteRow("lock", 1, BROKEN, 5, ("Bug is not caught",), MutantsReport(7, 0, ())),
    ]
    ours = Implementation("bus", "TestOurs", 2, passed=1, failed=["test_c"], lacks={"wings": "it walks"})
    theirs = Implementation("row_store", "TestTheirs", 1, passed=3, left_out=2)
    assert to_text(rows, [ours, theirs]).splitlines() == [
        "bus@2, 2 tests",
        "  reference: 1 passed",
        "  bugs: 5/5 rejected",
        "  mutants: 9/10 killed, seed 7",
        "    -old",
        "    +new",
        "  TestOurs (level 2): 1 passed, 1 FAILED",
        "    lacks wings: it walks",
        "    failed: test_c",
        "",
        "lock@1, 1 tests",
        "  reference: 0 passed, 1 FAILED",
        "    test_a: AssertionError: no",
        "  bugs: 4/5 rejected",
        "    Bug is not caught",
        "  mutants: 0/0 killed, seed 7",
        "",
        "row_store",
        "  TestTheirs (level 1): 3 passed, 2 left out",
    ]


def test_matrix_names_what_only_the_reference_can_do() -> None:
    row = SuiteRow("bus", 1, HELD, 5, (), ALL_KILLED, ("wings", "legs", "gills"))
    reference = Implementation("bus", "TestReference", 1, passed=3)
    walks = Implementation("bus", "TestWalks", 1, passed=1, lacks={"wings": "it walks", "gills": "it walks"})
    flies = Implementation("bus", "TestFlies", 1, passed=1, lacks={"gills": "it flies"})
    assert (
        to_text([row], [reference, walks, flies]).splitlines()[-1] == "  held by the reference alone: gills"
    )
    assert "alone" not in to_text([row], [reference])


@pytest.mark.parametrize(
    ("row", "failed", "good"),
    [
        (SuiteRow("bus", 1, HELD, 5, (), ALL_KILLED), [], True),
        (SuiteRow("bus", 1, HELD, 5, (), MutantsReport(7, 10, ("diff",) * 2)), [], True),
        (SuiteRow("bus", 1, HELD, 5, (), MutantsReport(7, 10, ("diff",) * 3)), [], False),
        (SuiteRow("bus", 1, HELD, 5, ("missed",), ALL_KILLED), [], False),
        (SuiteRow("bus", 1, BROKEN, 5, (), ALL_KILLED), [], False),
        (SuiteRow("bus", 1, HELD, 5, (), ALL_KILLED), ["test_c"], False),
    ],
)
def test_good_is_what_holds_and_bites(row: SuiteRow, failed: list[str], good: bool) -> None:
    assert is_good([row], [Implementation("bus", "TestOurs", 1, failed=failed)]) is good


class NumberContract(Contract, contract="number"):
    def test_is_small(self, harness: int) -> None:
        assert harness < 100

    def test_is_positive(self, harness: int) -> None:
        assert harness > 0


BUGS = PlantedBugs(NumberContract, lambda kind: kind(-1))


@BUGS.caught_by(NumberContract.test_is_small)
class NotThatSmall(int): ...


def test_suite_that_does_not_bite_is_judged_without_mutants() -> None:
    row = judge(Suite(NumberContract, "builtins:int", BUGS), 10, 7)
    assert not row.holds
    assert row.missed == ("NotThatSmall is not caught by ['test_is_small']",)
    assert row.reference.of(Verdict.FAILED) == ["test_is_positive"]
    assert row.mutants.tried == 0


def test_seed_decides_which_mutants_are_drawn() -> None:
    suite = load("event_bus")
    drawn = draw_mutants(suite, 10, 7)
    assert len(drawn) == 10
    assert drawn == draw_mutants(suite, 10, 7) != draw_mutants(suite, 10, 8)
    assert {mutant.function.partition(".")[0] for mutant in drawn} == {*suite.mutate}
