"""The calls of the API, served on a real socket over a real file."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from packages.proxy.tests.integration.inbound.api_pop import BACKEND, Pop, served
from testkit.wait import wait_until_async

SHORT_TTL_S = 0.4


@pytest.fixture
async def pop(tmp_path: Path) -> AsyncIterator[Pop]:
    async with served(tmp_path) as pop:
        yield pop


@pytest.fixture
async def short(tmp_path: Path) -> AsyncIterator[Pop]:
    """A POP on which leases run out quickly."""
    async with served(tmp_path, heartbeat_ttl_secs=SHORT_TTL_S) as pop:
        yield pop


def sql(pop: Pop, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(pop.config.db_path, timeout=10)) as connection:
        rows = connection.execute(statement).fetchall()
        connection.commit()
        return rows


def healthy_and_deleted(pop: Pop, backend_id: str = "b1") -> tuple[int, int]:
    ((healthy, deleted),) = sql(pop, f"SELECT healthy, deleted FROM backends WHERE id = '{backend_id}'")
    return healthy, deleted


def routed_to(pop: Pop, backend_id: str = "b1") -> bool:
    placed = pop.feed.table.get(backend_id)
    return placed is not None and placed.backend.healthy


async def backend_healthy(pop: Pop) -> object:
    return (await pop.ask("GET", "/api/v1/backends/b1")).body.get("healthy")


# ---- the shapes of the original --------------------------------------------------------------


@pytest.mark.feature("api.registration")
async def test_register_answers_as_the_original(pop: Pop) -> None:
    answer = await pop.register()
    assert answer.status == 201
    assert answer.body == {"id": "b1", "registered": True, "message": "Backend registered successfully"}
    assert answer.headers["Heartbeat-TTL-Secs"] == "60"


async def test_registered_backend_is_in_the_table_when_it_hears_of_it(pop: Pop) -> None:
    await pop.register(country="PT", weight=7, soft_limit=3, hard_limit=0)
    placed = pop.feed.table.get("b1")
    assert placed is not None
    backend = placed.backend
    assert (backend.app, backend.region, backend.country, backend.host, backend.port) == (
        *("web", "eu", "PT", "10.0.0.7", 9001),
    )
    assert (backend.healthy, backend.weight, backend.soft_limit, backend.hard_limit) == (True, 7, 3, 0)


async def test_weight_and_limits_have_the_defaults_of_the_original(pop: Pop) -> None:
    await pop.register()
    assert sql(pop, "SELECT weight, soft_limit, hard_limit, country FROM backends") == [(2, 100, 150, None)]


async def test_whole_numbers_may_be_written_with_a_point(pop: Pop) -> None:
    assert (await pop.register(port=9001.0, weight=7.0)).status == 201
    assert sql(pop, "SELECT port, weight FROM backends") == [(9001, 7)]


async def test_heartbeat_answers_as_the_original(pop: Pop) -> None:
    await pop.register()
    answer = await pop.ask("POST", "/api/v1/heartbeat/b1")
    assert (answer.status, answer.body) == (200, {"id": "b1", "status": "ok"})


async def test_heartbeat_of_an_unknown_backend_answers_as_the_original(pop: Pop) -> None:
    answer = await pop.ask("POST", "/api/v1/heartbeat/nobody")
    assert (answer.status, answer.body) == (
        404,
        {"id": "nobody", "error": "backend not registered", "code": "unknown_backend"},
    )


async def test_list_and_single_backend_answer_as_the_original(pop: Pop) -> None:
    assert (await pop.ask("GET", "/api/v1/backends")).body == {"backends": [], "total": 0}
    await pop.register()
    backend = {**BACKEND, "healthy": True, "last_heartbeat_secs": 0, "registered_secs": 0}
    assert (await pop.ask("GET", "/api/v1/backends")).body == {"backends": [backend], "total": 1}
    assert (await pop.ask("GET", "/api/v1/backends/b1")).body == backend


async def test_deregistering_answers_as_the_original_and_removes_the_row(pop: Pop) -> None:
    await pop.register()
    answer = await pop.ask("DELETE", "/api/v1/backends/b1")
    assert (answer.status, answer.body) == (200, {"id": "b1", "deregistered": True})
    assert pop.feed.table.get("b1") is None
    assert healthy_and_deleted(pop) == (1, 1)
    assert (await pop.ask("DELETE", "/api/v1/backends/b1")).status == 404
    assert (await pop.ask("GET", "/api/v1/backends/b1")).body["error"] == "backend not registered"


async def test_health_counts_registered_backends_and_all(pop: Pop) -> None:
    sql(pop, "INSERT INTO backends VALUES ('hand', 'web', 'eu', NULL, '10.0.0.9', 1, 1, 2, 100, 150, 0)")
    await pop.register()
    answer = await pop.ask("GET", "/health")
    assert (answer.status, answer.body) == (
        200,
        {"status": "ok", "version": "0.0.0", "registered_backends": 1, "backends": 2, "uptime_secs": 0},
    )


async def test_get_calls_answer_head_too(pop: Pop) -> None:
    answer = await pop.ask("HEAD", "/health")
    assert (answer.status, answer.body) == (200, None)


async def test_ready_while_workers_are_and_not_while_draining(pop: Pop) -> None:
    assert (await pop.ask("GET", "/ready")).body == {"status": "ready"}
    pop.ready = False
    answer = await pop.ask("GET", "/ready")
    assert (answer.status, answer.body["code"]) == (503, "not_ready")
    pop.ready = True
    pop.server.drain()
    answer = await pop.ask("GET", "/ready")
    assert (answer.status, answer.body["code"]) == (503, "draining")
    assert (await pop.ask("GET", "/health")).status == 200


async def test_answers_name_no_versions_of_what_serves_them(pop: Pop) -> None:
    assert (await pop.ask("GET", "/health")).headers["Server"] == "edgeproxy"


# ---- registering again -----------------------------------------------------------------------


async def test_registering_again_keeps_the_time_of_the_first(pop: Pop) -> None:
    await pop.register()
    sql(pop, "UPDATE edgeproxy_leases SET registered_at = registered_at - 1000")
    async with served(pop.config.db_path.parent) as restarted:
        await restarted.register(ip="10.0.0.8")
        backend = (await restarted.ask("GET", "/api/v1/backends/b1")).body
        assert 1000 <= backend["registered_secs"] < 1060
        assert backend["ip"] == "10.0.0.8"


async def test_registering_again_keeps_what_was_tuned_and_drained(pop: Pop) -> None:
    await pop.register()
    await pop.ask("PATCH", "/api/v1/backends/b1", {"weight": 9, "drain": True})
    assert (await pop.register()).status == 201
    assert sql(pop, "SELECT weight, healthy FROM backends") == [(9, 0)]


async def test_row_made_by_hand_is_taken_over(pop: Pop) -> None:
    sql(pop, "INSERT INTO backends VALUES ('b1', 'web', 'us', NULL, '10.0.0.9', 1, 1, 5, 100, 150, 0)")
    assert (await pop.ask("GET", "/api/v1/backends/b1")).status == 404
    assert (await pop.register()).status == 201
    assert sql(pop, "SELECT region, wg_ip, weight FROM backends") == [("eu", "10.0.0.7", 5)]


# ---- leases ----------------------------------------------------------------------------------


@pytest.mark.feature("api.leases")
async def test_silent_backend_becomes_unhealthy_and_is_removed(short: Pop) -> None:
    await short.register()
    await wait_until_async(lambda: healthy_and_deleted(short) == (0, 0), reason="healthy = 0")
    await wait_until_async(lambda: not routed_to(short), reason="the table to follow")
    await wait_until_async(lambda: healthy_and_deleted(short)[1] == 1, reason="deleted = 1")
    await wait_until_async(lambda: short.feed.table.get("b1") is None, reason="the table to follow")
    assert (await short.ask("POST", "/api/v1/heartbeat/b1")).status == 404
    assert sql(short, "SELECT * FROM edgeproxy_leases") == []


async def heartbeats_keep_it_alive(pop: Pop, heard_by: Pop) -> None:
    """A machine that pauses for a TTL between two heartbeats proves nothing, and is not held against it."""
    await pop.register()
    loop = asyncio.get_running_loop()
    sent_s = loop.time()
    end_s = sent_s + 4 * SHORT_TTL_S
    while sent_s < end_s:
        await asyncio.sleep(SHORT_TTL_S / 8)
        state = healthy_and_deleted(pop)
        assert state == (1, 0) or loop.time() - sent_s > SHORT_TTL_S
        sent_s = loop.time()
        assert (await heard_by.ask("POST", "/api/v1/heartbeat/b1")).status == 200


async def test_heartbeats_keep_a_backend_for_many_ttls(short: Pop) -> None:
    await heartbeats_keep_it_alive(short, short)


async def test_late_heartbeat_makes_it_healthy_at_once(short: Pop) -> None:
    await short.register()
    await wait_until_async(lambda: healthy_and_deleted(short) == (0, 0), reason="healthy = 0")
    assert (await short.ask("POST", "/api/v1/heartbeat/b1")).status == 200
    assert healthy_and_deleted(short) == (1, 0)
    assert await backend_healthy(short) is True


async def test_heartbeat_does_not_undo_the_operators_word(short: Pop) -> None:
    await short.register()
    await wait_until_async(lambda: healthy_and_deleted(short) == (0, 0), reason="healthy = 0")
    sql(short, "UPDATE backends SET healthy = 0 WHERE id = 'b1'")
    assert (await short.ask("POST", "/api/v1/heartbeat/b1")).status == 200
    assert healthy_and_deleted(short) == (0, 0)
    assert await backend_healthy(short) is False


async def test_heartbeats_reach_the_store_in_batches(pop: Pop) -> None:
    await pop.register()
    sql(pop, "UPDATE edgeproxy_leases SET heartbeat_at = 0, owner = 'somebody'")
    await pop.ask("POST", "/api/v1/heartbeat/b1")
    await wait_until_async(
        lambda: sql(pop, "SELECT owner FROM edgeproxy_leases WHERE heartbeat_at > 0"),
        reason="the heartbeat to be stored",
    )
    assert sql(pop, "SELECT owner FROM edgeproxy_leases") == [(pop.config.replication_node_id,)]


async def test_restart_loses_no_lease_and_counts_from_there(tmp_path: Path) -> None:
    async with served(tmp_path) as pop:
        await pop.register()
        sql(pop, "UPDATE edgeproxy_leases SET heartbeat_at = heartbeat_at - 100000")
    async with served(tmp_path, heartbeat_ttl_secs=SHORT_TTL_S) as restarted:
        assert await backend_healthy(restarted) is True
        assert (await restarted.ask("POST", "/api/v1/heartbeat/b1")).status == 200
        await wait_until_async(
            lambda: healthy_and_deleted(restarted)[1] == 1, reason="a silent backend to be removed"
        )


async def test_stop_stores_the_last_heartbeats(tmp_path: Path) -> None:
    async with served(tmp_path) as pop:
        await pop.register()
        sql(pop, "UPDATE edgeproxy_leases SET heartbeat_at = 0")
        await pop.ask("POST", "/api/v1/heartbeat/b1")
    assert sql(pop, "SELECT heartbeat_at > 0 FROM edgeproxy_leases") == [(1,)]


async def test_row_removed_by_hand_is_unknown_to_the_next_heartbeat(pop: Pop) -> None:
    await pop.register()
    sql(pop, "UPDATE backends SET deleted = 1")
    await wait_until_async(lambda: pop.feed.table.get("b1") is None, reason="the table to follow")
    assert (await pop.ask("POST", "/api/v1/heartbeat/b1")).status == 404
    assert (await pop.ask("GET", "/api/v1/backends")).body["total"] == 0
    assert (await pop.register()).status == 201


async def test_leases_of_a_file_that_is_put_in_place_run_out_too(short: Pop, tmp_path: Path) -> None:
    await short.register()
    await short.register("b2", port=9002)
    backup = tmp_path / "backup.db"
    with closing(sqlite3.connect(short.config.db_path)) as now, closing(sqlite3.connect(backup)) as copy:
        now.backup(copy)
    await short.ask("DELETE", "/api/v1/backends/b2")
    shutil.move(backup, short.config.db_path)
    await wait_until_async(
        lambda: healthy_and_deleted(short, "b2")[1] == 1, reason="the restored backend to be removed"
    )


async def test_two_processes_on_one_file_do_not_end_each_others_leases(short: Pop, tmp_path: Path) -> None:
    async with served(tmp_path, heartbeat_ttl_secs=SHORT_TTL_S) as other:
        await heartbeats_keep_it_alive(short, heard_by=other)


async def test_a_thousand_backends_register_at_once_in_few_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as pop:
        transactions = count_calls(pop.store, "transaction", monkeypatch)
        answers = await asyncio.gather(
            *(pop.server._registrar.register(f"b{n}", row(n), None) for n in range(1000))
        )
        assert len(answers) == 1000
        assert len(pop.feed.table.snapshot()) == 1000
        assert len(transactions) < 50
        assert (await pop.ask("GET", "/api/v1/backends")).body["total"] == 1000


def row(number: int) -> dict[str, object]:
    return {"app": "web", "region": "eu", "country": None, "wg_ip": "10.0.0.7", "port": 1 + number}


def count_calls(target: object, name: str, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    calls: list[None] = []
    original: Callable[..., Any] = getattr(target, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        return original(*arguments, **options)

    monkeypatch.setattr(target, name, counted)
    return calls


# ---- adjusting and explaining ----------------------------------------------------------------


async def test_adjustment_is_answered_with_the_row_as_it_is_now(pop: Pop) -> None:
    await pop.register()
    answer = await pop.ask(
        "PATCH", "/api/v1/backends/b1", {"weight": 9, "soft_limit": 8, "hard_limit": 7, "healthy": False}
    )
    assert (answer.status, answer.body) == (
        200,
        {**BACKEND, "country": "DE", "weight": 9, "soft_limit": 8, "hard_limit": 7, "healthy": False},
    )
    placed = pop.feed.table.get("b1")
    assert placed is not None
    assert (placed.backend.weight, placed.backend.healthy) == (9, False)


@pytest.mark.feature("api.operators")
async def test_drain_and_back(pop: Pop) -> None:
    await pop.register()
    assert (await pop.ask("PATCH", "/api/v1/backends/b1", {"drain": True})).body["healthy"] is False
    assert (await pop.ask("GET", "/api/v1/backends/b1")).body["healthy"] is False  # heartbeats or not
    assert (await pop.ask("PATCH", "/api/v1/backends/b1", {"drain": False})).body["healthy"] is True
    assert (await pop.ask("GET", "/api/v1/backends/b1")).body["healthy"] is True


async def test_row_made_by_hand_can_be_adjusted(pop: Pop) -> None:
    sql(pop, "INSERT INTO backends VALUES ('hand', 'web', 'eu', NULL, '10.0.0.9', 1, 1, 2, 100, 150, 0)")
    assert (await pop.ask("PATCH", "/api/v1/backends/hand", {"weight": 9})).body["weight"] == 9
    assert sql(pop, "SELECT weight FROM backends") == [(9,)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, None),
        ({"healthy": True, "drain": True}, "drain"),
        ({"weight": 256}, "weight"),
        ({"hard_limit": -1}, "hard_limit"),
        ({"port": 1}, "port"),
        ({"weight": None}, "weight"),
    ],
)
async def test_wrong_adjustment_is_refused_with_its_field(
    pop: Pop, body: dict[str, object], field: str | None
) -> None:
    await pop.register()
    answer = await pop.ask("PATCH", "/api/v1/backends/b1", body)
    assert (answer.status, answer.body["code"], answer.body.get("field")) == (422, "invalid", field)


async def test_adjusting_a_backend_that_does_not_exist_is_refused(pop: Pop) -> None:
    answer = await pop.ask("PATCH", "/api/v1/backends/nobody", {"weight": 1})
    assert (answer.status, answer.body["code"], answer.body["id"]) == (404, "unknown_backend", "nobody")


async def test_backend_removed_while_it_is_adjusted_is_gone(
    pop: Pop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pop.register()
    monkeypatch.setattr(pop.feed.table, "get", lambda _id: None)
    answer = await pop.ask("PATCH", "/api/v1/backends/b1", {"weight": 1})
    assert (answer.status, answer.body["code"]) == (404, "unknown_backend")


async def test_explain_shows_the_candidates(pop: Pop) -> None:
    await pop.register()
    answer = await pop.ask("GET", "/api/v1/explain?client=192.0.2.1&app=web")
    assert answer.status == 200
    assert answer.body["app"] == "web"
    assert [candidate["backend"] for candidate in answer.body["candidates"]] == ["b1"]


@pytest.mark.parametrize("query", ["", "?client=", "?client=mars", "?app=web"])
async def test_explain_without_an_address_is_refused(pop: Pop, query: str) -> None:
    answer = await pop.ask("GET", f"/api/v1/explain{query}")
    assert (answer.status, answer.body["code"], answer.body["field"]) == (422, "invalid", "client")
