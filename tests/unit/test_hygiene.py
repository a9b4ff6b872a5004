"""Habits that would rot unnoticed: fixed sleeps in tests, names of registries, code kept out of the count."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

# Nothing of what is measured runs here.
pytestmark = pytest.mark.untraced

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
MAY_SLEEP = re.compile(r"sleep|Event\(\)\.wait|select\.select")
"""What is worth a closer look: parsing all files would take seconds."""
SLEEP_OF_A_CHILD = re.compile(r"(?<![a-z])sleep[ (] ?(?!0(?![\d.]))[\d.]+")
REASON = re.compile(r"# sleeps: \w+( \S+){2,}")
NO_COVER = re.compile(r"pragma:\s*no\s*(cover|branch)")


def fixed_sleeps(folders: Iterable[Path]) -> list[str]:
    """Return what lets a fixed time pass, above 0; a test waits for an event, or moves the clock.

    That is calls, and programs for children, in strings and in files that are not Python. Fixed is a number,
    and, outside of a loop (within one it paces what polls), a constant of the module, or what something else
    than ``self`` has. Allowed is:

    - ``asyncio.sleep`` in a function that runs in virtual time by itself: one with the decorator, one that is
      given to ``run`` within, a contract's test of ``virtual_time=True``;
    - what a comment ``# sleeps: why`` gives a reason for, on its line or above its statement. Good
      reasons are: others run it in virtual time; a child is ended long before; what is tested is that slow.
    """
    advice = "wait for an event (testkit.wait), move the clock, or say '# sleeps: why'"
    return [
        f"{file}:{line}: {what}: {advice}"
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix != ".pyc"
        for line, what in _sleeps_in(file)
    ]


def _sleeps_in(file: Path) -> Iterator[tuple[int, str]]:
    text = file.read_bytes().decode("utf-8", errors="replace")
    if not MAY_SLEEP.search(text):
        return
    if file.suffix == ".py":
        yield from _sleeps(text)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if SLEEP_OF_A_CHILD.search(line) and not REASON.search(line):
            yield number, line.strip()


def _sleeps(source: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(source)
    in_virtual_time = _in_virtual_time(tree)
    loops = (each for each in ast.walk(tree) if isinstance(each, ast.While | ast.For | ast.AsyncFor))
    in_loops = {id(inner) for loop in loops for inner in ast.walk(loop)}
    reasoned = _lines_with_a_reason(source, tree)
    documents = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found = _is_fixed_sleep(node, id(node) in in_loops, id(node) in in_virtual_time)
        else:
            found = id(node) not in documents and _is_program_that_sleeps(node)
        if found and isinstance(node, ast.expr) and reasoned.isdisjoint(_lines_of(node)):
            yield node.lineno, ast.unparse(node)


def _is_fixed_sleep(call: ast.Call, paces_a_loop: bool, moves_the_clock: bool) -> bool:
    if not call.args:
        return False
    called, duration = ast.unparse(call.func), call.args[-1]
    if called.rpartition(".")[2] == "sleep":
        lets_time_pass = not (moves_the_clock and called == "asyncio.sleep")
    else:
        # An event that nobody can set, and a selection among nothing, are sleeps by another name.
        lets_time_pass = called.endswith("Event().wait") or (
            called == "select.select" and all(ast.unparse(each) == "[]" for each in call.args[:3])
        )
    return lets_time_pass and _is_fixed(duration, paces_a_loop)


def _is_fixed(duration: ast.expr, paces_a_loop: bool) -> bool:
    try:
        return float(ast.literal_eval(duration)) > 0
    except (ValueError, TypeError):
        pass
    inside = list(ast.walk(duration))
    named = {each.id for each in inside if isinstance(each, ast.Name)}
    # What one has of its own is how slow it was made.
    given = {each.value.id for each in inside if isinstance(each, ast.Attribute) and _is_other(each.value)}
    calls = any(isinstance(each, ast.Call) for each in inside)
    return not paces_a_loop and not calls and bool(named) and all(each.isupper() for each in named - given)


def _is_other(node: ast.expr) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and node.id != "self"


def _is_program_that_sleeps(node: ast.AST) -> bool:
    """Whether a string is, or the words of a command are, a program that lets a time pass."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return SLEEP_OF_A_CHILD.search(node.value) is not None
    if isinstance(node, ast.List | ast.Tuple):
        words = [each.value if isinstance(each, ast.Constant) else None for each in node.elts]
        return SLEEP_OF_A_CHILD.search(" ".join(each for each in words if isinstance(each, str))) is not None
    return False


def _in_virtual_time(tree: ast.Module) -> set[int]:
    """What lies within functions of which the module itself says that their time is virtual, by ``id``."""
    ways_in = {
        alias.asname or alias.name
        for each in ast.walk(tree)
        if isinstance(each, ast.ImportFrom) and each.module == "testkit.virtual_time"
        for alias in each.names
    }
    return {
        id(inner)
        for outer in ast.walk(tree)
        if _says_that_time_is_virtual(outer, ways_in)
        for inner in ast.walk(outer)
    }


def _says_that_time_is_virtual(node: ast.AST, ways_in: set[str]) -> bool:
    if isinstance(node, ast.ClassDef):
        return any(each.arg == "virtual_time" for each in node.keywords)
    if not (ways_in and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        return False
    decorators = {each.id for each in node.decorator_list if isinstance(each, ast.Name)}
    called = {
        each.func.id
        for each in ast.walk(node)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)
    }
    runs = {each for each in ast.walk(node) if isinstance(each, ast.Name) and each.id == "VirtualTimeLoop"}
    return bool(ways_in & (decorators | called) or ("VirtualTimeLoop" in ways_in and runs))


def _lines_with_a_reason(source: str, tree: ast.Module) -> set[int]:
    """The lines that a comment with a reason stands on, and those of the statement below it."""
    if not REASON.search(source):
        return set()
    commented = {
        token.start[0]: token.line.lstrip().startswith("#")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and REASON.search(token.string)
    }
    below = {line + 1 for line, stands_alone in commented.items() if stands_alone}
    # Not compound statements: a reason is one for a call, not for all that a function does.
    statements = [
        each
        for each in ast.walk(tree)
        if isinstance(each, ast.stmt | ast.expr) and each.lineno in below and not hasattr(each, "body")
    ]
    return {*commented, *(line for each in statements for line in _lines_of(each))}


def _lines_of(node: ast.stmt | ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


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


# In pieces, so that this file has no such call.
NAP, NAPS = "sleep", "# sleeps"


@pytest.mark.parametrize(
    "call",
    [
        f"time.{NAP}(0.1)",
        f"await asyncio.{NAP}(1)",
        f"{NAP}(2)",
        f"time.{NAP}(A_WHILE_S / 2)",
        f"await asyncio.{NAP}(2 * harness.short_s)",
        f"while not seen(): time.{NAP}(0.5)",
        "threading.Event().wait(0.5)",
        "select.select([], [], [], 1)",
        f'run(["{NAP}", "60"])',
        f'run("echo; {NAP} 0.5")',
        f'sql("SELECT pg_{NAP}(30)")',
        f"time.{NAP}(1)  {NAPS}: because",
        f"{NAPS}: it ends long before that\n    run(), later(\n    )\n    time.{NAP}(1)",
    ],
)
def test_a_fixed_sleep_is_noticed(tmp_path: Path, call: str) -> None:
    (tmp_path / "test_it.py").write_text(f"async def test():\n    {call}\n")
    (found, *_) = fixed_sleeps([tmp_path])
    assert "test_it.py:" in found


@pytest.mark.parametrize(
    "call",
    [
        f"await asyncio.{NAP}(0)",
        f"time.{NAP}(interval_s)",
        f"time.{NAP}(self.interval_s)",
        f"fake.{NAP}()",
        f"while not seen(): time.{NAP}(POLL_S)",
        "select.select([socket], [], [], 1)",
        "done.wait(30)",
        f'run("exec {NAP} 60")  {NAPS}: until the test ends it',
        f'{NAPS}: until the test ends it\n    run(\n        "{NAP} 60"\n    )',
        f'"""Programs {NAP} 60 seconds."""',
    ],
)
def test_what_waits_for_nothing_fixed_is_no_fixed_sleep(tmp_path: Path, call: str) -> None:
    (tmp_path / "test_it.py").write_text(f"async def test():\n    {call}\n")
    assert fixed_sleeps([tmp_path]) == []


VIRTUAL = "from testkit.virtual_time import run as run_in_virtual_time, virtual_time, VirtualTimeLoop\n"


@pytest.mark.parametrize(
    ("before", "count"),
    [
        (f"{VIRTUAL}@virtual_time\nasync def test():\n", 0),
        (f"{VIRTUAL}def test():\n  async def story(): pass\n  run_in_virtual_time(story())\n", 0),
        (f"{VIRTUAL}def test():\n  Runner(loop_factory=VirtualTimeLoop)\n", 0),
        ("class Bus(Contract, virtual_time=True):\n def test():\n", 0),
        # Another function of the module runs in it, this one does not.
        (f"{VIRTUAL}@virtual_time\nasync def test(): pass\nasync def other():\n", 1),
        ("async def test():\n", 1),
    ],
)
def test_time_is_virtual_for_each_function_by_itself(tmp_path: Path, before: str, count: int) -> None:
    (tmp_path / "test_it.py").write_text(f"{before}  asyncio.{NAP}(90)\n")
    assert len(fixed_sleeps([tmp_path])) == count


def test_programs_that_are_not_python_are_searched_too(tmp_path: Path) -> None:
    (tmp_path / "start.sh").write_text(f"serve &\n{NAP} 2\n{NAP} 600 {NAPS}: until it is killed\n")
    assert [each.partition(": wait")[0] for each in fixed_sleeps([tmp_path])] == [
        f"{tmp_path / 'start.sh'}:2: {NAP} 2"
    ]


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
