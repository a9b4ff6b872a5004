"""Comments in the code that say: when this line runs, that feature is at work.

``# feature: affinity.expiry`` stands behind the first line of a statement, or alone above it; several ids
are parted by commas. A comment costs nothing when the program runs: whether the line did is what coverage
knows anyway.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from testkit.coverage.functions import find_statements

_COMMENT = re.compile(r"#\s*feature:\s*(.+)")


@dataclass(frozen=True, slots=True)
class Mark:
    """One id in one comment."""

    feature: str
    file: str
    line: int
    """First line of the statement that is marked; the comment's own if there is none."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def find_marks(root: Path, files: Iterable[str]) -> list[Mark]:
    """Return the marks in source files, given relative to ``root``, in the order of files and lines."""
    return [mark for file in files for mark in _marks_of(file, (root / file).read_text(encoding="utf-8"))]


def _marks_of(file: str, source: str) -> list[Mark]:
    if "feature:" not in source:
        return []
    starts = sorted({statement.lineno for statement in find_statements(ast.parse(source))})
    marks: list[Mark] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        found = _COMMENT.match(token.string) if token.type == tokenize.COMMENT else None
        if found is None:
            continue
        line = token.start[0]
        alone = token.line.lstrip().startswith("#")
        if alone:
            statement = next((start for start in starts if start > line), line)
        else:
            statement = next((start for start in reversed(starts) if start <= line), line)
        marks += [Mark(name.strip(), file, statement) for name in found[1].split(",")]
    return marks
