"""A proxy that is asked to have the kernel relay: what its operator sees."""

from __future__ import annotations

import urllib.request

import pytest

from packages.proxy.tests.integration.proxies import StartBackend, StartProxy, row
from packages.proxy.tests.integration.worker.workers import kernel_refusal
from testkit.wait import wait_until

pytestmark = pytest.mark.feature("relay.kernel")


def series(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_metrics_and_stats_tell_what_the_kernel_relays_and_one_line_if_it_does_not(
    start_proxy: StartProxy, start_backend: StartBackend
) -> None:
    backend = start_backend("one")
    proxy = start_proxy(
        [row("one", backend.port)],
        workers=2,
        relay="auto",
        relay_kernel_allowed=True,
        metrics_enabled=True,
        metrics_listen_addr="127.0.0.1:0",
    )
    (listening,) = proxy.wait_log("listening")
    url = f"http://{listening['metrics']}/metrics"
    workers = 0 if kernel_refusal() else 2
    wait_until(lambda: series(url)["edgeproxy_kernel_relay_workers"] == workers, reason="what workers found")
    told = [each for each in proxy.log() if each["event"].startswith("the kernel relays no connections")]
    assert len(told) == (workers == 0), told
    assert proxy.stats()["kernel_relay"] == {"workers": workers, "connections": 0, "promotions": 0}
    assert series(url)["edgeproxy_kernel_relay_connections"] == 0
    assert series(url)["edgeproxy_kernel_relay_promotions_total"] == 0
