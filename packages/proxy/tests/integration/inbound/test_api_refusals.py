"""What the API refuses, and how it says so."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.inbound import api_registrar, api_routes
from edgeproxy.outbound import sqlite_file
from edgeproxy.outbound.store_sqlite import SqliteStore
from packages.proxy.tests.integration.inbound.api_pop import BACKEND, Answer, Pop, served
from testkit.wait import wait_until_async


@pytest.fixture
async def pop(tmp_path: Path) -> AsyncIterator[Pop]:
    async with served(tmp_path) as pop:
        yield pop


async def post(pop: Pop, body: bytes, content_type: str = "application/json") -> Answer:
    return await pop.ask("POST", "/api/v1/register", data=body, headers={"Content-Type": content_type})


# ---- bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": ".."}, "id"),
        ({"id": "b\n"}, "id"),
        ({"id": 7}, "id"),
        ({"id": "x" * 254}, "id"),
        ({"app": ""}, "app"),
        ({"app": "a b"}, "app"),
        ({"region": "mars"}, "region"),
        ({"region": None}, "region"),
        ({"country": "XX"}, "country"),
        ({"country": 49}, "country"),
        ({"ip": "10.0.0.256"}, "ip"),
        ({"ip": ""}, "ip"),
        ({"ip": "a b"}, "ip"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"port": "9001"}, "port"),
        ({"port": True}, "port"),
        ({"port": 80.5}, "port"),
        ({"weight": 256}, "weight"),
        ({"weight": -1}, "weight"),
        ({"soft_limit": -1}, "soft_limit"),
        ({"hard_limit": 2**63}, "hard_limit"),
        ({"healthy": True}, "healthy"),
        ({"wg_ip": "10.0.0.1"}, "wg_ip"),
    ],
)
async def test_wrong_value_is_refused_with_its_field(
    pop: Pop, changes: Mapping[str, object], field: str
) -> None:
    answer = await pop.ask("POST", "/api/v1/register", {**BACKEND, **changes})
    assert (answer.status, answer.body["code"], answer.body["field"]) == (422, "invalid", field)
    assert answer.body["error"]
    assert pop.feed.table.snapshot() == ()


@pytest.mark.parametrize("field", ["id", "app", "region", "ip", "port"])
async def test_missing_value_is_refused_with_its_field(pop: Pop, field: str) -> None:
    answer = await pop.ask(
        "POST", "/api/v1/register", {name: value for name, value in BACKEND.items() if name != field}
    )
    assert (answer.status, answer.body["code"], answer.body["field"]) == (422, "invalid", field)


async def test_json_that_is_no_object_is_refused_without_a_field(pop: Pop) -> None:
    answer = await post(pop, b"[]")
    assert answer.status == 422
    assert answer.body == {"code": "invalid", "error": "Expected `object`, got `array`"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"id": "\xff"}', b"NaN", b'{"id": "\\ud800"}', b"\x00", b"{}{}", b"[" * 60_000]
)
async def test_what_is_no_json_is_refused(pop: Pop, body: bytes) -> None:
    answer = await post(pop, body)
    assert (answer.status, answer.body["code"]) == (400, "malformed_json")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_other_types_than_json_are_refused(pop: Pop, content_type: str) -> None:
    answer = await post(pop, b"{}", content_type)
    assert (answer.status, answer.body["code"]) == (415, "not_json")


@pytest.mark.feature("api.bounded")
async def test_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, api_max_body_bytes=1024) as pop:
        answer = await post(pop, b" " * 1025)
        assert (answer.status, answer.body["code"]) == (413, "body_too_large")
        assert (await post(pop, b" " * 1024)).status == 400


async def test_body_of_unknown_length_over_the_limit_is_refused(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    async with served(tmp_path, api_max_body_bytes=1024) as pop:
        answer = await pop.ask(
            "POST", "/api/v1/register", data=endless(), headers={"Content-Type": "application/json"}
        )
        assert (answer.status, answer.body["code"]) == (413, "body_too_large")


async def test_body_that_does_not_come_is_given_up(pop: Pop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_routes, "BODY_TIMEOUT_S", 0.05)
    host, port = pop.port.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/v1/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 9\r\n\r\n{"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()


# ---- calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/register", {"POST"}),
        ("POST", "/api/v1/backends", {"GET", "HEAD"}),
        ("PUT", "/api/v1/backends/b1", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("OPTIONS", "/health", {"GET", "HEAD"}),
        ("TRACE", "/ready", {"GET", "HEAD"}),
        ("DELETE", "/openapi.json", {"GET", "HEAD"}),
    ],
)
async def test_wrong_method_is_refused_with_the_right_ones(
    pop: Pop, method: str, path: str, allowed: set[str]
) -> None:
    answer = await pop.ask(method, path)
    assert (answer.status, answer.body["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(",")) == allowed


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1/backends/", "/api/v1/backends/a/b", "/%ff", "/health/"]
)
async def test_unknown_path_is_refused_in_json(pop: Pop, path: str) -> None:
    answer = await pop.ask("GET", path)
    assert (answer.status, answer.body["code"]) == (404, "no_such_route")


@pytest.mark.parametrize("backend_id", ["%ff", "%00", "%ED%A0%80", "a%2Fb", "%20", "é", "x" * 5000])
async def test_any_id_in_a_path_is_just_unknown(pop: Pop, backend_id: str) -> None:
    for method, path in (
        ("GET", "/api/v1/backends/"),
        ("DELETE", "/api/v1/backends/"),
        ("POST", "/api/v1/heartbeat/"),
    ):
        answer = await pop.ask(method, f"{path}{backend_id}")
        assert (answer.status, answer.body["code"]) == (404, "unknown_backend")


async def test_expectation_that_is_not_met_is_refused(pop: Pop) -> None:
    answer = await pop.ask("GET", "/health", headers={"Expect": "the-unexpected"})
    assert (answer.status, answer.body["code"]) == (417, "expectation_failed")


async def test_client_may_wait_to_be_told_to_go_on(pop: Pop) -> None:
    answer = await pop.ask("POST", "/api/v1/register", dict(BACKEND), expect100=True)
    assert answer.status == 201


async def test_what_is_no_http_is_refused_and_not_logged(pop: Pop, capfd: pytest.CaptureFixture[str]) -> None:
    host, port = pop.port.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /health HTTP/1.1\r\nHost: \0\r\n\r\n")
    assert b" 400 Bad Request" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert pop.log.lines == []
    assert capfd.readouterr().err == ""


# ---- floods ----------------------------------------------------------------------------------


@pytest.mark.feature("api.bounded")
async def test_flood_is_refused_with_the_time_to_wait(tmp_path: Path) -> None:
    async with served(tmp_path, api_rate_limit_per_sec=1, api_rate_limit_burst=3) as pop:
        assert [(await pop.ask("GET", "/nowhere")).status for _ in range(3)] == [404, 404, 404]
        answer = await pop.ask("GET", "/health")
        assert (answer.status, answer.body["code"]) == (429, "too_many_requests")
        assert answer.headers["Retry-After"] == "1"


async def test_another_client_is_not_refused_with_it(tmp_path: Path) -> None:
    async with served(tmp_path, api_rate_limit_per_sec=1, api_rate_limit_burst=1) as pop:
        await pop.ask("GET", "/health")
        assert (await pop.ask("GET", "/health")).status == 429
        host, port = pop.port.address.split(":")
        with socket.create_connection((host, int(port)), 10, ("127.0.0.2", 0)) as other:
            other.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert (await asyncio.to_thread(other.recv, 12)) == b"HTTP/1.0 200"


# ---- the store -------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.05)


async def test_locked_store_is_said_to_be_unavailable(pop: Pop, impatient: None) -> None:
    await pop.register()
    with closing(sqlite3.connect(pop.config.db_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for answer in (
            await pop.register("b2"),
            await pop.ask("DELETE", "/api/v1/backends/b1"),
            await pop.ask("PATCH", "/api/v1/backends/b1", {"weight": 1}),
        ):
            assert (answer.status, answer.body["code"]) == (503, "store_unavailable")
            assert str(pop.config.db_path) not in answer.body["error"]
        assert (await pop.ask("POST", "/api/v1/heartbeat/b1")).status == 200
    assert any("is locked by another program" in str(fields) for _, fields in pop.log.lines)
    assert (await pop.register("b2")).status == 201


async def test_heartbeats_survive_a_store_that_is_locked_for_a_while(pop: Pop, impatient: None) -> None:
    await pop.register()
    with closing(sqlite3.connect(pop.config.db_path, isolation_level=None)) as other:
        other.execute("UPDATE edgeproxy_leases SET heartbeat_at = 0")
        other.execute("BEGIN IMMEDIATE")
        await pop.ask("POST", "/api/v1/heartbeat/b1")
        told = "registrations cannot be stored, trying again"
        await wait_until_async(lambda: told in pop.log.events(), reason="the log to tell")
        other.execute("ROLLBACK")
        await wait_until_async(
            lambda: other.execute("SELECT heartbeat_at > 0 FROM edgeproxy_leases").fetchone() == (1,),
            reason="the heartbeat to be stored",
        )
    assert pop.log.events().count(told) == 1


async def test_read_only_database_is_served_and_takes_no_registration(
    tmp_path: Path, read_only_copy: Callable[[Path], Path]
) -> None:
    SqliteStore.create(tmp_path / "routing.db")
    place = read_only_copy(tmp_path / "routing.db")
    async with served(place.parent, api_tokens_dir=tmp_path / "tokens") as pop:
        answer = await pop.register()
        assert (answer.status, answer.body["code"]) == (503, "store_unavailable")
        assert any("is read-only for this process" in str(fields) for _, fields in pop.log.lines)
        assert (await pop.ask("GET", "/api/v1/backends")).status == 200


async def test_store_that_cannot_be_read_at_the_start_is_read_later(tmp_path: Path, impatient: None) -> None:
    async with served(tmp_path) as pop:
        await pop.register()
    with closing(sqlite3.connect(pop.config.db_path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    async with served(tmp_path) as restarted:
        restarted.server._registrar._book.replace([], 0.0)
        restarted.server._registrar._table_version = -1
        with closing(sqlite3.connect(pop.config.db_path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await restarted.server._registrar.load()
            assert (await restarted.ask("GET", "/api/v1/backends")).body["total"] == 0
        await wait_until_async(lambda: len(restarted.server._registrar) == 1, reason="the lease to be read")


async def test_row_that_the_files_owner_forbids_is_refused_with_their_words(pop: Pop) -> None:
    with closing(sqlite3.connect(pop.config.db_path)) as database:
        database.execute(
            "CREATE TRIGGER rule BEFORE INSERT ON backends WHEN NEW.port < 1024"
            " BEGIN SELECT RAISE(ABORT, 'ports below 1024 are not ours'); END"
        )
    answer = await pop.register(port=80)
    assert (answer.status, answer.body["code"]) == (409, "not_writable")
    assert answer.body["error"] == "ports below 1024 are not ours"


async def test_lease_that_the_file_refuses_to_change_is_told_and_tried_again(tmp_path: Path) -> None:
    async with served(tmp_path, heartbeat_ttl_secs=0.2) as pop:
        with closing(sqlite3.connect(pop.config.db_path)) as database:
            database.execute(
                "CREATE TRIGGER rule BEFORE UPDATE OF healthy ON backends"
                " BEGIN SELECT RAISE(ABORT, 'hands off'); END"
            )
        await pop.register()
        told = "the store refuses a change of a lease"
        await wait_until_async(lambda: pop.log.events().count(told) >= 2, reason="the log to tell twice")


# ---- the end of the process, and its faults --------------------------------------------------


async def test_nothing_is_changed_while_the_proxy_ends(tmp_path: Path) -> None:
    async with served(tmp_path) as pop:
        await pop.register()
        pop.server._registrar._stopped = True
        answer = await pop.register("b2")
        assert (answer.status, answer.body["code"]) == (503, "draining")
        assert (await pop.ask("POST", "/api/v1/heartbeat/b1")).status == 200
        assert (await pop.ask("GET", "/api/v1/backends")).body["total"] == 1


async def test_requests_that_wait_when_the_proxy_ends_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    try:
        async with served(tmp_path) as pop:
            registrar = pop.server._registrar
            monkeypatch.setattr(registrar._store, "apply", lambda _operations: go_on.wait(30))
            asking = []
            for queue, name in (("_deciding", "being-written"), ("_waiting", "still-waiting")):
                asking.append(asyncio.create_task(pop.register(name)))
                await wait_until_async(partial(getattr, registrar, queue), reason=f"{name} to wait")
        for answer in await asyncio.gather(*asking):
            assert (answer.status, answer.body["code"]) == (503, "draining")
    finally:
        go_on.set()


@pytest.mark.parametrize("locked", [False, True])
async def test_request_that_is_given_up_takes_nothing_from_others_of_its_batch(
    pop: Pop, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    registrar = pop.server._registrar
    apply, go_on = registrar._store.apply, threading.Event()

    def wait_and_apply(operations: Sequence[Any]) -> Any:
        assert go_on.wait(30)
        if locked:
            raise StoreError("is locked")
        return apply(operations)

    monkeypatch.setattr(registrar._store, "apply", wait_and_apply)
    values = {"app": "web", "region": "eu", "country": None, "wg_ip": "10.0.0.7", "port": 1}
    given_up, other = (asyncio.create_task(registrar.register(name, values, None)) for name in ("b1", "b2"))
    await wait_until_async(lambda: len(registrar._deciding) == 2, reason="both to be written")
    given_up.cancel()
    await asyncio.wait([given_up])
    go_on.set()
    if locked:
        with pytest.raises(StoreError):
            await other
    else:
        await other
        assert {backend.id for backend in registrar.backends()} == {"b1", "b2"}


async def test_fault_of_ours_is_told_to_the_log_and_not_to_the_caller(
    pop: Pop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(api_registrar.Registrar, "backends", fail)
    answer = await pop.ask("GET", "/api/v1/backends")
    assert (answer.status, answer.body["code"]) == (500, "internal")
    assert "secret" not in str(answer.body)
    ((event, fields),) = [line for line in pop.log.lines if "exc_info" in line[1]]
    assert (event, fields["path"]) == ("an API request failed", "/api/v1/backends")
    assert "the secret of the house" in repr(fields["exc_info"])
