"""State that all instances of the service share: in Valkey, and told on a channel as it changes.

A key holds its version and its value; both change in one step on the server. What is announced are versions
and values, so an instance's copy follows without asking. A value that ends by its time is not announced.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

_log = logging.getLogger(__name__)

# Version, line feed, value: JSON has no line feed of its own, and Lua would not give it back as it was.
_READ = """
    local old = redis.call('GET', KEYS[1])
    local version = tonumber(old and string.match(old, '^%d+') or 0)
    local function write(value, ttl)
        local text = (version + 1) .. '\\n' .. value
        redis.call('SET', KEYS[1], text)
        if ttl ~= '' then redis.call('PEXPIRE', KEYS[1], ttl) end
        redis.call('PUBLISH', KEYS[2], (version + 1) .. '\\n' .. ARGV[1] .. '\\n' .. value)
    end
"""
_SET = (
    _READ
    + """
    if ARGV[4] ~= '' and tonumber(ARGV[4]) ~= version then return {0, version} end
    write(ARGV[2], ARGV[3])
    return {1, version + 1}
"""
)
_INCREMENT = (
    _READ
    + """
    local sum = string.format('%d', (old and tonumber(string.match(old, '\\n(.*)')) or 0) + tonumber(ARGV[2]))
    write(sum, '')
    return tonumber(sum)
"""
)
_DELETE = """
    local gone = redis.call('DEL', KEYS[1])
    if gone == 1 then redis.call('PUBLISH', KEYS[2], '0\\n' .. ARGV[1] .. '\\nnull') end
    return gone
"""


class ConflictError(Exception):
    """Somebody else has changed the key."""


@dataclass(frozen=True, slots=True)
class Versioned:
    value: Any
    version: int


Handler = Callable[[str, Any], None]
"""Is told the key and what it has now, `Versioned`, or ``None`` when it is gone."""


class ValkeyState:
    """One instance's view of a namespace. ``made`` makes what is handed out, of a value and its version."""

    def __init__(self, client: Redis, namespace: str, *, made: Callable[[Any, int], Any] = Versioned) -> None:
        self._client = client
        self._prefix = f"state:{namespace}:"
        self._channel = f"changes:{namespace}"
        self._made = made
        self._handlers: list[Handler] = []
        self._copy: dict[str, tuple[str, int]] = {}
        self._markers: dict[str, asyncio.Event] = {}
        self._pubsub: PubSub | None = None
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Hear of changes from now on, and read what there is."""
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        await self._pubsub.subscribe(self._channel)
        # After subscribing, or what is written in between would never be known.
        self._copy.clear()
        async for stored in self._client.scan_iter(match=self._prefix + "*"):
            name = stored.decode()
            if (text := await self._client.get(name)) is not None:
                version, value = _parted(text)
                self._copy[name.removeprefix(self._prefix)] = value, version
        self._listening = asyncio.create_task(self._listen(self._pubsub))

    async def stop(self) -> None:
        """Hear of nothing more."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None and self._listening is not None:
            # Ends the loop that listens, too.
            await pubsub.unsubscribe()
            await self._listening
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def set(
        self, key: str, value: Any, *, expected_version: int | None = None, ttl_s: float | None = None
    ) -> int:
        """Write, and return the new version.

        Raises:
            ConflictError: ``expected_version`` is not the one that there is.
        """
        ttl = "" if ttl_s is None else str(int(ttl_s * 1000))
        expected = "" if expected_version is None else str(expected_version)
        written, version = await self._run(_SET, key, json.dumps(value), ttl, expected)
        if not written:
            raise ConflictError(f"{key} has version {version}, not {expected}")
        return int(version)

    async def get(self, key: str) -> Any:
        """What the server has: `Versioned`, or ``None``."""
        text = await self._client.get(self._prefix + key)
        if text is None:
            return None
        version, value = _parted(text)
        return self._made(json.loads(value), version)

    def cached(self, key: str) -> Any:
        """What this instance has heard."""
        if key not in self._copy:
            return None
        value, version = self._copy[key]
        return self._made(json.loads(value), version)

    def keys(self) -> list[str]:
        """Those that this instance has heard of and that are not gone."""
        return [*self._copy]

    async def increment(self, key: str, by: int = 1) -> int:
        return int(await self._run(_INCREMENT, key, str(by)))

    async def delete(self, key: str) -> bool:
        return bool(await self._run(_DELETE, key))

    def on_change(self, handler: Handler) -> None:
        self._handlers.append(handler)

    async def settle(self) -> None:
        """Wait until all changes made so far have been heard: what is announced arrives in order."""
        token = secrets.token_hex(8)
        marker = self._markers[token] = asyncio.Event()
        await self._client.publish(self._channel, f"marker\n{token}")
        await marker.wait()

    async def _run(self, script: str, key: str, *arguments: str) -> Any:
        keys = self._prefix + key, self._channel
        return await self._client.eval(script, 2, *keys, json.dumps(key), *arguments)

    async def _listen(self, pubsub: PubSub) -> None:
        async for message in pubsub.listen():
            if message is not None:
                self._hear(message["data"].decode())

    def _hear(self, text: str) -> None:
        first, _, rest = text.partition("\n")
        if first == "marker":
            if (marker := self._markers.pop(rest, None)) is not None:
                marker.set()
            return
        key_text, _, value = rest.partition("\n")
        try:
            key, version = json.loads(key_text), int(first)
            entry = self._made(json.loads(value), version) if version else None
        except ValueError:
            _log.warning("%s: no change: %.100r", self._channel, text)
            return
        if entry is None:
            self._copy.pop(key, None)
        else:
            self._copy[key] = value, version
        for handler in self._handlers:
            try:
                handler(key, entry)
            except Exception:  # noqa: BLE001  whatever it is, it is that handler's
                _log.exception("a handler failed at %r", key)


class Namespaces:
    """All that an instance sees of the state, started and stopped together."""

    def __init__(self, client: Redis, *, made: Callable[[Any, int], Any] = Versioned) -> None:
        self._client = client
        self._made = made
        self._states: dict[str, ValkeyState] = {}

    def namespace(self, name: str) -> ValkeyState:
        """The same object for the same name. One that is new is not started, whatever the others are."""
        if name not in self._states:
            self._states[name] = ValkeyState(self._client, name, made=self._made)
        return self._states[name]

    def names(self) -> list[str]:
        return [*self._states]

    async def start(self) -> None:
        """Hear of changes in all of them; in none, when one of them cannot be started."""
        try:
            for state in self._states.values():
                await state.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Hear of nothing more."""
        for state in self._states.values():
            await state.stop()


def _parted(stored: bytes | str) -> tuple[int, str]:
    text = stored if isinstance(stored, str) else stored.decode()
    version, _, value = text.partition("\n")
    return int(version), value
