"""Small defects to plant: what can be changed in a module, one place at a time.

A mutant replaces one piece of the text, so that its diff reads like an edit. The operators are those whose
survival says something: comparisons moved by one, conditions turned round, arithmetic swapped, numbers
raised by one, results and effects dropped. Left alone is what no test should pin down (messages,
annotations, decorators), what fails by itself (assertions, plain names without a value), and what is a test
itself, as contracts are: whether tests notice anything is asked with defects in what they test.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect: ``source[start:end]``, in bytes of UTF-8, becomes ``replacement``."""

    file: str
    line: int
    function: str
    """Qualified name of the function or class it lies in; empty at the module's top."""
    statement_line: int
    """First line of the statement, by which coverage knows it."""
    end_line: int
    start: int
    end: int
    replacement: str

    def apply(self, source: str) -> str:
        """Return the module's text with the defect in it."""
        text = source.encode()
        return (text[: self.start] + self.replacement.encode() + text[self.end :]).decode()

    def diff(self, source: str) -> str:
        """Return what it changes, as a unified diff with one line around."""
        lines = difflib.unified_diff(
            source.splitlines(), self.apply(source).splitlines(), self.file, self.file, n=1, lineterm=""
        )
        return "\n".join(lines)


_COMPARISONS: Mapping[type[ast.cmpop], tuple[str, str]] = MappingProxyType(
    {
        ast.Lt: ("<", "<="),
        ast.LtE: ("<=", "<"),
        ast.Gt: (">", ">="),
        ast.GtE: (">=", ">"),
        ast.Eq: ("==", "!="),
        ast.NotEq: ("!=", "=="),
        ast.Is: ("is", "is not"),
        ast.IsNot: ("is not", "is"),
        ast.In: ("in", "not in"),
        ast.NotIn: ("not in", "in"),
    }
)
_ARITHMETIC: Mapping[type[ast.operator], tuple[str, str]] = MappingProxyType(
    {
        ast.Add: ("+", "-"),
        ast.Sub: ("-", "+"),
        ast.Mult: ("*", "/"),
        ast.Div: ("/", "*"),
        ast.FloorDiv: ("//", "*"),
        ast.Mod: ("%", "*"),
        ast.LShift: ("<<", ">>"),
        ast.RShift: (">>", "<<"),
        ast.BitAnd: ("&", "|"),
        ast.BitOr: ("|", "&"),
        ast.BitXor: ("^", "&"),
    }
)
_TWINS = MappingProxyType({"min": "max", "max": "min", "any": "all", "all": "any"})
# Turning such a condition round is what the operator on the comparison, or the lost `not`, does already.
_TURNED_BY_OTHERS = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)


def find_mutants(file: str, source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its text.

    Raises:
        SyntaxError: ``source`` is no Python.
    """
    return sorted(_Finder(file, source).mutants(), key=lambda mutant: (mutant.start, mutant.end))


class _Finder:
    def __init__(self, file: str, source: str) -> None:
        self._file = file
        self._text = source.encode()
        self._tree = ast.parse(source, file)
        self._line_starts = [0]
        for line in self._text.splitlines(keepends=True):
            self._line_starts.append(self._line_starts[-1] + len(line))

    def mutants(self) -> Iterator[Mutant]:
        yield from self._in_statements(self._tree.body, ())

    def _in_statements(self, body: Sequence[ast.stmt], scope: tuple[str, ...]) -> Iterator[Mutant]:
        for statement in body:
            yield from self._in_statement(statement, scope)

    def _in_statement(self, statement: ast.stmt, scope: tuple[str, ...]) -> Iterator[Mutant]:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from self._in_statements(statement.body, (*scope, statement.name))
                return
            case ast.Assert() | ast.Import() | ast.ImportFrom():
                return
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return
        for start, end, replacement in self._of_statement(statement):
            yield self._mutant(statement, scope, start, end, replacement)
        for expression in _expressions(statement):
            for start, end, replacement in self._of_expression(expression, top=not scope):
                yield self._mutant(statement, scope, start, end, replacement)
        for block in _blocks(statement):
            yield from self._in_statements(block, scope)

    def _mutant(
        self, statement: ast.stmt, scope: tuple[str, ...], start: int, end: int, replacement: str
    ) -> Mutant:
        return Mutant(
            file=self._file,
            line=self._text.count(b"\n", 0, start) + 1,
            function=".".join(scope),
            statement_line=statement.lineno,
            end_line=self._text.count(b"\n", 0, end) + 1,
            start=start,
            end=end,
            replacement=replacement,
        )

    def _of_statement(self, statement: ast.stmt) -> Iterator[tuple[int, int, str]]:
        match statement:
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.Delete():
                yield *self._span(statement), "pass"
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield *self._span(statement), "pass"
            case ast.Break():
                yield *self._span(statement), "continue"
            case ast.Continue():
                yield *self._span(statement), "break"
            case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
                yield *self._span(value), "None"
            case ast.AugAssign(target=target, op=op, value=value):
                old, new = _ARITHMETIC.get(type(op), ("", ""))
                if old:
                    yield from self._between(target, value, f"{old}=", f"{new}=")
            case ast.If(test=test) | ast.While(test=test):
                yield from self._turned(test)

    def _of_expression(self, root: ast.expr, *, top: bool) -> Iterator[tuple[int, int, str]]:
        for node in _walk(root):
            match node:
                case ast.Compare():
                    operands = [node.left, *node.comparators]
                    for left, op, right in zip(operands, node.ops, node.comparators, strict=False):
                        yield from self._between(left, right, *_COMPARISONS[type(op)])
                case ast.BoolOp():
                    old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                    for left, right in zip(node.values, node.values[1:], strict=False):
                        yield from self._between(left, right, old, new)
                case ast.BinOp() if type(node.op) in _ARITHMETIC and not _may_be_type(node, top):
                    yield from self._between(node.left, node.right, *_ARITHMETIC[type(node.op)])
                case ast.UnaryOp(op=ast.Not()):
                    start, _ = self._span(node)
                    yield start, start + len("not "), ""
                case ast.UnaryOp(op=ast.USub()) if not isinstance(node.operand, ast.Constant):
                    start, _ = self._span(node)
                    yield start, start + 1, ""
                case ast.Constant(value=bool() as value):
                    yield *self._span(node), str(not value)
                case ast.Constant(value=int() | float() as number):
                    yield *self._span(node), repr(number + 1)
                case ast.Call(func=ast.Name(id=name)) if name in _TWINS:
                    yield *self._span(node.func), _TWINS[name]
                case ast.IfExp():
                    yield from self._turned(node.test)
                case ast.comprehension():
                    for condition in node.ifs:
                        yield from self._turned(condition)

    def _turned(self, test: ast.expr) -> Iterator[tuple[int, int, str]]:
        match test:
            case ast.Compare(ops=[op]) if isinstance(op, _TURNED_BY_OTHERS):
                return
            case ast.UnaryOp(op=ast.Not()) | ast.Constant():
                return
        start, end = self._span(test)
        yield start, end, f"not ({self._text[start:end].decode()})"

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[tuple[int, int, str]]:
        """The operator stands between its operands; so may parentheses, and comments after line ends."""
        start, end = self._span(left)[1], self._span(right)[0]
        at = self._text[start:end].find(old.encode())
        if at >= 0:
            yield start + at, start + at + len(old), new

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._line_starts[node.lineno - 1] + node.col_offset,
            self._line_starts[node.end_lineno - 1] + node.end_col_offset,
        )


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """Yield what a statement evaluates itself; neither its blocks, nor annotations, nor a bare string."""
    match statement:
        case ast.Expr(value=ast.Constant()):
            return
        case ast.AnnAssign(value=value):
            if value is not None:
                yield value
            return
        case ast.Match(subject=subject, cases=cases):
            yield subject
            yield from (case.guard for case in cases if case.guard is not None)
            return
        case ast.With(items=items) | ast.AsyncWith(items=items):
            yield from (item.context_expr for item in items)
            return
    for _, field in ast.iter_fields(statement):
        for value in field if isinstance(field, list) else [field]:
            if isinstance(value, ast.expr):
                yield value


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(statement, name, [])
    for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield part.body


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and what it consists of, but for the insides of formatted text."""
    if isinstance(node, ast.JoinedStr):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _may_be_type(node: ast.BinOp, top: bool) -> bool:
    """Whether this looks like ``X | None``, or like an alias of a union at the module's top."""
    return isinstance(node.op, ast.BitOr) and (
        top or any(isinstance(side, ast.Constant) for side in (node.left, node.right))
    )
