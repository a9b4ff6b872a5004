"""The tables of which test checks which line: every test named is there, every line has one or says why."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages" / "testkit"
CONTRACTS = PACKAGE / "src" / "testkit" / "contracts"
CHECKLISTS = PACKAGE / "CHECKLISTS.md"
ROWS = {
    "A chat: WebSockets, users just in time, start and stop": 21,
    "A database in parts: storage, a replicated log, computing that comes and goes": 46,
    # 83 of the modules, 20 of the edge cases.
    "Seven modules of asynchronous infrastructure": 103,
    "A proxy: what relays bytes, and who is there": 22,
}
"""How many lines were asked for: none is dropped in silence."""


def rows_of(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield section, line and what stands beside it, for each row of each table."""
    section = ""
    for line in text.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| ") and line != "| line | test |":
            asked, _, beside = line.removeprefix("| ").removesuffix(" |").partition(" | ")
            yield section, asked, beside


def named_in(beside: str) -> list[str]:
    return re.findall(r"`([^`]+)`", beside)


@cache
def names_in(path: Path) -> frozenset[str]:
    """The tests of a file: by name, and those of classes by ``Class::name``."""
    if not path.is_file():
        return frozenset()
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}::{each.name}"
                for each in node.body
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return frozenset(found)


def exists(test: str) -> bool:
    if "::" in test:
        path, _, name = test.partition("::")
        return name in names_in(ROOT / path)
    contract, _, name = test.partition(".")
    return any(each.endswith(f"::{name}") for each in names_in(CONTRACTS / f"{contract}.py"))


def problems(text: str) -> list[str]:
    """Return what is wrong with the rows."""
    found = []
    for _, asked, beside in rows_of(text):
        named = named_in(beside)
        found += [f"{asked}: there is no {test}" for test in named if not exists(test)]
        if not named and not beside.startswith("nothing here "):
            found.append(f"{asked}: neither a test nor why there is none")
    return found


def test_every_line_has_a_test_that_exists_or_says_why_not() -> None:
    assert problems(CHECKLISTS.read_text(encoding="utf-8")) == []


def test_no_line_is_missing() -> None:
    sections = [section for section, _, _ in rows_of(CHECKLISTS.read_text(encoding="utf-8"))]
    assert {section: sections.count(section) for section in ROWS} == ROWS
    assert len(sections) == sum(ROWS.values())


@pytest.mark.parametrize(
    ("beside", "problem"),
    [
        ("`bootstrap.test_flies`", "x: there is no bootstrap.test_flies"),
        ("`flight.test_flies`", "x: there is no flight.test_flies"),
        ("`e2e/test_flight.py::test_flies`", "x: there is no e2e/test_flight.py::test_flies"),
        ("later", "x: neither a test nor why there is none"),
    ],
)
def test_row_that_claims_too_much_is_noticed(beside: str, problem: str) -> None:
    assert problems(f"## s\n| line | test |\n|---|---|\n| x | {beside} |\n") == [problem]


def test_row_that_is_right_passes() -> None:
    row = "| a `b` c | `bootstrap.test_becomes_ready_and_serves`, "
    assert problems(f"{row}`tests/unit/test_checklists.py::test_no_line_is_missing` |\n") == []
