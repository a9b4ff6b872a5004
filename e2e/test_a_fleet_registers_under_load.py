"""A fleet registers itself and says again and again that it lives, while clients are served.

``./dev e2e e2e/test_a_fleet_registers_under_load.py --full -n0 -s`` measures what that costs them.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from e2e.processes import LocalPop, LocalProxy
from testkit.wait import wait_until

pytestmark = [
    pytest.mark.usefixtures("unmeasured"),
    pytest.mark.timeout(300),
    pytest.mark.blank(containers="measures the machine at hand, which hosts would only share"),
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk"),
]
_HEARTBEAT_S = 10.0
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class Fleet:
    """Backends that nobody is sent to, being far away; each registers once and beats from then on."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self.registered = self.beats = self.refused = 0

    async def run(self) -> None:
        connector = aiohttp.TCPConnector(limit=32)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            for number in range(self._size):
                group.create_task(self._live(session, f"fleet-{number}"))

    async def _live(self, session: aiohttp.ClientSession, name: str) -> None:
        body = {"id": name, "app": "fleet", "region": "ap", "country": "JP", "ip": "192.0.2.1", "port": 9}
        # Not in one step: others count while this one waits.
        is_registered = await self._post(session, "register", body)
        self.registered += is_registered
        while True:
            await asyncio.sleep(_HEARTBEAT_S * self._size / 1000)
            is_heard = await self._post(session, f"heartbeat/{name}", None)
            self.beats += is_heard

    async def _post(self, session: aiohttp.ClientSession, call: str, body: object) -> bool:
        async with session.post(f"{self._url}/api/v1/{call}", json=body) as answer:
            await answer.read()
        self.refused += not answer.ok
        return answer.ok


@contextmanager
def _living(fleet: Fleet) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    task = loop.create_task(fleet.run())

    def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _p99_s(proxy: LocalProxy, duration_s: int) -> float:
    """Load the proxy for so long; the 99th percentile of the latency. No request fails."""
    said = subprocess.run(
        [
            "wrk",
            "-t1",
            "-c16",
            f"-d{duration_s}s",
            "--latency",
            f"http://{proxy.host}:{proxy.port}/api/latency",
        ],
        capture_output=True,
        text=True,
        timeout=duration_s + 30,
        check=True,
    ).stdout
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    found = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert found is not None, said
    return float(found[1]) * _UNIT_S[found[2]]


@pytest.mark.feature("api.registration", "api.leases")
def test_clients_are_served_as_before_while_a_fleet_registers(local_pop: LocalPop, full: bool) -> None:
    size, duration_s = (1000, 15) if full else (50, 1)
    local_pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "FR"})
    address, _ = local_pop.listen()
    local_pop.configure(
        workers="1",
        api_enabled="true",
        api_listen_addr=address,
        api_rate_limit_per_sec="100000",
        api_rate_limit_burst="100000",
    )
    proxy = local_pop.start_proxy()
    before_s = _p99_s(proxy, duration_s)
    fleet = Fleet(f"http://{address}", size)
    with _living(fleet):
        during_s = _p99_s(proxy, duration_s)
        wait_until(lambda: fleet.registered == size, reason="all to be registered", timeout_s=60)
        wait_until(lambda: fleet.beats >= size // 10, reason="them to be heard again", timeout_s=60)
    assert fleet.refused == 0
    assert local_pop.edgeproxy("backends", "list").count("fleet-") >= size
    ratio = during_s / before_s
    print(f"p99 {before_s * 1e3:.1f} ms, with {size:,} backends {during_s * 1e3:.1f} ms: x {ratio:.2f}")
    if full:
        assert ratio <= 2
