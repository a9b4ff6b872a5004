"""Which apps and backends there are, under the names that DNS gives them.

DNS compares names without regard to the case of ASCII letters, and splits them at dots. Ids and apps
do neither, so each is indexed by its labels: ``Shop.EU`` is ``(b"shop", b"eu")``. An id or app that
makes no valid labels (an empty one, or one of more than 63 bytes) is never found, as no query can hold it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeVar

from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.model import Backend

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

Labels = tuple[bytes, ...]
"""A name or a part of one, in lower case, nearest to the root last."""

VM: Final = b"vm"
"""Stands between the id of a backend and its app."""

LIST_MAX_BYTES: Final = 16 << 10
"""A list ends before the entry that would make its text longer. A DNS message holds 64 KiB."""


def labels_of(name: str) -> Labels:
    """The labels of an id or app. Like DNS, ``bytes.lower`` leaves all but ASCII alone."""
    return tuple(name.encode().lower().split(b"."))


def backend_labels(backend: Backend) -> Labels:
    """``<id>.vm.<app>``, without the domain."""
    return (*labels_of(backend.id), VM, *labels_of(backend.app))


class Directory:
    """Names of the rows it was told of, kept row by row.

    Rows without an app have no name, nor have those of an app that is called ``*``, which means all apps.
    """

    def __init__(self) -> None:
        self._backends: dict[int, Backend] = {}
        self._slots_by_app: dict[str, set[int]] = {}
        self._apps: dict[Labels, set[str]] = {}
        self._slots_by_name: dict[Labels, set[int]] = {}
        self._enclosing: Counter[Labels] = Counter()
        self._lists: dict[tuple[str, str], str] = {}

    def put(self, slot: int, backend: Backend) -> None:
        """Add ``backend`` under ``slot``, or replace what the slot holds."""
        self.discard(slot)
        if backend.app in ("", ANY_APP):
            return
        self._lists.clear()
        self._backends[slot] = backend
        name, app = backend_labels(backend), labels_of(backend.app)
        self._slots_by_name.setdefault(name, set()).add(slot)
        self._apps.setdefault(app, set()).add(backend.app)
        self._slots_by_app.setdefault(backend.app, set()).add(slot)
        self._enclosing.update(_enclosing(name, app))

    def discard(self, slot: int) -> None:
        """Forget the slot; unknown ones are ignored."""
        backend = self._backends.pop(slot, None)
        if backend is None:
            return
        self._lists.clear()
        name, app = backend_labels(backend), labels_of(backend.app)
        _remove(self._slots_by_name, name, slot)
        _remove(self._slots_by_app, backend.app, slot)
        if backend.app not in self._slots_by_app:
            _remove(self._apps, app, backend.app)
        for outer in _enclosing(name, app):
            self._enclosing[outer] -= 1
            if not self._enclosing[outer]:
                del self._enclosing[outer]

    def app(self, labels: Labels) -> str | None:
        """The app of that name, ``None`` when no row has it.

        Of apps that differ in case alone, the first one in the order of their characters.
        """
        apps = self._apps.get(labels)
        return min(apps) if apps is not None else None

    def slots(self, labels: Labels) -> Collection[int]:
        """The backends called ``<id>.vm.<app>``: one, or several whose ids differ in case alone."""
        return self._slots_by_name.get(labels, ())

    def encloses(self, labels: Labels) -> bool:
        """Whether a dotted app or id makes ``labels`` the end of a name without being one itself."""
        return labels in self._enclosing

    def apps_text(self) -> str:
        """``app,app``, in order; apps whose backends are all unhealthy are among them."""
        return self._list("", "apps", lambda: self._slots_by_app)

    def regions_text(self, app: str) -> str:
        """``region,region``: where ``app`` has backends that are healthy by the operator's word."""
        return self._list(app, "regions", lambda: {backend.region for backend in self._healthy(app)})

    def backends_text(self, app: str) -> str:
        """``id region,id region``: the backends of ``app`` that are healthy by the operator's word."""
        return self._list(
            app, "backends", lambda: (f"{backend.id} {backend.region}" for backend in self._healthy(app))
        )

    def _healthy(self, app: str) -> Iterable[Backend]:
        backends = map(self._backends.__getitem__, self._slots_by_app[app])
        return (backend for backend in backends if backend.healthy)

    def _list(self, app: str, kind: str, entries: Callable[[], Iterable[str]]) -> str:
        """A list is made once, when it is first asked for after a change."""
        text = self._lists.get((app, kind))
        if text is None:
            text = self._lists[app, kind] = _joined(sorted(entries()))
        return text


def _joined(entries: Iterable[str]) -> str:
    kept: list[str] = []
    size = 0
    for entry in entries:
        size += len(entry.encode()) + 1
        if size > LIST_MAX_BYTES:
            break
        kept.append(entry)
    return ",".join(kept)


def _enclosing(name: Labels, app: Labels) -> list[Labels]:
    """The inner nodes that a dotted id or app adds to the tree of names; none for most."""
    within_id = range(1, len(name) - 1 - len(app))
    return [name[start:] for start in within_id] + [app[start:] for start in range(1, len(app))]


def _remove(index: dict[_Key, set[_Value]], key: _Key, value: _Value) -> None:
    members = index[key]
    members.remove(value)
    if not members:
        del index[key]
