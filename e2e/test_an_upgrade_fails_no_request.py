"""`edgeproxy upgrade` replaces the running proxy while clients come, stay and go."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.clients import Client
from e2e.processes import Pop, Proxy
from testkit.wait import wait_until

_CLIENT = Client.of("DE")


def test_a_client_goes_on_and_later_ones_are_served_by_the_new_version(pop: Pop) -> None:
    pop.start_backends(("mock-eu-1", "eu", "DE"))
    proxy = pop.start_proxy()
    with _CLIENT.connect(proxy) as connection:
        assert connection.ask() == "mock-eu-1"
        _upgrade(pop)
        with _CLIENT.connect(proxy) as later:
            assert later.ask() == "mock-eu-1"
            assert pop.open_connections() == {"mock-eu-1": 2}
        assert proxy.process.running
        assert connection.ask() == "mock-eu-1"
    assert proxy.process.wait_exit() == 0
    _stop_last(proxy)


@pytest.mark.feature("process.upgrade")
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_load_does_not_notice_two_upgrades(pop: Pop) -> None:
    pop.start_backends(("mock-eu-1", "eu", "DE"), ("mock-eu-2", "eu", "DE"))
    proxy = pop.start_proxy()
    url = f"http://{proxy.host}:{proxy.port}/api/latency"
    load = subprocess.Popen(
        ["wrk", "-t1", "-c8", "-d4", "-H", "Connection: close", url], stdout=subprocess.PIPE, text=True
    )
    for _ in range(2):
        _upgrade(pop)
    told, _ = load.communicate(timeout=60)
    assert "requests in" in told
    assert "Socket errors" not in told, told
    assert "Non-2xx" not in told, told
    _stop_last(proxy)


def _upgrade(pop: Pop) -> None:
    assert "serves; process" in pop.edgeproxy("upgrade")


def _stop_last(proxy: Proxy) -> None:
    """Stop the last of the proxies, which is not the process that was started."""
    last = proxy.events("upgraded")[-1]["successor"]
    os.kill(last, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{last}/fd/0").exists(), reason="the successor to end")
    wait_until(lambda: proxy.process.group() == [], reason="all processes to be gone")
