"""Shared state in memory: a store, a channel for each namespace, and instances that listen to it."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any, Self

from testkit.clocks import ManualClock
from testkit.contracts.state_sync import Entry, Handler

Stored = tuple[str, int, float | None]
"""Value as JSON, version, end."""


class ConflictError(Exception):
    """The version is not the one expected."""


class MemoryStore:
    """What all instances agree on; each call is one step."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._namespaces: dict[str, dict[str, Stored]] = defaultdict(dict)
        self.listeners: dict[str, list[asyncio.Queue[str]]] = defaultdict(list)

    def read(self, namespace: str, key: str) -> Entry | None:
        stored = self._namespaces[namespace].get(key)
        if stored is None or (stored[2] is not None and stored[2] <= self._clock()):
            return None
        return Entry(json.loads(stored[0]), stored[1])

    def write(self, namespace: str, key: str, value: Any, version: int, ttl_s: float | None) -> None:
        until_s = None if ttl_s is None else self._clock() + ttl_s
        self._namespaces[namespace][key] = json.dumps(value), version, until_s
        self.announce(namespace, json.dumps([key, value, version]))

    def erase(self, namespace: str, key: str) -> None:
        del self._namespaces[namespace][key]
        self.announce(namespace, json.dumps([key, None, 0]))

    def announce(self, namespace: str, message: str) -> None:
        for listener in self.listeners[namespace]:
            listener.put_nowait(message)

    def keys(self, namespace: str) -> list[str]:
        return [*self._namespaces[namespace]]


class MemoryState:
    """One instance's view of a namespace."""

    def __init__(self, store: MemoryStore, namespace: str) -> None:
        self._store = store
        self._namespace = namespace
        self._handlers: list[Handler] = []
        self._copy: dict[str, str] = {}
        self._news: asyncio.Queue[str] = asyncio.Queue()
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._news = asyncio.Queue()
        self._store.listeners[self._namespace].append(self._news)
        self._copy.clear()
        for key in self._store.keys(self._namespace):
            if (entry := self._store.read(self._namespace, key)) is not None:
                self._remember(key, entry)
        self._listening = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        if self._listening is not None:
            self._store.listeners[self._namespace].remove(self._news)
            self._listening.cancel()
            await asyncio.wait([self._listening])
            self._listening = None

    async def set(
        self, key: str, value: Any, *, expected_version: int | None = None, ttl_s: float | None = None
    ) -> int:
        version = self._version(key)
        if expected_version is not None and expected_version != version:
            raise ConflictError(f"{key} has version {version}, not {expected_version}")
        self._store.write(self._namespace, key, value, version + 1, ttl_s)
        return version + 1

    async def get(self, key: str) -> Entry | None:
        return self._store.read(self._namespace, key)

    def cached(self, key: str) -> Entry | None:
        stored = self._copy.get(key)
        return None if stored is None else Entry(*json.loads(stored))

    async def increment(self, key: str, by: int = 1) -> int:
        entry = self._store.read(self._namespace, key)
        total = int(entry.value if entry else 0) + by
        self._store.write(self._namespace, key, total, self._version(key) + 1, None)
        return total

    async def delete(self, key: str) -> bool:
        if self._store.read(self._namespace, key) is None:
            return False
        self._store.erase(self._namespace, key)
        return True

    def on_change(self, handler: Handler) -> None:
        self._handlers.append(handler)

    async def settle(self) -> None:
        # What was announced before is in the queue already.
        await self._news.join()

    def _version(self, key: str) -> int:
        entry = self._store.read(self._namespace, key)
        return entry.version if entry else 0

    async def _listen(self) -> None:
        while True:
            message = await self._news.get()
            try:
                key, value, version = json.loads(message)
            except ValueError:
                pass  # somebody else's words
            else:
                self._hear(key, Entry(value, version) if version else None)
            self._news.task_done()

    def _hear(self, key: str, entry: Entry | None) -> None:
        if entry is None:
            self._copy.pop(key, None)
        else:
            self._remember(key, entry)
        for handler in self._handlers:
            self._tell(handler, key, entry)

    def _remember(self, key: str, entry: Entry) -> None:
        self._copy[key] = json.dumps([entry.value, entry.version])

    def _tell(self, handler: Handler, key: str, entry: Entry | None) -> None:
        try:
            handler(key, entry)
        except Exception:  # noqa: BLE001  whatever it is, it is that handler's
            return


class MemoryStateManager:
    """Namespaces of one instance."""

    def __init__(self, harness: MemoryStateHarness) -> None:
        self._harness = harness
        self._states: dict[str, MemoryState] = {}

    def namespace(self, name: str) -> MemoryState:
        if name not in self._states:
            self._states[name] = self._harness.open(name)
        return self._states[name]

    def names(self) -> list[str]:
        return [*self._states]

    async def start(self) -> None:
        for state in self._states.values():
            await state.start()

    async def stop(self) -> None:
        for state in self._states.values():
            await state.stop()


class MemoryStateHarness:
    """Instances over one store, or of a class made from them; a context manager that stops them."""

    conflict = ConflictError

    def __init__(self, kind: type[MemoryState] = MemoryState) -> None:
        self._kind = kind
        self._clock = ManualClock()
        self._store = MemoryStore(self._clock)
        self._opened: list[MemoryState] = []

    def open(self, namespace: str = "default") -> MemoryState:
        self._opened.append(self._kind(self._store, namespace))
        return self._opened[-1]

    def manager(self) -> MemoryStateManager:
        return MemoryStateManager(self)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def announce_rubbish(self, namespace: str = "default") -> None:
        self._store.announce(namespace, "{")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for state in self._opened:
            await state.stop()
