"""Rows as text, the way the change log in ``routing.db`` keeps them: ``app='test' port=9001 country=NULL``.

Triggers write it, in whatever program edits the table, so it is made of nothing but SQLite's ``quote``:
``name=literal``, separated by single blanks. Text stands in single quotes, doubled inside; a BLOB is
``X'00FF'``; a number stands as it is.
"""

from __future__ import annotations

import re
from typing import Final

_FIELD: Final = re.compile(r"([A-Za-z_]\w*)=(NULL|X'[0-9A-Fa-f]*'|'(?:[^']|'')*'|[^\s']+)(?: |\Z)")


def row_text_sql(columns: tuple[str, ...], row: str) -> str:
    """The SQL expression for the text of ``row``, a table or ``NEW`` or ``OLD``.

    It is never NULL, and equal for two rows only if all values are the same and of the same type.
    """
    first, *others = (f"{column}=' || quote({row}.{column})" for column in columns)
    return " || ' ".join((f"'{first}", *others))


def row_from_text(text: str) -> dict[str, object]:
    """Return column to value.

    Raises:
        ValueError: ``text`` is none that a trigger writes.
    """
    row: dict[str, object] = {}
    end = 0
    while end < len(text):
        field = _FIELD.match(text, end)
        if field is None:
            raise ValueError(f"no row of the change log: {text[end : end + 60]!r}")
        row[field[1]] = _value(field[2])
        end = field.end()
    return row


def _value(literal: str) -> object:
    if literal == "NULL":
        return None
    if literal.startswith("X'"):
        return bytes.fromhex(literal[2:-1])
    if literal.startswith("'"):
        return literal[1:-1].replace("''", "'")
    try:
        return int(literal)
    except ValueError:
        # SQLite writes infinity as 9.0e+999, or as Inf when it is an old one; both are infinite here, too.
        return float(literal)
