"""Which certificates are in use, as their files change; with certificates that only have a name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest

from edgeproxy.errors import ConfigError
from edgeproxy.runtime import certificate_watch
from edgeproxy.runtime.certificate_watch import CertificateWatch
from edgeproxy.runtime.logs import Logger
from testkit.wait import wait_until_async


@dataclass(frozen=True)
class FakeLoaded:
    name: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        return self.name != ""


class FakeSource:
    """Files that hold whatever the test says."""

    def __init__(self, name: str, *problems: str) -> None:
        self.content = FakeLoaded(name, problems)
        self.version = 0
        self.loads = 0

    def write(self, content: FakeLoaded) -> None:
        self.content = content
        self.version += 1

    def signature(self) -> object:
        return self.version

    def load(self) -> FakeLoaded:
        self.loads += 1
        return self.content


class World:
    """A watch, what it said, and whom it told of changes."""

    def __init__(self, source: FakeSource) -> None:
        self.source = source
        self.watch = CertificateWatch[FakeLoaded](source)
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.changes: list[str] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        log = cast("Logger", self)
        task = asyncio.create_task(self.watch.watch(log, lambda: self.changes.append(self.watch.loaded.name)))
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(certificate_watch, "INTERVAL_S", 0.001)
    return World(FakeSource("first"))


async def until_loaded(source: FakeSource, loads: int) -> None:
    await wait_until_async(lambda: source.loads >= loads, reason=f"{loads} loads", interval_s=0.001)


def test_what_cannot_be_used_at_the_start_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"a\.pem: missing"):
        CertificateWatch(FakeSource("", "a.pem: missing"))


async def test_a_change_is_told(world: World) -> None:
    async with world.watching():
        world.source.write(FakeLoaded("second", ("b.pem: left out",), ("c.key: slow",)))
        await wait_until_async(lambda: world.changes, reason="the change", interval_s=0.001)
    assert world.changes == ["second"]
    assert world.lines == [
        ("a certificate cannot be used", {"why": "b.pem: left out"}),
        ("a certificate should be replaced", {"why": "c.key: slow"}),
        ("certificates replaced", {}),
    ]


async def test_what_cannot_be_used_leaves_what_is_in_use(world: World) -> None:
    async with world.watching():
        world.source.write(FakeLoaded("", ("a.pem: nonsense",)))
        await wait_until_async(lambda: world.lines, reason="the warning", interval_s=0.001)
        assert world.watch.loaded.name == "first"
        world.source.write(FakeLoaded("first"))
        await until_loaded(world.source, 3)
    assert world.lines == [("keeping the certificates in use", {"why": "a.pem: nonsense"})]
    assert world.changes == []


async def test_another_source_is_followed_once_it_is_taken(world: World) -> None:
    other = FakeSource("other")
    with pytest.raises(ConfigError, match="bad"):
        world.watch.prepare(FakeSource("", "bad"))
    follow = world.watch.prepare(other)
    assert world.watch.loaded.name == "first"
    follow()
    assert world.watch.loaded.name == "other"
    async with world.watching():
        world.source.write(FakeLoaded("forgotten"))
        other.write(FakeLoaded("newer"))
        await wait_until_async(lambda: world.changes, reason="the change", interval_s=0.001)
    assert world.changes == ["newer"]


async def test_what_a_former_source_still_loads_is_dropped(world: World) -> None:
    other = FakeSource("other")
    load = world.source.load

    def replaced_meanwhile() -> FakeLoaded:
        world.watch.prepare(other)()
        return load()

    world.source.load = replaced_meanwhile  # type: ignore[method-assign]
    async with world.watching():
        world.source.write(FakeLoaded("late"))
        await wait_until_async(
            lambda: world.watch.loaded.name == "other", reason="the other", interval_s=0.001
        )
        other.write(FakeLoaded("newer"))
        await wait_until_async(lambda: world.changes, reason="the change", interval_s=0.001)
    assert world.changes == ["newer"]
