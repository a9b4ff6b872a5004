"""Histories of replicas: small ones, kept ones, and ones with a planted defect, which must be noticed."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from edgeproxy.core.replication.commands import Cause
from packages.proxy.tests.simulation import __main__ as command
from packages.proxy.tests.simulation import history, regressions
from packages.proxy.tests.simulation.history import Outcome, run
from packages.proxy.tests.simulation.plants import Plant

SMALL = 8
SEEDS = range(50)
ENOUGH_SEEDS = 400
"""Among so many, each planted defect shows; most show among the first few."""
SHOWN_BY = {
    Plant.SNAPSHOT_REMOVES_NOTHING: 31,
    Plant.INCARNATION_REUSED: 17,
    Plant.CLOCK_NOT_MERGED: 10,
    Plant.DEAD_NOT_ASKED: 4,
}
"""Seeds to try first, which takes less time; any other would do."""


@cache
def lived(seed: int) -> Outcome:
    return run(seed, SMALL)


class TestHistories:
    @pytest.mark.feature("replication.membership")
    @pytest.mark.parametrize("start", [0, 10, 20, 30, 40])
    def test_all_end_in_agreement(self, start: int) -> None:
        for seed in SEEDS[start : start + 10]:
            outcome = lived(seed)
            assert not outcome.violations, f"nox -s simulate -- --seed {seed} --max-nodes {SMALL}"

    @pytest.mark.parametrize(("seed", "max_nodes"), regressions.kept())
    def test_that_were_kept_end_in_agreement(self, seed: int, max_nodes: int) -> None:
        assert run(seed, max_nodes).violations == ()

    def test_are_the_same_for_the_same_seed(self) -> None:
        assert run(7, SMALL) == lived(7)

    def test_have_everything_in_them(self) -> None:
        seen: Counter[str] = Counter()
        for seed in SEEDS:
            seen += lived(seed).seen
        faults = (
            "crash",
            "partition",
            "one_way",
            "jump",
            "join",
            "leave",
            "restore",
            "vanish",
            "lose_state",
            "stop",
            "membership",
        )
        warnings = (Cause.CLOCK_AHEAD, Cause.SNAPSHOT, Cause.FORGOTTEN)
        assert not [each for each in (*faults, *warnings) if not seen[each]]


@pytest.mark.parametrize("plant", Plant)
def test_planted_defects_are_noticed(plant: Plant) -> None:
    seeds = (SHOWN_BY.get(plant, 0), *range(ENOUGH_SEEDS))
    assert any(run(seed, SMALL, plant).violations for seed in seeds)


def breaks(seed: int, max_nodes: int, plant: Plant | None) -> Outcome:
    return Outcome(seed, 4, ("it broke",), Counter())


class TestCommand:
    def test_prints_a_closing_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert command.main(["--seeds", "3", "--first", "5", "--max-nodes", "3"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("first seed 5\n")
        assert "3 seeds with 9 nodes lived through in " in printed
        assert printed.endswith(" s, 0 failed\n")

    def test_prints_what_repeats_a_failure(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / "regressions.txt"
        file.write_text("# none\n")
        monkeypatch.setattr(regressions, "FILE", file)
        monkeypatch.setattr(history, "run", breaks)
        for _ in range(2):
            assert command.main(["--seed", "12", "--max-nodes", "9"]) == 1
        printed = capsys.readouterr().out
        assert "  it broke\n" in printed
        assert "  repeat nox -s simulate -- --seed 12 --max-nodes 9\n" in printed
        assert regressions.kept() == [(12, 9)]

    def test_keeps_nothing_that_was_planted(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(history, "run", breaks)
        assert command.main(["--seed", "12", "--plant", "gaps-ignored"]) == 1
        assert "--seed 12 --max-nodes 50 --plant gaps-ignored\n" in capsys.readouterr().out
        assert (12, 50) not in regressions.kept()
