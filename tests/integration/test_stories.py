"""The table of the end-to-end stories: each is told on both substrates, or says why it is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.process import UNMEASURED

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^(?P<story>.+?)  +(?P<processes>x|\?|\d+) +(?P<containers>x|\?|\d+) *$", re.MULTILINE)
# Nothing of ours runs here but what lists and skips; measuring it takes a third of the time.
_REASON = re.compile(r"^\((\d+)\) (.{15,})$", re.MULTILINE)


@pytest.fixture(scope="module")
def listing() -> str:
    """What ``./dev e2e -- --list`` prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "e2e", "--list"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in UNMEASURED},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_every_blank_has_a_reason(listing: str) -> None:
    rows = list(_ROW.finditer(listing))
    assert len(rows) > 30
    reasons = {number for number, _ in _REASON.findall(listing)}
    blanks = {row[substrate] for row in rows for substrate in ("processes", "containers")} - {"x"}
    assert blanks == reasons


def test_hosts_tell_most_of_the_stories_of_a_proxy(listing: str) -> None:
    # Without an engine the rest is skipped with the reason, but all of it is in the table everywhere.
    assert sum(row["containers"] == "x" for row in _ROW.finditer(listing)) >= 20


@pytest.mark.parametrize(
    ("options", "variables", "exit_code", "said"),
    [
        ([], {}, 0, "1 skipped"),
        (["--require-services"], {}, 1, "1 error"),
        (["--require-services"], {"EDGE_STORIES_OF_HOSTS": "optional"}, 0, "1 skipped"),
    ],
    ids=["skipped", "required", "required where it can be had"],
)
def test_without_an_engine_stories_of_hosts_say_why(
    tmp_path: Path, options: list[str], variables: dict[str, str], exit_code: int, said: str
) -> None:
    story = "e2e/test_the_service_of_a_host.py::test_an_instance_finds_out_where_it_is"
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock"}
    set_here = {"EDGE_STORIES_OF_HOSTS", "PYTEST_ADDOPTS", *UNMEASURED}
    others = {name: value for name, value in os.environ.items() if name not in set_here}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-n0", "-p", "no:cacheprovider", story, *options],
        cwd=ROOT,
        env={**others, **nowhere, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == exit_code, ended.stdout + ended.stderr
    assert said in ended.stdout
    assert "no container engine answers" in ended.stdout
