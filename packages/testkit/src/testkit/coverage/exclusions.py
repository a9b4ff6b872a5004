"""The ledger of what is left out of the count, each with category and reason, and the gate that reads it.

In the code the reason follows the pragma: ``no cover - CATEGORY: REASON``. Patterns in the settings of
coverage.py have theirs in ``[[tool.testkit.coverage.exclusions.patterns]]``. Code that does input or output
must not be left out at all: that is where the defects are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import coverage

from testkit.coverage.failure import Failure
from testkit.coverage.measurement import FileMeasurement
from testkit.coverage.policy import ExcludedPattern, ExclusionPolicy
from testkit.coverage.structure import read_source

GATE = "exclusions"
# In pieces, or coverage.py would leave these lines out.
_PRAGMA = "# pragma: "
_PRAGMAS = (_PRAGMA + "no cover", _PRAGMA + "no branch")
_REASON = re.compile(r"[\s:;,-]*(?P<category>[\w-]+(?: [\w-]+)*)\s*:\s*(?P<reason>\S.*)")
_FUNCTIONS_OF_IO = frozenset({"open", "print", "input"})
_METHODS_OF_IO = frozenset(
    {
        *(
            "accept",
            "bind",
            "connect",
            "listen",
            "recv",
            "recv_into",
            "recvmsg",
            "send",
            "sendall",
            "sendmsg",
        ),
        *(
            "sendto",
            "splice",
            "open",
            "read",
            "readline",
            "readlines",
            "write",
            "writelines",
            "flush",
            "fsync",
        ),
        *("read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "unlink", "rmdir", "execute"),
        *("commit", "fetchall", "fetchone", "Popen", "check_call", "check_output", "system", "kill"),
    }
)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """One place that is left out of the count."""

    file: str
    line: int
    source: str
    """The line that says so."""
    pattern: str
    """Which of coverage.py's patterns it matches."""
    category: str
    """Empty when nobody gave one."""
    reason: str
    """Empty when nobody gave one."""
    does_io: bool
    """Whether something that is left out here reads, writes or waits for somebody else."""


def excluding_patterns(settings: coverage.Coverage) -> tuple[str, ...]:
    """Return the patterns by which coverage.py leaves lines and branches out, its defaults included."""
    options = ("report:exclude_lines", "report:partial_branches", "report:partial_also")
    patterns: list[str] = []
    for option in options:
        value = settings.get_option(option)
        patterns += [str(pattern) for pattern in value] if isinstance(value, list) else []
    return tuple(dict.fromkeys(patterns))


def find_exclusions(
    files: Mapping[str, FileMeasurement], root: Path, patterns: Sequence[str], policy: ExclusionPolicy | None
) -> list[Exclusion]:
    """Return every place of ``files`` that a pattern matches, in order."""
    declared = {entry.pattern: entry for entry in policy.patterns} if policy else {}
    compiled = [(pattern, re.compile(pattern, re.MULTILINE)) for pattern in patterns]
    found: list[Exclusion] = []
    for file, measured in files.items():
        source = read_source(root / file)
        matched = [
            # A pattern may begin with blanks, and these with the line before.
            (source.count("\n", 0, match.end() - len(match[0].lstrip())) + 1, pattern, match.end())
            for pattern, regex in compiled
            for match in regex.finditer(source)
        ]
        io_lines = _lines_of_io(source) & measured.excluded if matched else frozenset()
        for line, pattern, end in sorted(set(matched)):
            text = source.splitlines()[line - 1].strip()
            category, reason = _category_and_reason(pattern, source[end:].partition("\n")[0], declared)
            does_io = bool(io_lines & _block(measured.excluded, line))
            found.append(Exclusion(file, line, text, pattern, category, reason, does_io))
    return found


def judge_exclusions(
    exclusions: Iterable[Exclusion], patterns: Iterable[str], policy: ExclusionPolicy
) -> Iterator[Failure]:
    """Yield a failure for each exclusion without category or reason, and for each that does I/O."""
    declared = {entry.pattern for entry in policy.patterns}
    for pattern in patterns:
        if pattern not in declared and not _is_pragma(pattern):
            verdict = "coverage.py leaves out what matches it, and [exclusions] gives no reason"
            yield Failure(GATE, f"pattern {pattern!r}", verdict)
    for exclusion in exclusions:
        subject, places = f"{exclusion.file}:{exclusion.line}", {exclusion.file: str(exclusion.line)}
        if _is_pragma(exclusion.pattern):
            if not exclusion.reason:
                verdict = f"{exclusion.source!r} gives no reason: write '{_PRAGMAS[0]} - CATEGORY: REASON'"
                yield Failure(GATE, subject, verdict, places)
            elif exclusion.category not in policy.categories:
                known = ", ".join(policy.categories)
                yield Failure(
                    GATE, subject, f"unknown category {exclusion.category!r}, there are {known}", places
                )
        if exclusion.does_io:
            yield Failure(GATE, subject, f"{exclusion.source!r} leaves out code that does I/O", places)


def find_idle_patterns(patterns: Sequence[str], policy: ExclusionPolicy) -> Iterator[Failure]:
    """Yield a warning for each reason that belongs to no pattern of coverage.py."""
    for entry in policy.patterns:
        if entry.pattern not in patterns:
            yield Failure(
                "slack", f"pattern {entry.pattern!r}", "coverage.py does not know it: remove its reason"
            )


def _category_and_reason(
    pattern: str, rest_of_line: str, declared: Mapping[str, ExcludedPattern]
) -> tuple[str, str]:
    if entry := declared.get(pattern):
        return entry.category, entry.reason
    given = _REASON.match(rest_of_line)
    return (given["category"], given["reason"].strip()) if given and _is_pragma(pattern) else ("", "")


def _is_pragma(pattern: str) -> bool:
    return any(re.search(pattern, pragma) for pragma in _PRAGMAS)


def _block(excluded: frozenset[int], line: int) -> frozenset[int]:
    """Return the excluded lines from ``line`` on without a gap; a decorator's begin before it does."""
    last = line
    while last + 1 in excluded:
        last += 1
    return frozenset(range(line, last + 1))


def _lines_of_io(source: str) -> frozenset[int]:
    return frozenset(
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.expr | ast.stmt) and _does_io(node)
    )


def _does_io(node: ast.AST) -> bool:
    if isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor):
        return True
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        return node.func.attr in _METHODS_OF_IO
    return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS_OF_IO
