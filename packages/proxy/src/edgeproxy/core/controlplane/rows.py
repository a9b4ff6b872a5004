"""From a row of ``backends`` to a :class:`Backend`, or to what is wrong with it.

Rows come from people: typed into the ``sqlite3`` shell, loaded from a spreadsheet, sent by a script.
SQLite stores any type in any column, so nothing about a row can be taken for granted. A row that
cannot be used must cost only itself, and its author must learn which value in it is wrong.

The outcome depends on nothing but the row's values compared with ``==``: rows that compare equal have
the same outcome, which is what lets the routing table skip rows it has seen. That is why the real
number 9001.0 counts as the integer 9001, as it does in a column that SQLite knows to be ``INTEGER``.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

import msgspec

from edgeproxy.core.geography import Geography
from edgeproxy.core.model import Backend
from edgeproxy.ports import Row

MAX_PORT: Final = 65535
MAX_WEIGHT: Final = 255
MAX_LIMIT: Final = 2**63 - 1
"""A limit has no bound of its own; this is the largest integer that SQLite holds."""

_SHOWN_CHARACTERS: Final = 60
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_HOST_NAME_MAX_CHARACTERS: Final = 253
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")


class RowIssue(msgspec.Struct, frozen=True):
    """One wrong value of one row. As text it is a line for the log."""

    row: str
    """The row by its id (``backend 'mock-eu-1'``), or by its place in the table when the id is unusable."""
    column: str
    value: str
    """The value as people write it: ``NULL``, ``99999``, ``'text'``, ``a BLOB of 4 bytes``."""
    problem: str
    """Continues a sentence that begins with the value: ``is not a whole number from 1 to 65535``."""

    def __str__(self) -> str:
        return f"{self.row}: {self.column} {self.value} {self.problem}"


def backend_from_row(row: Row, geography: Geography, place: int) -> Backend | tuple[RowIssue, ...]:
    """Return the backend that ``row`` describes, or every issue that keeps it from being one.

    ``place`` counts from 1 and names the row when its id cannot. A column that ``row`` lacks counts as
    NULL. Never raises, whatever the values are.
    """
    reader = _RowReader(row, geography, place)
    backend = reader.backend()
    return tuple(reader.issues) or backend


def row_name(row: Row, place: int) -> str:
    """What to call a row when speaking to its author."""
    row_id = row.get("id")
    return f"backend {written(row_id)}" if isinstance(row_id, str) and row_id.strip() else f"row {place}"


def written(value: object) -> str:
    """``value`` as its author would write it, shortened to one readable line."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"a BLOB of {len(value)} bytes"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"{value[:_SHOWN_CHARACTERS]!r}…"
    return repr(value)


def host_from_text(text: str) -> str:
    """Return the address or host name in ``text`` as a connect call takes it, ``""`` when it is neither.

    An IPv6 address loses its brackets. Names follow RFC 1123; their last label must not be a number,
    or a mistyped address such as ``10.0.0.256`` would pass for a name.
    """
    text = text.strip()
    bracketed = text.startswith("[") and text.endswith("]")
    try:
        address = ip_address(text[1:-1] if bracketed else text)
    except ValueError:
        return "" if bracketed or not _is_host_name(text) else text
    if address.version == 4:
        return "" if bracketed else str(address)
    zone_is_usable = address.scope_id is None or _ZONE.fullmatch(address.scope_id)
    return str(address) if zone_is_usable else ""


def _is_host_name(text: str) -> bool:
    name = text.removesuffix(".")
    labels = name.split(".")
    return (
        len(name) <= _HOST_NAME_MAX_CHARACTERS
        and all(_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdigit()
    )


class _RowReader:
    """Takes one column after the other and collects what is wrong.

    A wrong value yields a placeholder that is never used: with an issue, there is no backend.
    """

    def __init__(self, row: Row, geography: Geography, place: int) -> None:
        self.issues: list[RowIssue] = []
        self._row = row
        self._geography = geography
        self._place = place

    def backend(self) -> Backend:
        region = self._region()
        return Backend(
            id=self._name("id", may_be_empty=False),
            # The original ignores the column, so tables with an empty app exist. Such a row serves the
            # listeners that have no app themselves.
            app=self._name("app", may_be_empty=True),
            region=region,
            country=self._country() or self._geography.default_country(region),
            host=self._host(),
            port=self._whole_number("port", 1, MAX_PORT, f"from 1 to {MAX_PORT}"),
            # As in the original, any number but 0 means healthy.
            healthy=self._whole_number("healthy", -MAX_LIMIT - 1, MAX_LIMIT, "(0 or 1)") != 0,
            weight=self._whole_number("weight", 0, MAX_WEIGHT, f"from 0 to {MAX_WEIGHT}"),
            soft_limit=self._whole_number("soft_limit", 0, MAX_LIMIT, "of at least 0"),
            hard_limit=self._whole_number("hard_limit", 0, MAX_LIMIT, "of at least 0"),
        )

    def _name(self, column: str, *, may_be_empty: bool) -> str:
        text = self._text(column)
        if text is None:
            return ""
        if not may_be_empty and not text.strip():
            self._wrong(column, "is empty")
        # Control characters would break log lines, and lone surrogates cannot be encoded for the workers.
        elif not text.isprintable():
            self._wrong(column, "holds characters that cannot be printed")
        return text

    def _region(self) -> str:
        text = self._text("region")
        if text is None:
            return ""
        region = text.strip().lower()
        if region not in self._geography.default_country_by_region:
            self._wrong("region", f"is not a region; there are {', '.join(sorted(self._geography.regions))}")
        return region

    def _country(self) -> str:
        text = self._text("country") if self._row.get("country") is not None else None
        if text is None:
            return ""
        country = text.strip().upper()
        if country and country not in self._geography.region_by_country:
            self._wrong("country", "is not a country code of ISO 3166-1 (two letters, like DE)")
        return country

    def _host(self) -> str:
        text = self._text("wg_ip")
        if text is None:
            return ""
        host = host_from_text(text)
        if not host:
            self._wrong("wg_ip", "is neither an IP address nor a host name")
        return host

    def _text(self, column: str) -> str | None:
        value = self._row.get(column)
        if isinstance(value, str):
            return value
        self._wrong(column, "is not text")
        return None

    def _whole_number(self, column: str, minimum: int, maximum: int, wanted: str) -> int:
        value = self._row.get(column)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and minimum <= value <= maximum:
            # int() because True equals 1 and must leave the same trace.
            return int(value)
        self._wrong(column, f"is not a whole number {wanted}")
        return 0

    def _wrong(self, column: str, problem: str) -> None:
        name = row_name(self._row, self._place)  # feature: table.bad_rows
        self.issues.append(RowIssue(name, column, written(self._row.get(column)), problem))
