"""Which country database is in use, as its file changes; with databases that only have a name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.errors import GeoDatabaseError
from edgeproxy.runtime import geo_watch
from edgeproxy.runtime.geo_watch import GeoWatch
from testkit.wait import wait_until_async

PATH = Path("countries.mmdb")


class FakeDatabase:
    def __init__(self, description: str) -> None:
        self.description = description
        self.closed = False

    def country(self, _address: str) -> str:
        return ""

    def close(self) -> None:
        self.closed = True


class World:
    """One file, whose content is the name of a database; "bad" and "" are none."""

    def __init__(self, content: str = "first") -> None:
        self.content = content
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self.changes = 0
        self.looks = 0

    def open(self, path: Path | None) -> FakeDatabase:
        if path is not None and self.content in ("", "bad"):
            raise GeoDatabaseError(f"{path} is {self.content or 'missing'}")
        return FakeDatabase(self.content if path is not None else "embedded")

    def signature(self, path: Path) -> object:
        assert path == PATH
        self.looks += 1
        return self.content

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warning", event, fields))

    def changed(self) -> None:
        self.changes += 1

    def watch(self, watching: GeoWatch) -> asyncio.Task[None]:
        log: Any = self
        return asyncio.create_task(watching.watch(log, self.changed))

    async def looked_again(self) -> None:
        seen = self.looks
        await wait_until_async(lambda: self.looks > seen + 2, reason="two more looks at the file")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geo_watch, "INTERVAL_S", 0.001)


@pytest.mark.feature("geography.own_database")
async def test_a_replaced_file_is_opened_and_told() -> None:
    world = World()
    watching = GeoWatch(PATH, world.open, world.signature)
    first = watching.database
    task = world.watch(watching)
    world.content = "second"
    await wait_until_async(lambda: world.changes, reason="the change to be told")
    task.cancel()
    assert str(watching.database.description) == "second"
    assert isinstance(first, FakeDatabase)
    assert first.closed
    assert world.lines == [("info", "country database replaced", {"countries": "second"})]


async def test_an_unchanged_file_is_left_alone() -> None:
    world = World()
    watching = GeoWatch(PATH, world.open, world.signature)
    first = watching.database
    task = world.watch(watching)
    await world.looked_again()
    task.cancel()
    assert watching.database is first
    assert (world.changes, world.lines) == (0, [])


@pytest.mark.parametrize("content", ["bad", ""])
async def test_a_file_that_is_none_is_told_once_and_the_old_one_kept(content: str) -> None:
    world = World()
    watching = GeoWatch(PATH, world.open, world.signature)
    first = watching.database
    task = world.watch(watching)
    world.content = content
    await wait_until_async(lambda: world.lines, reason="the warning")
    await world.looked_again()
    assert watching.database is first
    assert isinstance(first, FakeDatabase)
    assert not first.closed
    assert [(level, event) for level, event, _ in world.lines] == [
        ("warning", "keeping the country database in use")
    ]
    assert world.changes == 0
    world.content = "third"
    await wait_until_async(lambda: world.changes, reason="the good one to be taken")
    task.cancel()


async def test_the_embedded_database_is_watched_by_nobody() -> None:
    world = World()
    watching = GeoWatch(None, world.open, world.signature)
    log: Any = world
    await asyncio.wait_for(watching.watch(log, world.changed), 10)
    assert str(watching.database.description) == "embedded"
    assert world.looks == 0


def test_a_file_that_is_none_at_the_start_is_an_error() -> None:
    world = World("bad")
    with pytest.raises(GeoDatabaseError, match=r"countries\.mmdb is bad"):
        GeoWatch(PATH, world.open, world.signature)
