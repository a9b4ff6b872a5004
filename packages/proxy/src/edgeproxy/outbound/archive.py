"""The table's past, away from this machine: snapshots of the rows, and between them all changes.

Names say what an object holds, so nothing else needs to be kept, and whoever comes next goes on where the
last one stopped::

    NODE/BEGAN-INCARNATION/snapshot-CHANGE-AT     the rows after that change
    NODE/BEGAN-INCARNATION/changes-FIRST-LAST     changes, by their numbers in the change log

A *stream* is one incarnation of one file, in which numbers rise without gaps. A snapshot is taken at its
beginning, after so many changes, and when the log has lost what should come next. Each object begins with the
checksum of what follows, which is compressed msgpack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

import msgspec
import zstandard

from edgeproxy.core.controlplane.history import (
    HistoryError,
    Restorable,
    Rows,
    in_sequence,
    replayed,
    undone,
)
from edgeproxy.core.replication.model import Value
from edgeproxy.errors import StoreError
from edgeproxy.outbound.archive_places import Place
from edgeproxy.outbound.change_log_reading import read_changes_after, read_logged_rows
from edgeproxy.outbound.change_log_sqlite import position
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import Change

T = TypeVar("T")

CHANGES_PER_OBJECT: Final = 1_000
CHANGES_PER_SNAPSHOT: Final = 10_000
"""So many changes at most are replayed by a restore."""
_MAX_BYTES: Final = 1 << 30

_SNAPSHOT: Final = re.compile(r"snapshot-(\d{16})-(\d{8}T\d{9}Z)")
_CHANGES: Final = re.compile(r"changes-(\d{16})-(\d{16})")


class Step(NamedTuple):
    """What was added to an archive."""

    changes: int
    snapshot: bool
    until: str
    """Up to which time the archive goes."""
    more: bool
    """Whether there is more to add at once."""


class _Snapshot(msgspec.Struct, frozen=True):
    change: int
    at: str
    rows: dict[str, dict[str, Value]]


class _Change(msgspec.Struct, frozen=True):
    """A :class:`Change` whose values are of the types that SQLite has."""

    number: int
    at: str
    author: str
    origin: str | None
    sequence: int | None
    id: str
    old: dict[str, Value] | None
    new: dict[str, Value] | None

    def plain(self) -> Change:
        return Change(**msgspec.structs.asdict(self))


class _Stream(NamedTuple):
    """What there is of one stream, by its names."""

    prefix: str
    snapshots: list[tuple[int, str, str]]
    """Last change, time, name; in order."""
    segments: list[tuple[int, int, str]]
    """First and last change, name; in order."""

    @property
    def last(self) -> int:
        """The last change that is archived."""
        return max([0, *(change for change, _, _ in self.snapshots), *(last for _, last, _ in self.segments)])


class Archive:
    """What one node keeps in a place."""

    def __init__(self, place: Place, node: str) -> None:
        self._place = place
        self._node = node

    def _streams(self) -> list[_Stream]:
        """In the order in which they began."""
        streams: dict[str, _Stream] = {}
        for name in self._place.names(f"{self._node}/"):
            prefix, _, last = name.rpartition("/")
            stream = streams.setdefault(prefix, _Stream(prefix, [], []))
            if found := _SNAPSHOT.fullmatch(last):
                stream.snapshots.append((int(found[1]), _long(found[2]), name))
            elif found := _CHANGES.fullmatch(last):
                stream.segments.append((int(found[1]), int(found[2]), name))
        return [each for _, each in sorted(streams.items()) if each.snapshots]

    # ---- adding ----------------------------------------------------------------------------------------

    def add(self, store: SqliteStore, keep_s: float) -> Step:
        """Add what is new, at most one object of changes and a snapshot; drop what is older than ``keep_s``.

        Raises:
            StoreError: the store cannot be read, or the place not be used; the next step goes on from there.
        """
        if (why := store.tend()) is not None:
            raise StoreError(f"routing database {store} cannot be archived: {why}")
        streams = self._streams()
        now = _short(_now())
        with store.reading() as connection:
            at = position(connection)
            incarnation = at.origin.rpartition("/")[2]
            stream = next(
                (each for each in streams if each.prefix.endswith(f"-{incarnation}")),
                _Stream(f"{self._node}/{now}-{incarnation}", [], []),
            )
            changes = [
                each
                for each in read_changes_after(connection, stream.last, CHANGES_PER_OBJECT)
                if each.number <= at.last_change
            ]
            rows = read_logged_rows(connection, store.path)
            pending = read_changes_after(connection, at.last_change)
        is_whole = bool(stream.snapshots) and (not changes or changes[0].number == stream.last + 1)
        if not is_whole:
            # Nothing to go on from: what the log has lost cannot be restored, what comes from now on can.
            changes = []
        if changes:
            first, last = changes[0].number, changes[-1].number
            name = f"{stream.prefix}/changes-{first:016}-{last:016}"
            self._write(name, changes)
            stream.segments.append((first, last, name))
        more = is_whole and stream.last < at.last_change
        snapshot = not is_whole or (
            not more and at.last_change - stream.snapshots[-1][0] >= CHANGES_PER_SNAPSHOT
        )
        if snapshot:
            name = f"{stream.prefix}/snapshot-{at.last_change:016}-{now}"
            self._write(name, _Snapshot(at.last_change, _long(now), _undone(store, rows, pending)))
            stream.snapshots.append((at.last_change, _long(now), name))
        self._drop_old([*(each for each in streams if each.prefix != stream.prefix), stream], keep_s)
        until = changes[-1].at if changes else _long(now)
        return Step(len(changes), snapshot, until, more)

    def _drop_old(self, streams: list[_Stream], keep_s: float) -> None:
        """Drop what is before the newest snapshot that is old enough to restore every time that is kept."""
        oldest = _written(datetime.now(UTC) - timedelta(seconds=keep_s))
        beginnings = [
            (place, change)
            for place, stream in enumerate(streams)
            for change, at, _ in stream.snapshots
            if at <= oldest
        ]
        if not beginnings:
            return
        place, change = max(beginnings)
        for stream in streams[:place]:
            for *_, name in (*stream.segments, *stream.snapshots):
                self._place.remove(name)
        for *_, last, name in streams[place].segments:
            if last <= change:
                self._place.remove(name)
        for last, _, name in streams[place].snapshots:
            if last < change:
                self._place.remove(name)

    def _write(self, name: str, content: object) -> None:
        packed = zstandard.compress(msgspec.msgpack.encode(content))
        self._place.write(name, sha256(packed).hexdigest().encode() + b"\n" + packed)

    # ---- reading ---------------------------------------------------------------------------------------

    def rows_at(self, at: str) -> Restorable:
        """Return the rows as they were at ``at``, or as of the latest change where that is empty.

        Everything that this takes is read and checked.

        Raises:
            StoreError: the archive does not go so far, or something in it is damaged or missing.
        """
        streams = self._streams()
        if not streams:
            raise StoreError(f"the archive has nothing of {self._node}")
        begun = [each for each in streams if not at or each.snapshots[0][1] <= at]
        if not begun:
            raise StoreError(f"the archive begins at {streams[0].snapshots[0][1]}, which is after {at}")
        stream = begun[-1]
        change, since, name = [each for each in stream.snapshots if not at or each[1] <= at][-1]
        snapshot = self._read(name, _Snapshot)
        found: list[Change] = []
        until, is_reached = since, False
        for first, last, name in stream.segments:
            if last <= change or is_reached:
                continue
            entries = [each.plain() for each in self._read(name, list[_Change])]
            if [entries[0].number, entries[-1].number] != [first, last]:
                raise StoreError(f"{name} of the archive holds other changes than its name says")
            for each in entries:
                is_reached = is_reached or bool(at and each.at > at)
                if each.number > change and not is_reached:
                    found.append(each)
                    until = max(until, each.at)
        later = [each for _, each, _ in stream.snapshots if each > since]
        if at and not is_reached and at > max([until, *later]):
            raise StoreError(f"the archive goes up to {max([until, *later])}; what was at {at} is not in it")
        try:
            rows = replayed(snapshot.rows, in_sequence(found, change + 1))
        except HistoryError as error:
            raise StoreError(
                f"the archive cannot be followed from {since} to {at or until}: {error}"
            ) from error
        return Restorable(rows, at or until)

    def _read(self, name: str, kind: type[T]) -> T:
        checksum, _, packed = self._place.read(name).partition(b"\n")
        if checksum != sha256(packed).hexdigest().encode():
            raise StoreError(f"{name} of the archive is damaged: its checksum does not fit")
        try:
            content = zstandard.ZstdDecompressor().decompress(packed, max_output_size=_MAX_BYTES)
            return msgspec.msgpack.decode(content, type=kind)
        except (zstandard.ZstdError, msgspec.DecodeError) as error:
            raise StoreError(f"{name} of the archive cannot be read: {error}") from error


class ArchiveKeeper:
    """Adds the changes of one store to an archive, step by step."""

    def __init__(self, store: SqliteStore, archive: Archive, keep_s: float) -> None:
        self._store = store
        self._archive = archive
        self._keep_s = keep_s

    def step(self) -> Step:
        """See :meth:`Archive.add`."""
        return self._archive.add(self._store, self._keep_s)  # feature: recovery.archive


def _undone(store: SqliteStore, rows: Rows, pending: Iterable[Change]) -> dict[str, dict[str, Value]]:
    try:
        return undone(rows, pending)  # type: ignore[return-value]
    except HistoryError as error:
        raise StoreError(f"the change log of {store} cannot be archived: {error}") from error


def _now() -> str:
    return _written(datetime.now(UTC))


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _short(at: str) -> str:
    """A time for names: ``20261120T101324123Z``."""
    return re.sub("[-:.]", "", at)


def _long(short: str) -> str:
    date, time = short[:8], short[9:]
    return f"{date[:4]}-{date[4:6]}-{date[6:]}T{time[:2]}:{time[2:4]}:{time[4:6]}.{time[6:9]}Z"
