from __future__ import annotations

import ast
import inspect

import pytest

from testkit.coverage import mutation_operators
from testkit.coverage.mutation_operators import find_mutants


def changed(source: str) -> list[str]:
    """The one line that each mutant of ``source`` changes, as it is then."""
    lines = source.splitlines()
    found: list[str] = []
    for mutant in find_mutants("part.py", source):
        mutated = mutant.apply(source).splitlines()
        (line,) = (new for old, new in zip(lines, mutated, strict=True) if old != new)
        found.append(line.strip())
    return found


@pytest.mark.parametrize(
    ("line", "mutated"),
    [
        ("f(a < b)", ["pass", "f(a <= b)"]),
        ("f(a <= b)", ["pass", "f(a < b)"]),
        ("x = a > b >= c", ["x = a >= b >= c", "x = a > b > c"]),
        ("x = a == b", ["x = a != b"]),
        ("x = a != b", ["x = a == b"]),
        ("x = a is b", ["x = a is not b"]),
        ("x = a is not b", ["x = a is b"]),
        ("x = a in b", ["x = a not in b"]),
        ("x = a not in b", ["x = a in b"]),
        ("x = a and b or c", ["x = a or b or c", "x = a and b and c"]),
        ("x = not a", ["x = a"]),
        ("x = -a", ["x = a"]),
        ("x = a + b", ["x = a - b"]),
        ("x = a - (b * c)", ["x = a + (b * c)", "x = a - (b / c)"]),
        ("x = a / b // c % d", ["x = a * b // c % d", "x = a / b * c % d", "x = a / b // c * d"]),
        ("x = a << b >> c", ["x = a >> b >> c", "x = a << b << c"]),
        ("x = a & b | c ^ d", ["x = a | b | c ^ d", "x = a & b & c ^ d", "x = a & b | c & d"]),
        ("x += a", ["x -= a"]),
        ("x = 1", ["x = 2"]),
        ("x = 0.5", ["x = 1.5"]),
        ("x = True", ["x = False"]),
        ("x = min(a, b)", ["x = max(a, b)"]),
        ("x = any(a)", ["x = all(a)"]),
        ("x = a if b else c", ["x = a if not (b) else c"]),
        ("x = [a for a in b if c(a)]", ["x = [a for a in b if not (c(a))]"]),
        ("self.x = a", ["pass"]),
        ("x[a] = b", ["pass"]),
        ("del x[a]", ["pass"]),
        ("raise Error", ["pass"]),
        ("return f(x)", ["return None"]),
        ("return 1", ["return 2"]),
        ("x: int = 3", ["x: int = 4"]),
    ],
)
def test_each_operator_changes_one_place(line: str, mutated: list[str]) -> None:
    assert changed(f"def f():\n    {line}\n") == mutated


@pytest.mark.parametrize(
    ("head", "mutated"),
    [
        ("if a:", ["if not (a):"]),
        ("if a < b:", ["if not (a < b):", "if a <= b:"]),
        ("if a == b:", ["if a != b:"]),
        ("if not a:", ["if a:"]),
        ("while True:", ["while False:"]),
        ("with a(3) as b:", ["with a(4) as b:"]),
        ("for a in b(2):", ["for a in b(3):"]),
    ],
)
def test_heads_of_blocks_are_changed_too(head: str, mutated: list[str]) -> None:
    assert changed(f"def f():\n    {head}\n        x = y\n") == mutated


def test_loops_may_end_early_or_go_on() -> None:
    assert changed("for a in b:\n    if c:\n        break\n    continue\n") == [
        "if not (c):",
        "continue",
        "break",
    ]


def test_every_block_of_a_statement_is_looked_into() -> None:
    source = """
try:
    f(a)
except Error:
    g(a)
else:
    h(a)
finally:
    match a:
        case 1 if b > c:
            i(a)
"""
    assert changed(source) == ["pass", "pass", "pass", "case 1 if b >= c:", "pass"]


@pytest.mark.parametrize(
    "source",
    [
        '"""1 + 2"""\n',
        "import a\nfrom b import c\n",
        "assert a < 1\n",
        "if TYPE_CHECKING:\n    x = 1\n",
        "def f(x: Literal[1]) -> Literal[2]:\n    x: Literal[3]\n    return None\n",
        "@decorator(1)\nclass A:\n    pass\n",
        'x = f"{1 + 2}"\n',
        "Either = A | B\n",
        "def f():\n    x = cast(A | None, y)\n",
        "def f():\n    x @= y\n    z = a @ b ** c\n",
        "def test_it():\n    x = 1\n    f(x)",
        "class TestIt:\n    async def test_it(self):\n        await f(1)",
    ],
)
def test_what_no_test_should_pin_down_is_left_alone(source: str) -> None:
    assert find_mutants("part.py", source) == []


def test_a_mutant_knows_where_it_is() -> None:
    source = (
        "class A:\n    def f(self):\n        return g(\n            self.x\n            + 1,\n        )\n"
    )
    returned, added, number = find_mutants("src/part.py", source)
    assert (returned.line, returned.end_line) == (3, 6)
    assert (added.line, added.end_line, added.statement_line, added.function) == (5, 5, 3, "A.f")
    assert number.diff(source).splitlines() == [
        "--- src/part.py",
        "+++ src/part.py",
        "@@ -4,3 +4,3 @@",
        "             self.x",
        "-            + 1,",
        "+            + 2,",
        "         )",
    ]


def test_text_before_the_place_may_be_of_any_length_in_bytes() -> None:
    assert changed('def f():\n    x = {"größe": a + b}  # ä\n') == ['x = {"größe": a - b}  # ä']


def test_every_mutant_of_this_repositorys_own_operators_is_python() -> None:
    source = inspect.getsource(mutation_operators)
    mutants = find_mutants("mutation_operators.py", source)
    assert len(mutants) > 50
    for mutant in mutants:
        ast.parse(mutant.apply(source))
