from __future__ import annotations

import ast

import pytest

from testkit.coverage.functions import find_functions
from testkit.coverage.keys import SourceKeys
from testkit.coverage.measurement import FileMeasurement


def keys_of(source: str, lines: set[int], branches: set[tuple[int, int]] | None = None) -> SourceKeys:
    functions = find_functions(ast.parse(source))
    measured = FileMeasurement(
        frozenset(lines), frozenset(), frozenset(branches or ()), frozenset(), functions
    )
    return SourceKeys(source, measured)


def key_of(source: str, line: int) -> str:
    return str(keys_of(source, {line}).lines[line])


PLAIN = "def f(x):\n    return g(x, 1)\n"


@pytest.mark.parametrize(
    ("same", "line"),
    [
        ("\n\n# above\ndef f(x):\n    return g(x, 1)\n", 5),
        ("def f(x):\n  return g( x,1 )  # with a comment\n", 2),
        ("def f(x):\n    return g(\n        x,\n        1,\n    )\n", 2),
        ("def f(x):\n    '''Said.'''\n    return g(x, 1)\n", 3),
    ],
)
def test_edits_elsewhere_comments_and_formatting_leave_a_key_as_it_is(same: str, line: int) -> None:
    assert key_of(same, line) == key_of(PLAIN, 2)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ("def f(x):\n    return g(x, 2)\n", 2),
        ("def h(x):\n    return g(x, 1)\n", 2),
        ("class C:\n    def f(x):\n        return g(x, 1)\n", 3),
        ("return_ = g(x, 1)\n", 1),
    ],
)
def test_another_statement_or_function_has_another_key(other: str, line: int) -> None:
    assert key_of(other, line) != key_of(PLAIN, 2)


def test_statements_that_are_alike_are_numbered() -> None:
    keys = keys_of("def f():\n    g()\n    g()\n", {2, 3}).lines
    assert [keys[2].occurrence, keys[3].occurrence] == [0, 1]
    assert keys[2].digest == keys[3].digest


def test_of_a_compound_statement_only_the_head_counts() -> None:
    one = "match x:\n    case 1:\n        a()\nif (\n    x\n):\n    b()\nclass C: pass\n"
    other = one.replace("a()", "other()").replace("b()", "other()")
    assert key_of(one, 1) == key_of(other, 1)
    assert key_of(one, 4) == key_of(other, 4)
    assert keys_of(one, {4}).text(4) == "if(x):"
    assert str(keys_of(one, {1}).lines[1]).startswith("<module> ")


def test_a_branch_is_named_by_statement_and_target() -> None:
    source = "def f(x):\n    if x:\n        return 1\n"
    keys = keys_of(source, {2, 3}, {(2, 3), (2, -1)})
    assert keys.branch_text((2, 3)) == "ifx: -> return1"
    assert keys.branch_text((2, -1)) == "ifx: -> exit"
    assert keys.branches[2, 3].function == "f"
    assert keys.branches[2, 3] != keys.branches[2, -1]


def test_lines_are_counted_as_the_parser_does() -> None:
    assert keys_of("x = 1\f\ny = 2\n", {2}).text(2) == "y=2"
