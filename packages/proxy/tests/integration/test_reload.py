"""Settings that change while the proxy runs, in both kinds of processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.errors import EdgeproxyError
from packages.proxy.tests.integration.proxies import Backend, Proxy, StartProxy, greeting, row
from testkit.wait import wait_until

Start = Callable[..., Proxy]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "edgeproxy.toml"
    path.write_text('access_log = "off"')
    return path


@pytest.fixture
def proxy(start_proxy: StartProxy, start_backend: Callable[[str], Backend], config_file: Path) -> Proxy:
    return start_proxy([row("one", start_backend("one").port)], config=config_file, workers=2)


def sessions_are_logged(proxy: Proxy) -> bool:
    before = len(proxy.log("session"))
    proxy.backend_of("127.0.0.1")
    closes = sum(proxy.stats()["closes"].values())
    wait_until(lambda: sum(proxy.stats()["closes"].values()) >= closes, reason="a report")
    return len(proxy.log("session")) > before


def test_workers_that_run_and_their_successors_log_as_the_new_file_says(
    proxy: Proxy, config_file: Path
) -> None:
    assert proxy.backend_of("127.0.0.1") == "one"
    config_file.write_text('access_log = "all"')
    assert proxy.ask("reload")["changed"] == {"access_log": ["off", "all"]}
    wait_until(lambda: sessions_are_logged(proxy), reason="sessions to be logged")
    (before,) = proxy.wait_log("settings changed")
    assert before["changed"] == {"access_log": ["off", "all"]}
    (event,) = [
        each for each in proxy.ask("events", topic="config")["events"] if each["name"] == "settings changed"
    ]
    assert event["fields"] == {"changed": {"access_log": ["off", "all"]}}
    workers = proxy.stats()["workers"]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: len(now := proxy.stats()["workers"]) == 2 and not set(now) & set(workers),
        reason="successors",
    )
    count = len(proxy.log("session"))
    wait_until(lambda: proxy.backend_of("127.0.0.1") == "one", reason="a successor to serve")
    wait_until(lambda: len(proxy.log("session")) > count, reason="its session to be logged")


def test_a_hangup_reads_the_file_and_the_log_follows_its_level(proxy: Proxy, config_file: Path) -> None:
    config_file.write_text('log_level = "error"')
    os.kill(proxy.process.pid, signal.SIGHUP)
    wait_until(lambda: proxy.ask("reload") == {"changed": {}, "needs_restart": {}}, reason="the hang-up")
    lines = len(proxy.log())
    assert proxy.ask("reload") == {"changed": {}, "needs_restart": {}}
    assert len(proxy.log()) == lines
    config_file.write_text("")
    os.kill(proxy.process.pid, signal.SIGHUP)
    proxy.wait_log("settings changed")


@pytest.mark.feature("administration.reload")
def test_a_bad_file_is_refused_and_nothing_changes(proxy: Proxy, config_file: Path) -> None:
    config_file.write_text('access_log = "everything"')
    with pytest.raises(EdgeproxyError, match="access_log"):
        proxy.ask("reload")
    os.kill(proxy.process.pid, signal.SIGHUP)
    proxy.wait_log("keeping the settings in force", count=2)
    assert proxy.backend_of("127.0.0.1") == "one"


def test_a_shorter_time_to_drain_holds_for_workers_that_run(proxy: Proxy, config_file: Path) -> None:
    with proxy.connect() as client:
        greeting(client)
        config_file.write_text("shutdown_timeout_secs = 0.1")
        proxy.ask("reload")
        began_s = time.monotonic()
        proxy.process.terminate()
        proxy.process.wait_exit()
    assert time.monotonic() - began_s < 20  # of the 30 before
    (line,) = proxy.log("stopped")
    assert line["sessions_reset"] == 1


def test_the_file_is_followed_when_watching_is_on(start_proxy: StartProxy, config_file: Path) -> None:
    settings: dict[str, Any] = {"config_watch_enabled": "true", "config_watch_interval_secs": "0.05"}
    proxy = start_proxy([row("one", 9)], config=config_file, **settings)
    config_file.write_text('access_log = "sampled"\nworkers = 3')
    (line,) = proxy.wait_log("settings changed")
    assert line["changed"] == {"access_log": ["off", "sampled"]}
    assert proxy.backend_of("127.0.0.1") == ""
