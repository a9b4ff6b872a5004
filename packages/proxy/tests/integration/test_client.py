"""``edgeproxy.client`` against the served API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgeproxy import client
from edgeproxy.client import Registration, RegistrationError
from edgeproxy.core.controlplane.tokens import Scope
from packages.proxy.tests.integration.inbound.api_pop import Pop, served
from testkit.wait import wait_until_async

HEARTBEAT_S = 0.05


@pytest.fixture
async def pop(tmp_path: Path) -> AsyncIterator[Pop]:
    async with served(tmp_path) as pop:
        yield pop


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(client, "LONGEST_PAUSE_S", 0.1)


class Events(list[str]):
    """What a registration told."""

    async def wait(self, event: str, count: int = 1) -> None:
        await wait_until_async(
            lambda: sum(each.startswith(event) for each in self) >= count, reason=f"{event!r} {count} times"
        )


def registration(url: str, events: Events, token: str | None = None, **changes: Any) -> Registration:
    values: dict[str, Any] = {
        "id": "b1",
        "app": "web",
        "region": "eu",
        "ip": "10.0.0.7",
        "port": 9001,
        "heartbeat_s": HEARTBEAT_S,
        "on_event": events.append,
        **changes,
    }
    return Registration(url, token, **values)


def routed_to(pop: Pop) -> bool:
    return pop.feed.table.get("b1") is not None


async def test_backend_is_registered_for_as_long_as_the_block_runs(pop: Pop) -> None:
    events = Events()
    async with registration(pop.url, events, country="PT", weight=7, soft_limit=3, hard_limit=9):
        placed = pop.feed.table.get("b1")
        assert placed is not None
        assert (placed.backend.country, placed.backend.weight) == ("PT", 7)
        assert (placed.backend.soft_limit, placed.backend.hard_limit) == (3, 9)
    assert not routed_to(pop)
    assert events == ["registered", "deregistered"]


async def test_block_that_fails_deregisters_too(pop: Pop) -> None:
    with pytest.raises(ZeroDivisionError):
        async with registration(pop.url, Events()):
            raise ZeroDivisionError
    assert not routed_to(pop)


async def test_heartbeats_keep_it_registered(tmp_path: Path) -> None:
    events = Events()
    async with served(tmp_path, heartbeat_ttl_secs=1) as pop, registration(pop.url, events):
        end_s = asyncio.get_running_loop().time() + 2
        while asyncio.get_running_loop().time() < end_s:
            await asyncio.sleep(HEARTBEAT_S)
            placed = pop.feed.table.get("b1")
            assert placed is not None
            assert placed.backend.healthy
    assert events == ["registered", "deregistered"]


async def test_time_between_heartbeats_is_a_third_of_the_ttl_that_the_proxy_names(tmp_path: Path) -> None:
    async with served(tmp_path, heartbeat_ttl_secs=1.5) as pop:
        kept = registration(pop.url, Events(), heartbeat_s=None)
        async with kept:
            intervals = [kept._interval_s() for _ in range(100)]
            assert 0.45 <= min(intervals) < max(intervals) <= 0.5


async def test_token_is_shown(pop: Pop) -> None:
    token = pop.make_token(Scope.REGISTER, "web")
    async with registration(pop.url, Events(), token):
        assert routed_to(pop)


@pytest.mark.parametrize(
    ("changes", "why"), [({"region": "mars"}, "422 .*region"), ({"token": "wrong"}, "401 .*missing_token")]
)
async def test_refusal_is_an_error_that_says_why(pop: Pop, changes: dict[str, Any], why: str) -> None:
    if "token" in changes:
        pop.make_token(Scope.ADMIN)
    with pytest.raises(RegistrationError, match=why):
        async with registration(pop.url, Events(), **changes):
            pass


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1:1", "http://"])
async def test_wrong_url_is_an_error_that_names_it(url: str) -> None:
    with pytest.raises(RegistrationError, match="is no URL of an API"):
        async with registration(url, Events()):
            pass


async def test_url_without_the_api_is_an_error(pop: Pop) -> None:
    with pytest.raises(RegistrationError, match="has no registration API"):
        async with registration(f"{pop.url}/elsewhere/", Events()):
            pass


async def test_proxy_that_is_not_up_yet_is_waited_for(tmp_path: Path, port: int) -> None:
    events = Events()
    entering = asyncio.create_task(registration(f"http://127.0.0.1:{port}", events).__aenter__())
    await events.wait("not registered yet", 2)
    async with served(tmp_path, api_listen_addr=f"127.0.0.1:{port}") as pop:
        kept = await entering
        assert routed_to(pop)
        await kept.__aexit__()


async def test_restart_of_the_proxy_is_survived(tmp_path: Path, port: int) -> None:
    events = Events()
    address = f"127.0.0.1:{port}"
    async with served(tmp_path / "one", api_listen_addr=address):
        kept = await registration(f"http://{address}", events).__aenter__()
    await events.wait("no heartbeat")
    # The new one knows nothing of the old one's table.
    async with served(tmp_path / "two", api_listen_addr=address) as pop:
        await wait_until_async(lambda: routed_to(pop), reason="the backend to register again")
        await kept.__aexit__()
        assert not routed_to(pop)
    assert events[-1] == "deregistered"


async def test_backend_removed_by_the_operator_registers_again(pop: Pop) -> None:
    events = Events()
    async with registration(pop.url, events):
        await pop.ask("DELETE", "/api/v1/backends/b1")
        await events.wait("registered", 2)
        assert routed_to(pop)


async def test_token_that_is_revoked_is_told_and_tried_again(pop: Pop) -> None:
    events = Events()
    pop.make_token(Scope.ADMIN)
    token = pop.make_token(Scope.REGISTER, "web")
    async with registration(pop.url, events, token):
        (kept,) = [each for each in pop.tokens.all() if each.scope is Scope.REGISTER]
        pop.tokens.revoke(kept.id)
        await events.wait("refused: ", 2)
    assert events[-1].startswith("not deregistered: ")


async def test_end_of_a_proxy_that_is_gone_is_told(tmp_path: Path) -> None:
    events = Events()
    async with served(tmp_path) as pop:
        kept = await registration(pop.url, events, heartbeat_s=3600).__aenter__()
    await kept.__aexit__()
    assert events[-1].startswith("not deregistered: ")


# ---- proxies that behave oddly ---------------------------------------------------------------


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Callable[[web.Request], web.StreamResponse]], Any]]:
    """Serve a function as the answer to everything; returns the URL."""
    runners: list[web.AppRunner] = []

    async def start(answer: Callable[[web.Request], web.StreamResponse]) -> str:
        async def handle(request: web.Request) -> web.StreamResponse:
            return answer(request)

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_retry_after_is_heeded(serve: Any) -> None:
    times: list[float] = []

    def answer(_request: web.Request) -> web.StreamResponse:
        times.append(asyncio.get_running_loop().time())
        return web.Response(status=429 if len(times) == 1 else 201, headers={"Retry-After": "0.4"})

    async with registration(await serve(answer), Events(), heartbeat_s=3600):
        assert times[1] - times[0] >= 0.4


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_answers_that_may_pass_are_tried_again(serve: Any, status: int) -> None:
    asked: list[str] = []

    def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.method)
        return web.Response(status=status if len(asked) < 3 else 201, headers={"Retry-After": "soon"})

    async with registration(await serve(answer), Events(), heartbeat_s=3600):
        assert asked == ["POST"] * 3


async def test_ttl_that_makes_no_sense_is_ignored(serve: Any) -> None:
    url = await serve(lambda _request: web.Response(status=201, headers={"Heartbeat-TTL-Secs": "nan"}))
    kept = registration(url, Events(), heartbeat_s=None)
    async with kept:
        assert 18 <= kept._interval_s() <= 20


async def test_cancelling_while_registering_leaves_nothing_open(serve: Any) -> None:
    url = await serve(lambda _request: web.Response(status=503))
    entering = asyncio.create_task(registration(url, Events()).__aenter__())
    await asyncio.sleep(0)
    entering.cancel()
    with suppress(asyncio.CancelledError):
        await entering
    assert entering.cancelled()


async def test_id_is_quoted_in_paths(serve: Any) -> None:
    paths: list[str] = []

    def answer(request: web.Request) -> web.StreamResponse:
        paths.append(request.rel_url.raw_path)
        return web.Response(status=201)

    async with registration(await serve(answer), Events(), id="a/b", heartbeat_s=3600):
        pass
    assert paths == ["/api/v1/register", "/api/v1/backends/a%2Fb"]
