"""Campaigns on a small repository, with real processes that run its tests."""

from __future__ import annotations

import json
import subprocess
import time
from fractions import Fraction
from pathlib import Path

import pytest

from testkit.__main__ import main
from testkit.coverage.errors import CoverageInputError
from testkit.coverage.matrix import Count
from testkit.coverage.mutation import Campaign, Pool, PoolResult, to_document, to_text
from testkit.coverage.mutation_policy import Promise
from testkit.coverage.mutation_trial import Copy, Verdict, copies_of

PYPROJECT = """
[tool.coverage.run]
branch = true
patch = ["subprocess"]

[tool.testkit.coverage]
kinds = ["unit"]
sources = ["src/**/*.py"]
overall = { kinds = ["unit"], lines = 0, branches = 0 }

[tool.testkit.coverage.layers]
part = { paths = ["src/**/*.py"], kinds = ["unit"], lines = 0, branches = 0 }

[tool.testkit.mutation]
pytest_options = ["-p", "no:cacheprovider"]

[tool.testkit.mutation.layers]
part = { killed = REQUIRED }
"""
PART = """
def larger(a, b):
    return a > b


def forever(count):
    while count > 0:
        count -= 1
    return None


def unreached():
    return 1
"""
TESTS = """
from part import forever, larger


def test_larger():
    assert larger(2, 1)
    assert not larger(1, 2)


def test_it_ends():
    forever(3)
"""
WEAK = "from part import larger\n\ndef test_it(): larger(1, 2)\n"


def make_repository(root: Path, required: int = 50, tests: str = TESTS) -> Path:
    root.mkdir(exist_ok=True)
    (root / "src").mkdir()
    (root / "tests" / "unit").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT.replace("REQUIRED", str(required)))
    (root / "src" / "part.py").write_text(PART)
    (root / "tests" / "unit" / "test_part.py").write_text(tests)
    (root / ".gitignore").write_text("ignored.txt\n")
    (root / "ignored.txt").touch()
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


@pytest.fixture(autouse=True)
def quick_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests of the small repository the plugins of this one."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def test_a_copy_holds_what_git_would_take_and_is_gone_at_the_end(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repository")
    with copies_of(root, tmp_path / "copies", 2, []) as copies:
        assert len(copies) == 2
        assert (tmp_path / "copies" / "copy1" / "src" / "part.py").exists()
        assert not (tmp_path / "copies" / "copy0" / "ignored.txt").exists()
    assert list((tmp_path / "copies").iterdir()) == []


def test_without_git_there_is_nothing_to_copy(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    with pytest.raises(CoverageInputError, match="not a git repository"):
        Copy(tmp_path, tmp_path / "to")


def test_a_baseline_knows_the_lines_that_the_tests_reach(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repository")
    with copies_of(root, tmp_path / "copies", 1, []) as (copy,):
        baseline = copy.measure("src/part.py", ["tests/unit/test_part.py"])
    assert {3, 7, 8, 9} <= baseline.lines
    assert 13 not in baseline.lines
    assert baseline.seconds > 0


def test_tests_that_fail_by_themselves_say_nothing_about_defects(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repository", tests="def test_it(): assert 1 == 2\n")
    with (
        copies_of(root, tmp_path / "copies", 1, []) as (copy,),
        pytest.raises(CoverageInputError, match=r"fail without a defect(.|\n)*assert 1 == 2"),
    ):
        copy.measure("src/part.py", ["tests/unit/test_part.py"])


def test_what_a_defect_lets_run_on_is_ended_with_all_it_started(tmp_path: Path) -> None:
    leaves = """
import os, subprocess, sys
from part import larger

READ, WRITE = os.pipe()

def test_it():
    subprocess.Popen([sys.executable, "-c", "input()", "TOKEN"], stdin=READ, pass_fds=[WRITE],
                     start_new_session=True)
    assert larger(2, 1)
"""
    token = f"left behind by {tmp_path.name}"
    root = make_repository(tmp_path / "repository", tests=leaves.replace("TOKEN", token))
    with copies_of(root, tmp_path / "copies", 1, []) as (copy,):
        baseline = copy.measure("src/part.py", ["tests/unit/test_part.py"])
        assert copy.judge("src/part.py", PART, baseline) is Verdict.SURVIVED
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in running if token.encode() in line]


def run_campaign(tmp_path: Path, pool: Pool, deadline_s: float = 600.0, copies: int = 1) -> PoolResult:
    root = tmp_path / "repository"
    with copies_of(root, tmp_path / "copies", copies, ["-p", "no:cacheprovider"], grace_s=0.5) as made:
        return Campaign(root, made, 1, time.monotonic() + deadline_s).run(pool)


def a_pool(required: int = 50, **other: object) -> Pool:
    return Pool("part", Promise(Fraction(required), None), {"src/part.py": ("unit",)}, **other)  # type: ignore[arg-type]


def test_a_campaign_tells_what_is_noticed_what_survives_and_what_never_ends(tmp_path: Path) -> None:
    make_repository(tmp_path / "repository")
    lines = {"src/part.py": frozenset({3, 8, 13})}
    result = run_campaign(tmp_path, a_pool(lines=lines), copies=2)
    verdicts = {(trial.mutant.line, trial.mutant.replacement): trial.verdict for trial in result.trials}
    assert verdicts == {
        (3, ">="): Verdict.SURVIVED,
        (3, "None"): Verdict.KILLED,
        # Counting upwards never ends; so does not counting by 1, which counts by 2 and passes 0.
        (8, "+="): Verdict.TIMEOUT,
        (8, "2"): Verdict.SURVIVED,
    }
    assert (result.killed, result.kept, result.not_tried) == (Count(2, 4), True, 0)
    text = to_text([result])
    assert "SURVIVED src/part.py:3 larger\n" in text
    assert "    +    return a >= b\n" in text
    assert "not noticed by tests/unit/test_part.py" in text
    assert text.endswith(
        "part: 50.00 % of 4 mutants noticed, 50 % required: kept (1 killed; 1 timeout; 2 survived)"
    )


def test_a_campaign_without_time_tries_nothing_and_keeps_no_promise(tmp_path: Path) -> None:
    make_repository(tmp_path / "repository")
    result = run_campaign(tmp_path, a_pool(), deadline_s=-1)
    assert result.trials == []
    assert result.not_tried > 5
    assert not result.kept
    assert "MISSED" in to_text([result])


def test_so_many_are_drawn_as_are_wanted_the_same_by_the_same_seed(tmp_path: Path) -> None:
    make_repository(tmp_path / "repository")
    pool = Pool("part", Promise(Fraction(0), 1), {"src/part.py": ("unit",)})
    first, again = (run_campaign(tmp_path, pool).trials for _ in range(2))
    assert len(first) == 1
    assert [trial.mutant for trial in first] == [trial.mutant for trial in again]


def test_a_file_that_no_test_answers_for_is_told(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repository")
    (root / "src" / "lonely.py").write_text("x = 1\n")
    pool = Pool("lonely", Promise(Fraction(90), None), {"src/lonely.py": ("unit",)})
    result = run_campaign(tmp_path, pool)
    assert result.without_tests == ["src/lonely.py"]
    assert result.kept
    assert "no tests of their own: src/lonely.py" in to_text([result])


def test_tests_that_fail_without_a_defect_break_the_promise_and_nothing_else(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "repository", tests=WEAK)
    (root / "src" / "sound.py").write_text("x = 1\n")
    (root / "tests" / "unit" / "test_sound.py").write_text(
        "import sound\ndef test_it(): assert sound.x == 2\n"
    )
    files = {"src/sound.py": ("unit",), "src/part.py": ("unit",)}
    lines = {"src/sound.py": frozenset({1}), "src/part.py": frozenset({3})}
    result = run_campaign(tmp_path, Pool("both", Promise(Fraction(0), None), files, lines))
    assert list(result.broken) == ["src/sound.py"]
    assert {trial.mutant.file for trial in result.trials} == {"src/part.py"}
    assert not result.kept
    text = to_text([result])
    assert text.startswith("src/sound.py: its tests fail without a defect: tests/unit/test_sound.py")
    assert "tests fail without a defect: src/sound.py" in text.splitlines()[-1]


def test_the_outcome_as_plain_values(tmp_path: Path) -> None:
    make_repository(tmp_path / "repository")
    result = run_campaign(tmp_path, a_pool(required=90, lines={"src/part.py": frozenset({3})}))
    document = json.loads(json.dumps(to_document([result], 7)))
    (pool,) = document["pools"]
    assert document["seed"] == 7
    assert (pool["killed"], pool["tried"], pool["kept"], pool["required_percent"]) == (1, 2, False, 90)
    (survivor,) = pool["survivors"]
    assert (survivor["file"], survivor["line"], survivor["function"]) == ("src/part.py", 3, "larger")


def commit(root: Path) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    for arguments in (["add", "--all"], ["commit", "--quiet", "--message=first"]):
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True)


def ask_for_changes(root: Path) -> None:
    """Promise that all defects on changed lines are noticed."""
    settings = (root / "pyproject.toml").read_text()
    table = "[tool.testkit.mutation]\n"
    (root / "pyproject.toml").write_text(settings.replace(table, f"{table}changed = {{ killed = 100 }}\n"))


def run_command(root: Path, *options: str) -> int:
    place = ["--root", str(root), "--output", str(root / "coverage_reports")]
    return main(["coverage", "mutation", *place, "--jobs", "1", "--seed", "3", *options])


def test_the_command_fails_when_too_many_survive_and_lists_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_repository(tmp_path / "repository", required=100, tests=WEAK)
    assert run_command(root, "--number", "2") == 1
    printed = capsys.readouterr().out
    assert printed.startswith("seed 3\n")
    assert "100 % required: MISSED" in printed
    assert "survived: src/part.py:" in printed
    document = json.loads((root / "coverage_reports" / "mutation.json").read_text())
    assert document["pools"][0]["survivors"]


def test_the_command_passes_when_enough_are_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_repository(tmp_path / "repository", required=0, tests=WEAK)
    assert run_command(root, "--number", "1", "--paths", "src") == 0
    assert "part: " in capsys.readouterr().out


def test_what_changed_since_the_base_is_a_pool_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_repository(tmp_path / "repository", required=0, tests=WEAK)
    ask_for_changes(root)
    commit(root)
    part = root / "src" / "part.py"
    part.write_text(part.read_text().replace("a > b", "b < a"))
    assert run_command(root, "--number", "1", "--base", "HEAD") == 1
    printed = capsys.readouterr().out
    assert "note: changed is what differs from" in printed
    assert "changed: " in printed
    assert "100 % required: MISSED" in printed


def test_without_a_base_nothing_is_told_to_have_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_repository(tmp_path / "repository", required=0, tests=WEAK)
    ask_for_changes(root)
    assert run_command(root, "--number", "1") == 0
    assert "what changed is not tried by itself" in capsys.readouterr().out


def test_whole_layers_are_tried_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_repository(tmp_path / "repository", required=0, tests=WEAK)
    (root / "other").mkdir()
    (root / "other" / "thing.py").write_text("x = 1\n")
    settings = (root / "pyproject.toml").read_text()
    settings = settings.replace(
        "[tool.testkit.mutation]\n",
        "[tool.testkit.coverage.layers.other]\n"
        'paths = ["other/*.py"]\nkinds = ["unit"]\nlines = 0\nbranches = 0\n\n'
        "[tool.testkit.mutation]\n",
    )
    (root / "pyproject.toml").write_text(settings + "other = { killed = 0, number = 5 }\n")
    assert run_command(root, "--minutes", "0") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines if "% required" in line] == ["other", "part"]


def test_paths_that_lie_in_no_layer_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(make_repository(tmp_path / "repository"), "--paths", "docs") == 2
    assert "nothing to mutate" in capsys.readouterr().err
