"""The journal: what connections and requests came, in order, to assert on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any

CAPACITY = 10_000
"""Entries kept, some 4 MB; older ones are dropped and counted."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened; what does not apply to it is empty.

    ============== ===============================================================================
    ``open``       a connection was accepted; ``detail`` is the port's name: http, tcp-echo
    ``proxy``      its PROXY header was read; ``client`` is what that says
    ``read``       a script read bytes; ``detail`` says how many
    ``request``    a request arrived; ``answer`` when it was answered, with ``status``
    ``malformed``  what arrived is no HTTP
    ``datagram``   one came to the UDP port; ``detail`` says how long
    ``close``      a connection is over; ``detail`` says how: closed, reset, failed with its reason
    ``control``    somebody changed the instrument; ``detail`` says what
    ============== ===============================================================================
    """

    number: int
    at_s: float
    """Seconds since the start, on the monotonic clock."""
    event: str
    connection: int = 0
    client: str = ""
    """Address and port, of the PROXY header where there was one."""
    method: str = ""
    path: str = ""
    status: int = 0
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields that are not empty."""
        return {name: value for name, value in asdict(self).items() if value or name in ("number", "at_s")}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Entry:
        return cls(**values)


FIELDS = tuple(field.name for field in fields(Entry))


class Journal:
    """The last entries, numbered from 1."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._entries: deque[Entry] = deque(maxlen=capacity)
        self.last_number = 0

    def note(self, at_s: float, event: str, **values: Any) -> None:
        """Add an entry; ``values`` are fields of `Entry`."""
        self.last_number += 1
        self._entries.append(Entry(self.last_number, at_s, event, **values))

    @property
    def dropped(self) -> int:
        """Entries that are not kept any more."""
        return self.last_number - len(self._entries)

    def entries(self, after: int = 0) -> list[Entry]:
        """Return what is kept of the entries with greater numbers than ``after``, in order."""
        # Numbers have no gaps, so the place of one is known.
        first = max(0, after - self.dropped)
        return list(islice(self._entries, first, None))

    def clear(self) -> None:
        """Drop all entries; numbers go on."""
        self._entries.clear()


def select(entries: Iterable[Entry], **wanted: object) -> list[Entry]:
    """Return the entries of which every field named has this value.

    Raises:
        ValueError: an entry has no such field.
    """
    if unknown := wanted.keys() - set(FIELDS):
        raise ValueError(f"an entry has no {', '.join(sorted(unknown))}; it has {', '.join(FIELDS)}")
    return [
        entry for entry in entries if all(getattr(entry, name) == value for name, value in wanted.items())
    ]
