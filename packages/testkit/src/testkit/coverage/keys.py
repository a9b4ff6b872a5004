"""Names for lines and branches that outlive edits elsewhere: qualified name, hash of the normalised source.

Line numbers change with every edit above. ``Loop.run`` and the text of a statement, without what a formatter
may change, do not.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from testkit.coverage.functions import find_statements
from testkit.coverage.measurement import FileMeasurement
from testkit.coverage.structure import Branch

Place = TypeVar("Place", int, Branch)

# Blanks, and the comma that a formatter puts behind the last of several lines.
_FORMATTING = re.compile(r"\s+|,(?=\s*[)\]}])")
_COMMENT = re.compile(r"\s+#[^'\"]*$")


@dataclass(frozen=True, slots=True)
class Key:
    """One statement, or one way out of it."""

    function: str
    """Qualified name; empty for what stands outside of functions."""
    digest: str
    """Of the statement, for a branch also of its target."""
    occurrence: int
    """Which one it is of those that are alike in this function, from 0."""

    def __str__(self) -> str:
        """``Loop.run 5d41402abc4b2a76 0``, the form in which files keep it."""
        return f"{self.function or '<module>'} {self.digest} {self.occurrence}"


class SourceKeys:
    """The keys of one version of one source file."""

    def __init__(self, source: str, measured: FileMeasurement) -> None:
        self._texts = _statement_texts(source)
        self._functions = {line: function.name for function in measured.functions for line in function.lines}
        self.lines = _number((line, self._function(line), self.text(line)) for line in sorted(measured.lines))
        self.branches = _number(
            (branch, self._function(branch[0]), self.branch_text(branch))
            for branch in sorted(measured.branches)
        )

    def text(self, line: int) -> str:
        """Return the normalised statement that begins in ``line``."""
        return self._texts[line]

    def branch_text(self, branch: Branch) -> str:
        """Return statement and target."""
        start, end = branch
        return f"{self.text(start)} -> {self.text(end) if end > 0 else 'exit'}"

    def _function(self, line: int) -> str:
        return self._functions.get(line, "")


def _number(places: Iterable[tuple[Place, str, str]]) -> dict[Place, Key]:
    seen: Counter[tuple[str, str]] = Counter()
    keys: dict[Place, Key] = {}
    for place, function, text in places:
        digest = hashlib.blake2b(text.encode("utf-8", errors="surrogatepass"), digest_size=8).hexdigest()
        keys[place] = Key(function, digest, seen[function, digest])
        seen[function, digest] += 1
    return keys


def _statement_texts(source: str) -> Sequence[str]:
    """Return for each line number the normalised statement that begins there, else the normalised line."""
    # As the parser counts lines: a form feed, say, does not end one.
    physical = re.split(r"\r\n|\r|\n", source)
    ends: dict[int, int] = {}
    for statement in find_statements(ast.parse(source)):
        # Of a compound statement only the head: what it holds are statements of their own.
        held = (
            [case.pattern for case in statement.cases]
            if isinstance(statement, ast.Match)
            else getattr(statement, "body", [])
        )
        last = held[0].lineno - 1 if held else statement.end_lineno or statement.lineno
        ends[statement.lineno] = max(last, statement.lineno)
    return [
        "",
        *(
            _FORMATTING.sub(
                "", " ".join(_COMMENT.sub("", text) for text in physical[line - 1 : ends.get(line, line)])
            )
            for line in range(1, len(physical) + 1)
        ),
    ]
