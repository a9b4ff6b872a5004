"""The status page of a running proxy: in a real browser, and byte by byte."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeproxy.config import Address
from edgeproxy.core.controlplane.overview import BackendState, BackendView, CountryView, Overview
from edgeproxy.inbound import status as status_module
from edgeproxy.inbound.metrics_port import MetricsPort
from edgeproxy.inbound.metrics_server import MetricsServer
from edgeproxy.inbound.status import StatusPage, status
from packages.proxy.tests.integration.proxies import Backend, Proxy, StartProxy, edit, greeting, row
from packages.testkit.tests.integration.browser import Page, open_browser
from testkit.wait import wait_until_async

STRANGE = "<b>bold</b>"


@pytest.fixture(scope="module")
def backend(start_backend: Callable[[str], Backend]) -> Backend:
    return start_backend("one")


@pytest.fixture(scope="module")
def proxy(start_shared_proxy: StartProxy, backend: Backend) -> Proxy:
    return start_shared_proxy(
        [row("one", backend.port, country="DE", hard_limit=4), row(STRANGE, 9, healthy=0)],
        metrics_enabled="true",
        metrics_listen_addr="127.0.0.1:0",
        replication_node_id="pop-test",
    )


@pytest.fixture(scope="module")
def url(proxy: Proxy) -> str:
    (line,) = proxy.wait_log("listening")
    return f"http://{line['metrics']}/"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_browser(tmp_path / "profile") as page:
        yield page
        assert page.complaints == []


def hold(proxy: Proxy, stack: ExitStack, source: str) -> socket.socket:
    client = stack.enter_context(proxy.connect(source))
    greeting(client)
    return client


# ---- in a browser --------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (1280, True)])
async def test_the_page_follows_the_pop(
    proxy: Proxy, url: str, page: Page, width: int, dark: bool, new_client: Callable[[], str], tmp_path: Path
) -> None:
    await page.open(url, width=width, height=900, dark=dark)
    await page.wait("document.querySelector('#link').textContent === 'live'")
    assert await page.value("document.title") == "pop-test · edgeproxy"
    with ExitStack() as held:
        for _ in range(2):
            await asyncio.to_thread(hold, proxy, held, new_client())
        await page.wait("document.querySelector('tr.ready .load').textContent === '2 / 4'")
        await page.wait("document.querySelector('#active').textContent === '2'")
        await page.wait("parseFloat(document.querySelector('#opened-rate').textContent) > 0")
        await page.wait("document.querySelector('#countries').textContent.startsWith('unknown2 open')")
    await page.wait("document.querySelector('#active').textContent === '0'")
    assert await page.value("document.documentElement.scrollWidth") == width
    (tmp_path / "status.png").write_bytes(await page.screenshot())  # for who wants to see it


async def test_what_an_operator_does_shows(proxy: Proxy, url: str, page: Page) -> None:
    await page.open(url, width=1280, height=900)
    await page.wait("document.querySelector('tr.ready') !== null")
    edit(proxy.db_path, "UPDATE backends SET healthy = 0 WHERE id = 'one'")
    try:
        await page.wait("document.querySelectorAll('tr.down').length === 2")
        assert await page.value("document.querySelector('#states').textContent") == "2 down"
    finally:
        edit(proxy.db_path, "UPDATE backends SET healthy = 1 WHERE id = 'one'")
    await page.wait("document.querySelector('tr.ready') !== null")


async def test_ids_are_text_and_never_markup(url: str, page: Page) -> None:
    await page.open(url, width=1280, height=900)
    name = await page.wait("document.querySelector('tr.down td.name')?.firstChild.textContent")
    assert name == STRANGE
    assert await page.value("document.querySelectorAll('td.name b').length") == 0


async def test_a_proxy_that_goes_and_comes_back_is_told(page: Page) -> None:
    server, address = await serve(overview)
    await page.open(f"http://{address}/", width=1280, height=900)
    await page.wait("document.querySelector('#link').dataset.state === 'live'")
    await server.stop()
    await page.wait("document.querySelector('#link').dataset.state === 'lost'")
    page.complaints.clear()  # the browser logs that it could not connect
    server, _ = await serve(overview, int(address.rpartition(":")[2]))
    await page.wait("document.querySelector('#link').dataset.state === 'live'")
    await server.stop()
    page.complaints.clear()


# ---- what is served ------------------------------------------------------------------------------


def fetch(url: str) -> Any:
    return urllib.request.urlopen(url, timeout=10)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("", "text/html"), ("status.css", "text/css"), ("status.js", "text/javascript")],
)
def test_nothing_is_loaded_from_elsewhere(url: str, path: str, content_type: str) -> None:
    with fetch(url + path) as answer:
        assert answer.headers.get_content_type() == content_type
        policy = answer.headers["Content-Security-Policy"]
        text = answer.read().decode()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")


@pytest.mark.feature("metrics.status_page")
def test_metrics_are_beside_it(url: str) -> None:
    with fetch(url + "metrics") as answer:
        assert answer.read().startswith(b"# HELP")


def overview(count: int = 1) -> Overview:
    values: dict[str, Any] = {
        "version": "1",
        "node": "n",
        "region": "eu",
        "started_at_s": 0.0,
        "uptime_s": 1.0,
        "workers": 1,
        "worker_restarts": 0,
        "table_version": 1,
        "table_age_s": 0.0,
        "bad_rows": 0,
        "clients": 0,
        "closes": {"no_backend": 2},
        "backends": [
            BackendView(f"b{number}", BackendState.READY, connections=number) for number in range(count)
        ],
        "countries": [CountryView(str(number)) for number in range(40)],
        "dns": None,
    }
    return Overview(**values)


async def serve(look: Callable[[], Overview], port_number: int = 0) -> tuple[MetricsServer, str]:
    port = MetricsPort(Address("127.0.0.1", port_number), is_default=False)
    server = MetricsServer(port, StatusPage(look, interval_s=0.05).routes())
    await server.start()
    return server, port.address


def test_backends_and_countries_are_bounded_to_those_with_most_connections() -> None:
    shown = status(overview(500))
    assert len(shown["backends"]) == status_module.MAX_BACKENDS
    assert {view["connections"] for view in shown["backends"]} == set(range(300, 500))
    assert shown["backends_total"] == 500
    assert len(shown["countries"]) == status_module.MAX_COUNTRIES
    assert (shown["refused"], shown["states"]) == (2, {BackendState.READY: 500})


async def test_viewers_are_bounded_and_their_places_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "MAX_VIEWERS", 2)
    server, address = await serve(overview)
    events = f"http://{address}/status/events"
    async with aiohttp.ClientSession() as session:
        viewers = [await session.get(events) for _ in range(2)]
        for viewer in viewers:
            assert viewer.content_type == "text/event-stream"
            assert json.loads((await viewer.content.readline()).removeprefix(b"data: "))["node"] == "n"
        async with session.get(events) as refused:
            assert refused.status == 503
        viewers[0].close()

        async def is_let_in() -> bool:
            async with session.get(events) as another:
                return another.status == 200

        await wait_until_async(is_let_in, reason="the place to be given back")
        viewers[1].close()
    await server.stop()


@pytest.mark.feature("metrics.status_page")
async def test_one_look_serves_all_viewers() -> None:
    looks = []

    def look() -> Overview:
        looks.append(True)
        return overview()

    port = MetricsPort(Address("127.0.0.1", 0), is_default=False)
    server = MetricsServer(port, StatusPage(look, interval_s=3_600).routes())
    await server.start()
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.get(f"http://{port.address}/status/events") as viewer:
                await viewer.content.readline()
    assert len(looks) == 1
    await server.stop()
