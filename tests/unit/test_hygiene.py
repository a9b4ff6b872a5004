"""Habits that would rot unnoticed: fixed sleeps in tests, names of registries, code kept out of the count."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In pieces, so that this file holds no such name: package indexes, distributions, container registries.
REGISTRIES = {
    "pypi": r"org|python",
    "pythonhosted": "org",
    "(deb|security|snapshot)": r"debian\.org",
    "(archive|security|ports)": r"ubuntu\.com",
    "registry": r"npmjs",
    "(registry-1|index|hub)": "docker",
}
REGISTRY = re.compile("|".join(rf"{name}\.({domain})" for name, domain in REGISTRIES.items()))
NO_COVER = re.compile(r"pragma:\s*no\s*(cover|branch)")


def fixed_sleeps(folders: Iterable[Path]) -> list[str]:
    """Return the calls of a function named ``sleep`` with a constant above 0; a test waits for an event."""
    return [
        f"{file}:{node.lineno}: {ast.unparse(node)}: wait for an event (testkit.wait) or move the clock"
        for folder in folders
        for file in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _sleeps_fixed_time(node)
    ]


def _sleeps_fixed_time(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name != "sleep" or not call.args:
        return False
    (duration, *_) = call.args
    return (
        isinstance(duration, ast.Constant) and isinstance(duration.value, int | float) and duration.value > 0
    )


def lines_matching(pattern: re.Pattern[str], files: Iterable[Path]) -> Iterator[str]:
    """Yield ``file:line: text`` for each line that holds the pattern; files that are no text hold none."""
    for file in files:
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            text = line.decode("utf-8", errors="replace")
            if pattern.search(text):
                yield f"{file}:{number}: {text.strip()}"


def tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def test_no_test_sleeps_a_fixed_time() -> None:
    sleeps = fixed_sleeps([ROOT / "tests", ROOT / "e2e", *ROOT.glob("packages/*/tests")])
    assert not sleeps, "\n".join(sleeps)


def test_no_registry_is_named() -> None:
    named = list(lines_matching(REGISTRY, tracked_files()))
    assert not named, "\n".join(named)


def test_no_code_is_left_out_of_the_coverage_count() -> None:
    left_out = list(lines_matching(NO_COVER, ROOT.glob("packages/*/src/**/*.py")))
    assert not left_out, "\n".join(left_out)


@pytest.mark.parametrize("call", ["time.sleep(0.1)", "await asyncio.sleep(1)", "sleep(2)"])
def test_a_fixed_sleep_is_noticed(tmp_path: Path, call: str) -> None:
    (tmp_path / "test_it.py").write_text(f"async def test():\n    {call}\n")
    (found,) = fixed_sleeps([tmp_path])
    assert "test_it.py:2: " in found


@pytest.mark.parametrize("call", ["await asyncio.sleep(0)", "time.sleep(interval_s)", "fake.sleep()"])
def test_yielding_and_paced_polling_are_no_fixed_sleeps(tmp_path: Path, call: str) -> None:
    (tmp_path / "test_it.py").write_text(f"async def test():\n    {call}\n")
    assert fixed_sleeps([tmp_path]) == []


@pytest.mark.parametrize(
    "host", ["files.python" + "hosted.org", "deb.deb" + "ian.org", "py" + "pi.org/simple"]
)
def test_a_registry_is_noticed(tmp_path: Path, host: str) -> None:
    (tmp_path / "lock.txt").write_text(f"\x00\n--index https://{host}\n")
    assert list(lines_matching(REGISTRY, [tmp_path / "lock.txt"])) == [
        f"{tmp_path / 'lock.txt'}:2: --index https://{host}"
    ]


def test_an_exclusion_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("x = 1  # prag" + "ma: no cover\n")
    assert len(list(lines_matching(NO_COVER, [tmp_path / "part.py"]))) == 1
