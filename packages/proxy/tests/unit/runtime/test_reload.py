"""What a changed configuration file changes, and what it does not: the settings, read again."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config import Config, load
from edgeproxy.errors import ConfigError
from edgeproxy.runtime.reload import LIVE, Reloader
from testkit.wait import wait_until_async

INTERVAL_S = 0.005


class Lines:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = info

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


class Proxy:
    """The part of a proxy that settings matter to."""

    def __init__(self, path: Path, environ: Mapping[str, str], flags: Mapping[str, str]) -> None:
        self.path = path
        self.log = Lines()
        self.applied: list[Config] = []
        self.loads = 0
        self._sources = (environ, flags, path)
        self.reloader = Reloader(load(*self._sources), self._load, self.applied.append)

    def _load(self) -> Config:
        self.loads += 1
        return load(*self._sources)

    def reload(self) -> dict[str, Any]:
        return self.reloader.reload(self.log)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.reloader.watch(self.path, lambda: INTERVAL_S, self.log))
        await asyncio.sleep(0)  # it has seen the file now
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def told(self, event: str, count: int = 1) -> None:
        await wait_until_async(
            lambda: self.log.events.count(event) >= count, reason=event, interval_s=INTERVAL_S
        )


Make = Callable[..., Proxy]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(text: str = "", flags: Mapping[str, str] | None = None, **environ: str) -> Proxy:
        path = tmp_path / "edgeproxy.toml"
        path.write_text(text)
        return Proxy(path, environ, flags or {})

    return made


# ---- reading again -------------------------------------------------------------------------------


def test_a_new_watcher_keeps_the_settings_of_the_start(make: Make) -> None:
    proxy = make("access_log_sample = 7")
    assert proxy.reloader.config.access_log_sample == 7
    assert (proxy.loads, proxy.applied, proxy.log.lines) == (0, [], [])


def test_a_changed_value_is_in_force_and_told_with_what_it_was(make: Make) -> None:
    proxy = make('log_level = "info"')
    proxy.path.write_text('log_level = "debug"\naccess_log = "all"')
    assert proxy.reload() == {
        "changed": {"log_level": ["info", "debug"], "access_log": ["off", "all"]},
        "needs_restart": {},
    }
    assert proxy.applied == [proxy.reloader.config]
    assert (proxy.reloader.config.log_level, proxy.reloader.config.access_log) == ("debug", "all")
    assert proxy.reloader.config.sources["log_level"] == str(proxy.path)
    assert proxy.log.events == ["settings changed"]


def test_a_value_that_is_the_same_is_no_change(make: Make) -> None:
    proxy = make("shutdown_timeout_secs = 5")
    proxy.path.write_text("# five seconds\nshutdown_timeout_secs = 5.0")
    assert proxy.reload() == {"changed": {}, "needs_restart": {}}
    assert (proxy.applied, proxy.log.events) == ([], ["settings are unchanged"])


def test_a_value_that_is_gone_is_its_default_again(make: Make) -> None:
    proxy = make("pool_connect_timeout_secs = 1")
    proxy.path.write_text("")
    assert proxy.reload()["changed"] == {"pool_connect_timeout_secs": ["1", "5"]}
    assert proxy.reloader.config.pool_connect_timeout_secs == 5.0


def test_environment_and_flags_still_win(make: Make) -> None:
    proxy = make("", {"access_log": "off"}, EDGEPROXY_LOG_LEVEL="error")
    proxy.path.write_text('log_level = "debug"\naccess_log = "all"')
    assert proxy.reload() == {"changed": {}, "needs_restart": {}}


def test_what_needs_a_restart_is_named_each_time_and_left_as_it_is(make: Make) -> None:
    proxy = make()
    proxy.path.write_text('workers = 7\nlog_level = "error"\n[countries]\nMX = "sa"')
    before = proxy.reloader.config.workers
    assert proxy.reload() == {
        "changed": {"log_level": ["info", "error"]},
        "needs_restart": {"workers": [str(before), "7"], "geography": []},
    }
    assert (proxy.reloader.config.workers, proxy.reloader.config.log_level) == (before, "error")
    assert list(proxy.reload()["needs_restart"]) == ["workers", "geography"]
    assert proxy.log.events.count("settings that need a restart are left as they are") == 2
    assert len(proxy.applied) == 1


def test_a_secret_is_not_told(make: Make) -> None:
    proxy = make()
    proxy.path.write_text('postgres_url = "postgresql://me:hidden@localhost/db"')
    assert proxy.reload()["needs_restart"] == {"postgres_url": ["***", "***"]}
    assert "hidden" not in str(proxy.log.lines)


@pytest.mark.feature("administration.reload")
@pytest.mark.parametrize("text", ["log_level = ", 'log_level = "loud"\naccess_log = "all"', "nonsense = 1"])
def test_a_bad_file_changes_nothing_and_says_why(make: Make, text: str) -> None:
    proxy = make('log_level = "info"')
    before = proxy.reloader.config
    proxy.path.write_text(text)
    with pytest.raises(ConfigError) as told:
        proxy.reload()
    assert (proxy.reloader.config, proxy.applied) == (before, [])
    assert proxy.log.lines == [("keeping the settings in force", {"problems": list(told.value.problems)})]


def test_settings_that_change_while_running_exist() -> None:
    assert {each.name for each in dataclasses.fields(Config)} >= LIVE


# ---- watching ------------------------------------------------------------------------------------


async def test_a_modified_file_is_seen(make: Make) -> None:
    proxy = make()
    async with proxy.watching():
        proxy.path.write_text('log_level = "debug"')
        await proxy.told("settings changed")
        proxy.path.write_text('log_level = "error"')
        await proxy.told("settings changed", 2)
    assert proxy.reloader.config.log_level == "error"


async def test_what_changed_between_the_start_and_the_watch_is_seen(make: Make) -> None:
    proxy = make()
    proxy.path.write_text('log_level = "debug"')
    async with proxy.watching():
        await proxy.told("settings changed")
    assert proxy.loads == 1


async def test_a_file_that_went_bad_before_the_watch_is_told(make: Make) -> None:
    proxy = make()
    proxy.path.write_text("nonsense = 1")
    async with proxy.watching():
        await proxy.told("keeping the settings in force")


async def test_an_older_file_moved_in_place_is_seen(make: Make, tmp_path: Path) -> None:
    proxy = make()
    older = tmp_path / "older.toml"
    older.write_text('log_level = "debug"')
    os.utime(older, (1, 1))
    async with proxy.watching():
        older.replace(proxy.path)
        await proxy.told("settings changed")


async def test_a_file_that_is_saved_as_it_was_is_no_event(make: Make) -> None:
    proxy = make('log_level = "info"')
    async with proxy.watching():
        proxy.path.write_text('log_level = "info"')
        os.utime(proxy.path)
        proxy.path.with_suffix(".new").write_text('log_level = "info"')
        proxy.path.with_suffix(".new").replace(proxy.path)
        looks = asyncio.get_running_loop().time() + 10 * INTERVAL_S
        await wait_until_async(
            lambda: asyncio.get_running_loop().time() > looks, reason="some looks", interval_s=INTERVAL_S
        )
    assert (proxy.loads, proxy.log.lines) == (1, [])  # once when watching began


async def test_a_file_that_goes_is_told_once_and_seen_when_it_is_back(make: Make) -> None:
    proxy = make('log_level = "info"')
    async with proxy.watching():
        proxy.path.unlink()
        await proxy.told("the configuration file is gone, keeping the settings in force")
        assert proxy.loads == 1  # when watching began
        proxy.path.write_text('log_level = "debug"')
        await proxy.told("settings changed")
    assert len(proxy.log.lines) == 2


async def test_watching_goes_on_after_a_bad_file(make: Make) -> None:
    proxy = make()
    async with proxy.watching():
        proxy.path.write_text("nonsense = 1")
        await proxy.told("keeping the settings in force")
        proxy.path.write_text('log_level = "debug"')
        await proxy.told("settings changed")
    assert proxy.log.events == ["keeping the settings in force", "settings changed"]


async def test_a_file_that_is_watched_no_more_is_not_read(make: Make) -> None:
    proxy = make()
    async with proxy.watching():
        pass
    proxy.path.write_text('log_level = "debug"')
    await asyncio.sleep(0)
    assert (proxy.loads, proxy.log.lines) == (1, [])  # once when watching began
