"""The list of defects that were found: the document has it, and it fits the code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools import found
from tools.found import ROOT, Bug, bugs, is_noticed, main, table

# Nothing of what is measured runs here.
pytestmark = [pytest.mark.untraced, pytest.mark.usefixtures("unmeasured")]


def test_document_has_the_table() -> None:
    assert table() in (ROOT / "docs" / "defects-found.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.name)
def test_what_was_mended_is_there_and_so_is_what_notices_it(bug: Bug) -> None:
    if bug.file:
        assert (ROOT / bug.file).read_text(encoding="utf-8").count(bug.now) == 1
    assert bug.run.startswith("pytest "), "other programs end with 1 when they cannot run, too"
    paths = [word for word in bug.command if "/" in word and word.endswith(".py")]
    assert paths
    assert all((ROOT / path).is_file() for path in paths)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code.py").write_text("ANSWER = 42\n")
    (tmp_path / "check.py").write_text("import sys, code\nsys.exit(code.ANSWER != 42)\n")
    for command in ("init --quiet", "add ."):
        subprocess.run(["git", *command.split()], cwd=tmp_path, check=True)
    monkeypatch.setattr(found, "ROOT", tmp_path)
    return tmp_path


def bug_of(now: str, was: str, run: str = "python check.py") -> Bug:
    return Bug("bug", "what", "by", run, "code.py", now, was)


def test_planted_defect_is_noticed_and_the_repository_stays_as_it_is(repository: Path) -> None:
    assert is_noticed(bug_of("42", "41"))
    assert (repository / "code.py").read_text() == "ANSWER = 42\n"


@pytest.mark.parametrize(
    "bug",
    [
        bug_of("42", "6 * 7"),
        # It ends with 2, as pytest does when nothing is collected: nothing was noticed.
        bug_of("42", "41", "python missing.py"),
    ],
)
def test_what_is_not_noticed_is_said(repository: Path, bug: Bug) -> None:
    assert not is_noticed(bug)


def test_defect_of_somebody_else_needs_no_planting(repository: Path) -> None:
    (repository / "check.py").write_text("raise SystemExit(1)")
    assert is_noticed(Bug("bug", "what", "by", "python check.py"))


def test_defect_that_does_not_fit_any_more_is_named(repository: Path) -> None:
    with pytest.raises(ValueError, match=r"bug: code\.py has 'question' 0 times, not once"):
        is_noticed(bug_of("question", "answer"))


def test_command_says_what_was_noticed_and_what_was_not(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["found.py"])
    monkeypatch.setattr(found, "bugs", lambda: [bug_of("42", "41")])
    assert main() == 0
    monkeypatch.setattr(found, "bugs", lambda: [bug_of("42", "42.0")])
    assert main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "bug: noticed by python check.py",
        "",
        "bug: NOT NOTICED by python check.py",
    ]


def test_name_that_there_is_not_exits_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["found.py", "none"])
    with pytest.raises(SystemExit, match="2"):
        main()


def test_table_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["found.py", "--table"])
    assert main() == 0
    assert capsys.readouterr().out == table() + "\n"
