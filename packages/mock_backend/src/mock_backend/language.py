"""What the two small languages share: statements, durations and their errors.

A text is a number of statements, one a line or parted by ``;``. Each is ``SELECTOR: PART, PART …``. ``#``
begins a comment. Quoted strings are JSON's; their characters up to ``\\u00ff`` stand for the byte of that
number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_TEXT_CHARS = 64 << 10
MAX_STATEMENTS = 1000
MAX_PARTS = 100
MAX_DURATION_S = 3600.0

DURATION = r"(?P<amount>\d{1,7})(?:-(?P<up_to>\d{1,7}))? ?(?P<unit>ms|s)"

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|#[^\n]*|[;\n]|[:,]|[^"#;\n:,]+|.')


class LanguageError(ValueError):
    """A text cannot be understood; names the statement and what is possible instead, in one line."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, not yet understood; words are parted by single blanks."""

    number: int
    selector: str
    parts: tuple[str, ...]

    def error(self, problem: str) -> LanguageError:
        return LanguageError(f"statement {self.number}: {problem}")


def read_statements(text: str) -> tuple[Statement, ...]:
    """Take a text apart.

    Raises:
        LanguageError: it is too long, or a statement has no selector or no parts.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise LanguageError(f"{len(text)} characters; the limit is {MAX_TEXT_CHARS}")
    statements: list[Statement] = []
    for tokens in _split(_TOKEN.findall(text)):
        number = len(statements) + 1
        if number > MAX_STATEMENTS:
            raise LanguageError(f"more than {MAX_STATEMENTS} statements")
        selector, colon, rest = _cut(tokens)
        statement = Statement(number, _words(selector), tuple(map(_words, _by_comma(rest))))
        if not colon or not statement.selector:
            raise statement.error("no colon behind what it is about")
        if not all(statement.parts):
            raise statement.error("nothing stands behind the colon or between two commas")
        if len(statement.parts) > MAX_PARTS:
            raise statement.error(f"more than {MAX_PARTS} parts")
        statements.append(statement)
    return tuple(statements)


def seconds(found: re.Match[str]) -> tuple[float, float]:
    """Return the least and the greatest of what `DURATION` matched.

    Raises:
        ValueError: it is longer than an hour, or ends before it begins.
    """
    unit_s = 0.001 if found["unit"] == "ms" else 1.0
    least_s = int(found["amount"]) * unit_s
    greatest_s = int(found["up_to"]) * unit_s if found["up_to"] else least_s
    if not least_s <= greatest_s <= MAX_DURATION_S:
        raise ValueError(f"{found[0]!r} is no time of at most {MAX_DURATION_S:.0f} s")
    return least_s, greatest_s


def _split(tokens: Sequence[str]) -> Iterator[list[str]]:
    statement: list[str] = []
    for token in (*tokens, "\n"):
        if token in (";", "\n"):
            if any(piece.strip() for piece in statement):
                yield statement
            statement = []
        elif not token.startswith("#"):
            statement.append(token)


def _cut(tokens: list[str]) -> tuple[list[str], bool, list[str]]:
    if ":" not in tokens:
        return tokens, False, []
    at = tokens.index(":")
    return tokens[:at], True, tokens[at + 1 :]


def _by_comma(tokens: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for token in tokens:
        if token == ",":
            yield part
            part = []
        else:
            part.append(token)
    yield part


def _words(tokens: list[str]) -> str:
    # Blanks inside of quotes are the user's.
    return "".join(token if token.startswith('"') else re.sub(r"\s+", " ", token) for token in tokens).strip()
