"""Which functions a source file defines, where they are and how complex they are; and its statements."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterable, Iterator
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
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
_LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop)
"""More than half of all nodes, with nothing in them."""


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


@dataclass(slots=True)
class _Found:
    """A function whose body is being looked through."""

    name: str
    line: int
    lines: set[int]
    decisions: int = 0


def find_statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield every statement, the outer ones first; expressions, most of a tree, are not looked into."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        if isinstance(node, ast.stmt):
            yield node
        for block in _BLOCKS:
            waiting.extend(getattr(node, block, ()))


def find_functions(tree: ast.Module) -> tuple[Function, ...]:
    """Return every function in the order of the file, whatever class or function it stands in."""
    found: list[_Found] = []
    _look_through(tree.body, "", None, found)
    return tuple(
        Function(each.name, each.line, frozenset(each.lines), each.decisions + 1)
        for each in sorted(found, key=lambda each: each.line)
    )


def _look_through(nodes: Iterable[ast.AST], prefix: str, around: _Found | None, found: list[_Found]) -> None:
    """Note the functions among ``nodes`` and in them, and the decisions of the one ``around``."""
    for node in nodes:
        if isinstance(node, _FUNCTIONS):
            inner = _Found(f"{prefix}{node.name}", node.lineno, _lines_of_body(node))
            if around is not None:
                around.lines -= inner.lines
            found.append(inner)
            _look_through(node.body, f"{prefix}{node.name}.", inner, found)
            continue
        if isinstance(node, _LEAVES):
            continue
        if around is not None:
            around.decisions += _decisions_of(node)
        named = f"{prefix}{node.name}." if isinstance(node, ast.ClassDef) else prefix
        _look_through(ast.iter_child_nodes(node), named, around, found)


def _decisions_of(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return int(isinstance(node, _DECISIONS))


def _lines_of_body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    last = node.body[-1]
    return set(range(node.body[0].lineno, (last.end_lineno or last.lineno) + 1))
