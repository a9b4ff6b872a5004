"""Pages made of the log: each as it was at any position of it, on the main line and on branches.

An entry of the log is one record. Positions are those of the log: 1 is the first entry, 0 is before it.
"""

from __future__ import annotations

from bisect import bisect_right

import msgspec

PAGE_BYTES = 64
_EMPTY = bytes(PAGE_BYTES)


class Write(msgspec.Struct, frozen=True, tag=True):
    """These bytes are in the page from ``at`` on."""

    page: int
    at: int
    data: bytes


class Copy(msgspec.Struct, frozen=True, tag=True):
    """The page is what another one is now."""

    page: int
    source: int


class Clear(msgspec.Struct, frozen=True, tag=True):
    """The page is empty."""

    page: int


Record = Write | Copy | Clear

_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def record_bytes(record: Record) -> bytes:
    """What a client proposes to the log."""
    return msgspec.msgpack.encode(record)


def read_record(payload: bytes) -> Record:
    """The record of an entry.

    Raises:
        ValueError: it is none, or reaches beyond its page.
    """
    record = _decoder.decode(payload)
    if isinstance(record, Write) and not 0 <= record.at <= PAGE_BYTES - len(record.data):
        raise ValueError(f"{record} is not within a page of {PAGE_BYTES} bytes")
    return record


class Timeline:
    """All versions of all pages. A branch has what its parent had up to one position, and then its own."""

    def __init__(self, *, parent: Timeline | None = None, at: int = 0) -> None:
        self.position = at
        self._parent = parent
        self._began = at
        self._versions: dict[int, list[tuple[int, bytes]]] = {}

    def apply(self, payload: bytes) -> None:
        """Take the next entry of the log.

        Raises:
            ValueError: it is no record; nothing has changed.
        """
        record = read_record(payload)
        changed = self._changed(record)
        self.position += 1
        self._versions.setdefault(record.page, []).append((self.position, changed))

    def page(self, number: int, at: int | None = None) -> bytes:
        """A page as it is, or was at a position.

        Raises:
            LookupError: the log has not come that far.
        """
        at = self.position if at is None else at
        if at > self.position:
            raise LookupError(f"position {at} is not there yet: the log ends at {self.position}")
        versions = self._versions.get(number, [])
        newer = bisect_right(versions, at, key=lambda version: version[0])
        if newer:
            return versions[newer - 1][1]
        return _EMPTY if self._parent is None else self._parent.page(number, min(at, self._began))

    def versions(self, number: int) -> list[int]:
        """The positions at which a page became another one, those before the branch included."""
        before = [] if self._parent is None else self._parent.versions(number)
        own = [position for position, _ in self._versions.get(number, [])]
        return [position for position in before if position <= self._began] + own

    def snapshot(self, at: int | None = None) -> dict[int, bytes]:
        """All pages that are not empty, at one position."""
        numbers = {*self._versions, *(self._parent.snapshot(self._began) if self._parent else ())}
        pages = {number: self.page(number, at) for number in sorted(numbers)}
        return {number: page for number, page in pages.items() if page != _EMPTY}

    def branch(self, at: int | None = None) -> Timeline:
        """A line of its own from a position on; neither sees what the other does from there.

        Raises:
            LookupError: the log has not come that far.
        """
        at = self.position if at is None else at
        if at > self.position:
            raise LookupError(f"position {at} is not there yet: the log ends at {self.position}")
        return Timeline(parent=self, at=at)

    def _changed(self, record: Record) -> bytes:
        match record:
            case Write():
                old = self.page(record.page)
                return old[: record.at] + record.data + old[record.at + len(record.data) :]
            case Copy():
                return self.page(record.source)
            case Clear():
                return _EMPTY
