from __future__ import annotations

import ast

import pytest

from testkit.coverage.functions import Function, find_functions

SOURCE = '''\
import functools


@functools.cache
def outer(x):
    """Nested functions and classes count for themselves."""
    def inner():
        return x
    class Local:
        def method(self): return 1
    return inner


if True:
    class Thing:
        async def run(self):
            pass
else:
    def other():
        pass
'''


def functions_of(source: str) -> list[Function]:
    return list(find_functions(ast.parse(source)))


def test_names_are_qualified_and_bodies_do_not_hold_those_inside() -> None:
    assert [(function.name, function.line, set(function.lines)) for function in functions_of(SOURCE)] == [
        ("outer", 5, {6, 7, 9, 10, 11} - {10}),
        ("outer.inner", 7, {8}),
        ("outer.Local.method", 10, {10}),
        ("Thing.run", 16, {17}),
        ("other", 19, {20}),
    ]


@pytest.mark.parametrize(
    ("body", "complexity"),
    [
        ("return 1", 1),
        ("if a: pass\n    elif b: pass\n    else: pass", 3),
        ("return a if b else c", 2),
        ("return a and b or c", 3),
        ("for x in y: pass", 2),
        ("while x: pass", 2),
        ("try: pass\n    except A: pass\n    except B: pass", 3),
        ("match a:\n        case 1: pass\n        case _: pass", 3),
        ("return [x for x in y if x if z]", 4),
        ("assert a", 2),
        ("def g():\n        if a: pass", 1),
    ],
)
def test_decisions_make_a_function_complex(body: str, complexity: int) -> None:
    assert functions_of(f"def f(a, b, c, x, y, z):\n    {body}\n")[0].complexity == complexity
