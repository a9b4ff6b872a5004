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
IN_VIRTUAL_TIME = re.compile(r"from testkit\.virtual_time import|virtual_time=True")
NO_COVER = re.compile(r"pragma:\s*no\s*(cover|branch)")


def fixed_sleeps(folders: Iterable[Path]) -> list[str]:
    """Return the calls that let a fixed time pass, above 0; a test waits for an event, or moves the clock.

    Fixed is a number, and a constant of the module outside of a loop (within one it paces what polls). Where
    a module runs in virtual time, ``asyncio.sleep`` moves the clock; ``time.sleep`` does so nowhere.
    """
    return [
        f"{file}:{call.lineno}: {ast.unparse(call)}: wait for an event (testkit.wait) or move the clock"
        for folder in folders
        for file in sorted(folder.rglob("*.py"))
        for call in _sleeps(file.read_text(encoding="utf-8"))
    ]


def _sleeps(source: str) -> Iterator[ast.Call]:
    moves_the_clock = IN_VIRTUAL_TIME.search(source) is not None
    tree = ast.parse(source)
    in_loops = {
        id(inner)
        for loop in ast.walk(tree)
        if isinstance(loop, ast.While | ast.For | ast.AsyncFor)
        for inner in ast.walk(loop)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called, duration = ast.unparse(node.func), node.args[-1]
        if called.rpartition(".")[2] == "sleep":
            lets_time_pass = not (moves_the_clock and called == "asyncio.sleep")
        else:
            # An event that nobody can set, and a selection among nothing, are sleeps by another name.
            lets_time_pass = called.endswith("Event().wait") or (
                called == "select.select" and all(ast.unparse(each) == "[]" for each in node.args[:3])
            )
        if lets_time_pass and _is_fixed(duration, id(node) in in_loops):
            yield node


def _is_fixed(duration: ast.expr, paces_a_loop: bool) -> bool:
    try:
        return float(ast.literal_eval(duration)) > 0
    except (ValueError, TypeError):
        pass
    named = [each.id for each in ast.walk(duration) if isinstance(each, ast.Name)]
    calls = any(isinstance(each, ast.Call | ast.Attribute) for each in ast.walk(duration))
    return not paces_a_loop and not calls and bool(named) and all(name.isupper() for name in named)


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
    tests = [ROOT / "tests", ROOT / "e2e", ROOT / "examples", *ROOT.glob("packages/*/tests")]
    sleeps = fixed_sleeps([*tests, ROOT / "packages" / "testkit" / "src" / "testkit" / "contracts"])
    assert not sleeps, "\n".join(sleeps)


def test_no_registry_is_named() -> None:
    named = list(lines_matching(REGISTRY, tracked_files()))
    assert not named, "\n".join(named)


def test_no_code_is_left_out_of_the_coverage_count() -> None:
    left_out = list(lines_matching(NO_COVER, ROOT.glob("packages/*/src/**/*.py")))
    assert not left_out, "\n".join(left_out)


@pytest.mark.parametrize(
    "call",
    [
        "time.sleep(0.1)",
        "await asyncio.sleep(1)",
        "sleep(2)",
        "time.sleep(A_WHILE_S / 2)",
        "threading.Event().wait(0.5)",
        "select.select([], [], [], 1)",
    ],
)
def test_a_fixed_sleep_is_noticed(tmp_path: Path, call: str) -> None:
    (tmp_path / "test_it.py").write_text(f"async def test():\n    {call}\n")
    (found,) = fixed_sleeps([tmp_path])
    assert "test_it.py:2: " in found


@pytest.mark.parametrize(
    "call",
    [
        "await asyncio.sleep(0)",
        "time.sleep(interval_s)",
        "fake.sleep()",
        "while not seen(): time.sleep(POLL_S)",
        "select.select([socket], [], [], 1)",
        "done.wait(30)",
        "from testkit.virtual_time import virtual_time; await asyncio.sleep(90)",
    ],
)
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
