"""Which functions a source file defines, where they are and how complex they are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_DECISIONS = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.Assert,
    ast.match_case,
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method; functions inside of it count for themselves."""

    name: str
    """Qualified: ``Class.method``, ``outer.inner``."""
    line: int
    """Of ``def``, decorators not counted."""
    lines: frozenset[int]
    """Of its body."""
    complexity: int
    """After McCabe: decisions plus one."""


def find_functions(tree: ast.Module) -> tuple[Function, ...]:
    """Return every function in the order of the file, whatever class or function it stands in."""
    return tuple(sorted(_functions_in(tree, ""), key=lambda function: function.line))


def _functions_in(node: ast.AST, prefix: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _FUNCTIONS):
            yield _function(child, f"{prefix}{child.name}")
            yield from _functions_in(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions_in(child, f"{prefix}{child.name}.")
        elif not isinstance(child, ast.expr):
            yield from _functions_in(child, prefix)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Function:
    lines = _lines_of_body(node)
    decisions = 0
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, _FUNCTIONS):
            lines -= _lines_of_body(inner)
            continue
        decisions += isinstance(inner, _DECISIONS)
        if isinstance(inner, ast.BoolOp):
            decisions += len(inner.values) - 1
        elif isinstance(inner, ast.comprehension):
            decisions += 1 + len(inner.ifs)
        waiting.extend(ast.iter_child_nodes(inner))
    return Function(name, node.lineno, frozenset(lines), decisions + 1)


def _lines_of_body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    last = node.body[-1]
    return set(range(node.body[0].lineno, (last.end_lineno or last.lineno) + 1))
