"""A running proxy and its store: the change log, backups, damage, and a PostgreSQL that comes and goes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from packages.proxy.tests.integration.proxies import (
    API,
    EDGEPROXY,
    READABLE,
    UNREADABLE,
    Api,
    NewClient,
    Proxy,
    StartBackend,
    StartProxy,
    edit,
    environment,
    greeting,
    row,
    wait_until_served_by,
    write_rows,
)
from testkit.postgres import PostgresServer
from testkit.process import ProcessFactory
from testkit.wait import wait_until


def run(proxy: Proxy, *arguments: str, **settings: object) -> str:
    """Run a command beside the proxy, with its settings, and return what it prints."""
    done = subprocess.run(
        [*EDGEPROXY, *arguments],
        env={**os.environ, **environment({"db_path": proxy.db_path, **settings})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# ---- files -------------------------------------------------------------------------------------------


def has_log(path: Path) -> bool:
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'edgeproxy%'"
        return bool(database.execute(query).fetchone()[0])


def test_edits_beside_a_running_proxy_are_in_its_log(start_proxy: StartProxy, ports: dict[str, int]) -> None:
    proxy = start_proxy([row("one", ports["one"])])
    wait_until(lambda: has_log(proxy.db_path), reason="the log to be installed")
    edit(proxy.db_path, "UPDATE backends SET weight = 9")
    run(proxy, "backends", "set", "one", "--unhealthy")
    lines = run(proxy, "db", "log").splitlines()
    assert [line.split()[1:3] for line in lines] == [["found", "one"], ["outside", "one"], ["cli", "one"]]
    assert lines[1].endswith("weight 1 → 9")
    assert lines[2].endswith("healthy 1 → 0")
    assert "sound and holds 1 usable backends" in run(proxy, "db", "verify")


@pytest.mark.feature("recovery.archive", "recovery.point_in_time")
def test_running_proxy_archives_and_routes_by_what_is_restored(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient, tmp_path: Path
) -> None:
    url = (tmp_path / "archive").as_uri()
    proxy = start_proxy([row("one", ports["one"])], archive_url=url, archive_interval_secs=1)
    archived = (tmp_path / "archive").rglob
    wait_until(lambda: any(archived("snapshot-*")), reason="the archive to begin")
    edit(proxy.db_path, f"UPDATE backends SET port = {ports['two']}")
    wait_until_served_by(proxy, new_client, "two")
    wait_until(
        lambda: any(archived("changes-*-0000000000000002")),
        reason="the edit to be archived",
    )
    (found, edited) = json.loads(run(proxy, "db", "log", "--json"))["changes"]
    run(proxy, "db", "restore", "--to", found["at"])
    wait_until_served_by(proxy, new_client, "one")
    assert "1 changed" in run(proxy, "db", "restore", "--from-archive", url, "--to", edited["at"])
    wait_until_served_by(proxy, new_client, "two")


def test_restored_backup_is_routed_to(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient, tmp_path: Path
) -> None:
    proxy = start_proxy([row("one", ports["one"])])
    backup = tmp_path / "backup.db"
    assert "is copied to" in run(proxy, "db", "backup", str(backup))
    edit(proxy.db_path, f"UPDATE backends SET id = 'two', port = {ports['two']}")
    wait_until_served_by(proxy, new_client, "two")
    assert "1 rows added, 0 changed, 1 removed" in run(proxy, "db", "restore", str(backup))
    wait_until_served_by(proxy, new_client, "one")
    proxy.db_path.write_text("no database any more\n" * 1000)
    proxy.wait_log(UNREADABLE)
    assert "could not be used; it is kept as" in run(proxy, "db", "restore", str(backup))
    proxy.wait_log(READABLE)
    assert proxy.backend_of(new_client()) == "one"


def test_damaged_database_is_refused_at_start_with_the_remedy(
    process_factory: ProcessFactory, tmp_path: Path
) -> None:
    path = tmp_path / "routing.db"
    write_rows(path, [row("one", 9)])
    content = bytearray(path.read_bytes())
    content[36:40] = (7).to_bytes(4, "big")
    path.write_bytes(content)
    settings = environment({"db_path": path, "listen_addr": "127.0.0.1:0", "workers": 1})
    process = process_factory([*EDGEPROXY, "run"], env=settings, cwd=tmp_path)
    assert process.wait_exit(20) == 3
    assert "is damaged (" in process.log
    assert "`edgeproxy db verify` says where, `edgeproxy db restore BACKUP` mends it" in process.log


def test_read_only_database_is_served_and_said_to_have_no_log(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient, tmp_path: Path,
    read_only_copy: Callable[[Path], Path],
) -> None:  # fmt: skip
    path = tmp_path / "routing.db"
    write_rows(path, [row("one", ports["one"])])
    proxy = start_proxy(db_path=read_only_copy(path))
    (line,) = proxy.wait_log("changes are not logged")
    assert line["why"] == "the database is read-only for this process"
    assert proxy.backend_of(new_client()) == "one"


# ---- PostgreSQL --------------------------------------------------------------------------------------


@pytest.fixture
def database(postgres_factory: Callable[..., PostgresServer]) -> PostgresServer:
    return postgres_factory()


def with_postgres(server: PostgresServer, url: str = "", **settings: object) -> dict[str, Any]:
    return {"postgres_enabled": "true", "postgres_url": url or server.url(), **settings}


def insert(server: PostgresServer, name: str, port: int) -> None:
    values = f"'{name}', 'test', 'eu', 'DE', '127.0.0.1', {port}, 1, 1, 100, 0, 0"
    server.execute(f"INSERT INTO backends VALUES ({values})")


@contextmanager
def traffic(proxy: Proxy, new_client: NewClient) -> Iterator[list[str]]:
    """New clients, one after the other, until the block ends; yields the names of those who greeted them."""
    greeted: list[str] = []
    stop = threading.Event()

    def connect() -> None:
        while not stop.is_set():
            greeted.append(proxy.backend_of(new_client()))

    client = threading.Thread(target=connect)
    client.start()
    try:
        yield greeted
    finally:
        stop.set()
        client.join()


@pytest.mark.feature("table.postgres")
def test_edit_with_psql_is_routed_to_at_once(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient, database: PostgresServer
) -> None:
    # Without being told, the proxy would look an hour later.
    settings = with_postgres(database, postgres_reload_secs=3600)
    proxy = start_proxy(**settings)
    assert database.password not in proxy.process.log
    insert(database, "one", ports["one"])
    wait_until_served_by(proxy, new_client, "one")
    database.execute(f"UPDATE backends SET id = 'two', port = {ports['two']}")
    wait_until_served_by(proxy, new_client, "two")
    assert run(proxy, "backends", "set", "two", "--weight", "7", **settings) == "backend two changed\n"
    assert "two" in run(proxy, "backends", "list", **settings)
    assert (
        run(proxy, "db", "log", **settings)
        .splitlines()[-1]
        .endswith("cli                       two  weight 1 → 7")
    )
    explained = run(proxy, "explain", "--client", "127.0.0.1", admin_socket=proxy.admin_path, **settings)
    assert "two" in explained


def test_no_connection_fails_while_the_database_is_killed_and_restarted(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient, database: PostgresServer
) -> None:
    proxy = start_proxy(**with_postgres(database))
    insert(database, "one", ports["one"])
    wait_until_served_by(proxy, new_client, "one")
    with traffic(proxy, new_client) as greeted, proxy.connect() as open_before:
        assert greeting(open_before) == "one"
        database.kill()
        (warning,) = proxy.wait_log(UNREADABLE)
        assert database.password not in str(warning)
        before = len(greeted)
        wait_until(lambda: len(greeted) > before + 20, reason="clients to be served meanwhile")
        database.start()
        proxy.wait_log(READABLE, timeout_s=30)
        database.execute(f"UPDATE backends SET id = 'two', port = {ports['two']}")
        wait_until(lambda: greeted[-1] == "two", reason="the edit to be routed by", timeout_s=30)
        open_before.sendall(b"still there?")
        assert open_before.recv(64) == b"still there?"
    assert set(greeted) == {"one", "two"}
    assert len(proxy.log(UNREADABLE)) == len(proxy.log(READABLE)) == 1
    assert database.password not in proxy.process.log


def test_promoted_replica_is_routed_by(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient,
    postgres_factory: Callable[..., PostgresServer],
) -> None:  # fmt: skip
    primary = postgres_factory()
    standby = postgres_factory(standby_of=primary)
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    url = f"postgresql://postgres:{primary.password}@{hosts}/postgres"
    proxy = start_proxy(**with_postgres(primary, url))
    insert(primary, "one", ports["one"])
    wait_until_served_by(proxy, new_client, "one")
    wait_until(
        lambda: standby.execute("SELECT id FROM backends") == "one",
        reason="the replica to have the row",
        swallow=(AssertionError,),
    )
    primary.kill()
    proxy.wait_log(UNREADABLE)
    standby.promote()
    proxy.wait_log(READABLE, timeout_s=60)
    standby.execute(f"UPDATE backends SET id = 'two', port = {ports['two']}")
    wait_until_served_by(proxy, new_client, "two")


class Heart:
    """Beats for a backend at one POP until it is stopped."""

    def __init__(self, api: Api, name: str, pause_s: float) -> None:
        self._stop = threading.Event()
        self.beats = 0

        def beat() -> None:
            while not self._stop.wait(pause_s):
                with suppress(OSError):
                    self.beats += api.ask("POST", f"/api/v1/heartbeat/{name}")[0] == 200

        self._thread = threading.Thread(target=beat)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def start_heart() -> Iterator[Callable[..., Heart]]:
    with ExitStack() as beating:

        def start(api: Api, name: str, pause_s: float) -> Heart:
            heart = Heart(api, name, pause_s)
            beating.callback(heart.stop)
            return heart

        yield start


def history(server: PostgresServer) -> list[str]:
    """What became of the row's health and presence, oldest first."""
    query = "SELECT (new->>'healthy') || (new->>'deleted') FROM edgeproxy_changes ORDER BY change"
    return server.execute(query).splitlines()


def test_registration_at_one_pop_is_routed_to_by_all_until_nobody_hears_the_backend(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: NewClient, database: PostgresServer,
    start_heart: Callable[..., Heart],
) -> None:  # fmt: skip
    ttl_s = 1.0
    near, far = (
        start_proxy(**with_postgres(database), **API, heartbeat_ttl_secs=ttl_s, replication_node_id=name)
        for name in ("near", "far")
    )
    Api(near).register(start_backend("self-made"))
    for proxy in (near, far):
        wait_until_served_by(proxy, new_client, "self-made")
    heart = start_heart(Api(near), "self-made", ttl_s / 10)
    # The far POP hears nothing of it for longer than the TTL, and lets it be.
    wait_until(lambda: heart.beats >= 15, reason="the TTL to pass", timeout_s=30)
    wait_until_served_by(far, new_client, "self-made")
    assert Api(far).ask("GET", "/api/v1/backends")[1]["total"] == 1
    near.process.kill(signal.SIGKILL)
    wait_until(lambda: history(database)[-1] == "00", reason="the far POP to end it", timeout_s=60)
    wait_until_served_by(far, new_client, "")


def test_registrations_outlast_a_database_that_is_away(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: NewClient, database: PostgresServer
) -> None:
    proxy = start_proxy(**with_postgres(database), **API)
    api = Api(proxy)
    api.register(start_backend("self-made"))
    database.kill()
    proxy.wait_log(UNREADABLE)
    refused, answer = api.ask("PATCH", "/api/v1/backends/self-made", {"weight": 9})
    assert (refused, answer["code"]) == (503, "store_unavailable")
    assert api.ask("POST", "/api/v1/heartbeat/self-made")[0] == 200
    assert proxy.backend_of(new_client()) == "self-made"
    database.start()
    proxy.wait_log(READABLE, timeout_s=30)
    assert api.ask("PATCH", "/api/v1/backends/self-made", {"weight": 9})[0] == 200
    assert database.execute("SELECT weight FROM backends") == "9"
    assert api.ask("DELETE", "/api/v1/backends/self-made")[0] == 200
    assert proxy.backend_of(new_client()) == ""


def test_database_that_refuses_ends_the_start_with_exit_code_3(
    process_factory: ProcessFactory, tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.url(password="hunter2")
    settings = environment({**with_postgres(postgres, url), "listen_addr": "127.0.0.1:0", "workers": 1})
    process = process_factory([*EDGEPROXY, "run"], env=settings, cwd=tmp_path)
    assert process.wait_exit(20) == 3
    assert 'password authentication failed for user "postgres"' in process.log
    assert "hunter2" not in process.log


def test_proxy_stops_at_once_while_the_database_is_away(
    start_proxy: StartProxy, database: PostgresServer
) -> None:
    proxy = start_proxy(**with_postgres(database))
    database.kill()
    proxy.wait_log(UNREADABLE)
    proxy.process.terminate(timeout_s=10)
