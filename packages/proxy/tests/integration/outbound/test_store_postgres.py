"""A real PostgreSQL that is edited, locked, killed, restarted, slow, and replaced by its replica."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import asyncpg
import pytest

from edgeproxy.errors import ConfigError, EdgeproxyError, StoreError
from edgeproxy.outbound import postgres_session
from edgeproxy.outbound.postgres_hosts import PostgresHosts, PostgresSettings, RefusedError, explained
from edgeproxy.outbound.postgres_schema import COLUMNS
from edgeproxy.outbound.postgres_session import PostgresSession
from edgeproxy.outbound.store_postgres import PostgresStore
from edgeproxy.ports import RowChange
from testkit.faults.listeners import silent_port
from testkit.postgres import PostgresServer
from testkit.wait import wait_until

GOOD = "'eu', 'DE', '10.0.0.1', 9001, 1, 2, 100, 150, 0"
TWO_ROWS = f"INSERT INTO backends VALUES ('a', 'test', {GOOD}), ('b', 'test', {GOOD})"

Open = Callable[..., PostgresStore]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_session, "LONGEST_PAUSE_S", 0.2)


def connect(
    url: str, on_change: Callable[[], None] = lambda: None, patience_s: float = 0.0, **settings: float
) -> PostgresStore:
    """Open a store that relies on being told of changes, unless ``settings`` say otherwise."""
    usual = PostgresSettings(
        url,
        min_connections=1,
        max_connections=5,
        connect_timeout_s=5.0,
        query_timeout_s=10.0,
        reload_s=3600.0,
    )
    return PostgresStore(
        usual._replace(**settings),  # type: ignore[arg-type]
        author="proxy",
        max_changes=1000,
        max_age_s=3600.0,
        patience_s=patience_s,
        on_change=on_change,
    )


@pytest.fixture
def open_store(postgres: PostgresServer, postgres_database: str) -> Iterator[Open]:
    """Opens stores on a database of this test's own, unless another URL is given; closes them at the end."""
    with ExitStack() as stores:

        def open_store(url: str = "", **settings: Any) -> PostgresStore:
            store = connect(url or postgres.url(postgres_database), **settings)
            stores.callback(store.close)
            return store

        yield open_store


def ids(store: PostgresStore) -> list[object] | None:
    rows = store.poll()
    return None if rows is None else [row["id"] for row in rows]


def refused(act: Callable[[], object], kind: type[EdgeproxyError] = StoreError) -> str:
    with pytest.raises(kind) as caught:
        act()
    (line,) = str(caught.value).splitlines()
    return line


def answered(store: PostgresStore) -> object:
    """Poll until the store answers."""
    (answer,) = wait_until(
        lambda: [store.poll()], reason="the database to answer", timeout_s=30, swallow=(StoreError,)
    )
    return answer


# ---- schema ------------------------------------------------------------------------------------------


def test_schema_is_made_where_it_is_missing_and_left_alone_where_it_is(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    open_store()
    described = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'backends'"
    made = postgres.execute(f"{described} ORDER BY ordinal_position", postgres_database).splitlines()
    assert [line.split("|")[0] for line in made] == [*COLUMNS]
    postgres.execute(f"{TWO_ROWS}; ALTER TABLE backends ADD COLUMN note TEXT", postgres_database)
    versions = "SELECT oid, xmin FROM pg_proc WHERE prolang > 20 UNION ALL SELECT oid, xmin FROM pg_trigger"
    before = postgres.execute(versions, postgres_database)
    assert ids(open_store()) == ["a", "b"]
    assert postgres.execute(versions, postgres_database) == before


def test_stores_that_are_opened_at_once_make_one_schema(open_store: Open) -> None:
    with ThreadPoolExecutor(6) as threads:
        stores = [each.result() for each in [threads.submit(open_store) for _ in range(6)]]
    for store in stores:
        assert store.tend() is None
        assert ids(store) == []


def test_table_of_the_user_is_taken_as_it_is(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    postgres.execute(
        "CREATE TABLE backends (id VARCHAR(9) PRIMARY KEY, app TEXT, region TEXT, country TEXT, wg_ip TEXT, "
        "port TEXT, healthy BOOLEAN, weight NUMERIC, soft_limit INT, hard_limit INT, deleted INT, note TEXT);"
        "INSERT INTO backends VALUES ('a', 'test', 'eu', 'DE', '::1', 'http', true, 2.5, 1, 2, NULL, 'mine')",
        postgres_database,
    )
    store = open_store()
    ((row,)) = store.poll() or ()
    assert (row["port"], row["healthy"], str(row["weight"])) == ("http", True, "2.5")
    postgres.execute("UPDATE backends SET weight = 3", postgres_database)
    assert [float(str(each["weight"])) for each in store.poll() or ()] == [3.0]
    told = refused(lambda: store.apply(lambda _: RowChange("a", {"healthy": 1})))
    assert "invalid input" in told


def test_table_without_a_column_is_named(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    postgres.execute("CREATE TABLE backends (id TEXT PRIMARY KEY, deleted INT)", postgres_database)
    with pytest.raises(StoreError, match='column "healthy" of relation "backends" does not exist'):
        open_store()
    postgres.execute("ALTER TABLE backends ADD COLUMN healthy INT", postgres_database)
    store = open_store()
    assert 'column "app" does not exist' in refused(store.poll)


def test_table_that_was_dropped_and_made_again_is_logged_from_the_next_tending(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    store = open_store(reload_s=0.01)
    store.poll()
    store.tend()
    postgres.execute(
        "CREATE TABLE copy (LIKE backends INCLUDING ALL); DROP TABLE backends; "
        f"ALTER TABLE copy RENAME TO backends; {TWO_ROWS}",
        postgres_database,
    )
    assert wait_until(lambda: ids(store), reason="the rows to be read without a notification") == ["a", "b"]
    assert store.tend() is None
    postgres.execute("UPDATE backends SET weight = 9 WHERE id = 'a'", postgres_database)
    assert [each.id for each in store.changes("", 10)] == ["a"]


def test_role_that_may_only_read_is_served_without_a_log(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    open_store()
    role = f"reader_{os.getpid()}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    postgres.execute(
        f"{TWO_ROWS}; DROP TABLE edgeproxy_changes; GRANT SELECT ON backends TO {role}", postgres_database
    )
    try:
        store = open_store(postgres.url(postgres_database, user=role, password="p"), reload_s=0.01)
        assert ids(store) == ["a", "b"]
        told = store.tend()
        assert told is not None
        assert "permission denied" in told
        assert [*store.changes("", 10)] == []
        assert "permission denied" in refused(lambda: store.apply(lambda _: RowChange("a", {"weight": 1})))
        assert store.poll() is None
    finally:
        postgres.execute(f"DROP OWNED BY {role}; DROP ROLE {role}", postgres_database)


def test_role_that_may_not_even_read_is_refused(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    open_store()
    role = f"nobody_{os.getpid()}"
    postgres.execute(
        f"DROP TABLE edgeproxy_changes; CREATE ROLE {role} LOGIN PASSWORD 'p'", postgres_database
    )
    try:
        url = postgres.url(postgres_database, user=role, password="p")
        told = refused(lambda: open_store(url, patience_s=600), RefusedError)
        assert "permission denied for table backends" in told
    finally:
        postgres.execute(f"DROP ROLE {role}")


# ---- noticing ----------------------------------------------------------------------------------------


@pytest.mark.feature("table.postgres")
def test_edit_with_psql_wakes_whoever_polls(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    woken = threading.Event()
    store = open_store(on_change=woken.set)
    edits = (TWO_ROWS, "UPDATE backends SET weight = 9", "DELETE FROM backends WHERE id = 'a'")
    for sql in (*edits, "TRUNCATE backends"):
        woken.clear()
        postgres.execute(sql, postgres_database)
        assert woken.wait(10), sql
        assert store.poll() is not None


def test_edit_of_which_the_news_has_not_come_yet_is_seen_by_its_number(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    store = open_store()
    store.poll()
    postgres.execute(f"ALTER TABLE backends DISABLE TRIGGER edgeproxy_notify; {TWO_ROWS}", postgres_database)
    assert ids(store) == ["a", "b"]
    assert store.poll() is None


def test_edit_that_no_trigger_told_of_is_seen_when_it_is_time(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    store = open_store(reload_s=0.05)
    store.poll()
    postgres.execute(f"SET session_replication_role = replica; {TWO_ROWS}", postgres_database)
    assert wait_until(lambda: ids(store), reason="the table to be read again") == ["a", "b"]


def test_psql_is_named_as_the_author_and_our_own_writes_by_theirs(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    store = open_store()
    postgres.execute(
        f"{TWO_ROWS}; UPDATE backends SET id = 'c' WHERE id = 'b'; TRUNCATE backends", postgres_database
    )
    store.apply(lambda _: RowChange("d", {"port": 1}))
    assert [
        (each.author, each.id, each.old is None, each.new is None) for each in store.changes("", 100)
    ] == [
        ("outside (postgres, psql)", "a", True, False),
        ("outside (postgres, psql)", "b", True, False),
        ("outside (postgres, psql)", "b", False, True),
        ("outside (postgres, psql)", "c", True, False),
        ("outside (postgres, psql)", "a", False, True),
        ("outside (postgres, psql)", "c", False, True),
        ("proxy", "d", True, False),
    ]


def test_people_who_may_edit_backends_need_no_right_to_write_the_log(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    store = open_store()
    role = f"editor_{os.getpid()}"
    postgres.execute(f"CREATE ROLE {role}; GRANT INSERT ON backends TO {role}", postgres_database)
    try:
        postgres.execute(f"SET SESSION AUTHORIZATION {role}; {TWO_ROWS}", postgres_database)
        assert {each.author for each in store.changes("", 10)} == {f"outside ({role}, psql)"}
    finally:
        postgres.execute(f"DROP OWNED BY {role}; DROP ROLE {role}", postgres_database)


# ---- out of reach ------------------------------------------------------------------------------------


def test_killed_database_is_found_again_and_wakes_whoever_polls(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    woken = threading.Event()
    store = open_store(on_change=woken.set)
    postgres.execute(TWO_ROWS, postgres_database)
    assert ids(store) == ["a", "b"]
    woken.clear()
    postgres.kill()
    try:
        assert woken.wait(10), "going away is worth a poll"
        told = wait_until(lambda: refused(store.poll), reason="the reason to be known")
        assert postgres.password not in told
        wait_until(lambda: "Connection refused" in refused(store.poll), reason="an attempt to be made")
        assert "Connection refused" in refused(lambda: store.apply(lambda _: None))
        woken.clear()
    finally:
        postgres.start()
    assert woken.wait(30), "coming back is worth a poll"
    assert answered(store) is None
    postgres.execute("DELETE FROM backends WHERE id = 'a'", postgres_database)
    assert ids(store) == ["b"]


def test_log_is_tended_when_the_database_is_back(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    store = open_store()
    assert str(store) == f"postgresql://127.0.0.1:{postgres.port}/{postgres_database}"
    postgres.kill()
    try:
        wait_until(lambda: refused(store.tend), reason="tending to fail")
    finally:
        postgres.start()
    answered(store)
    postgres.execute("DROP TRIGGER edgeproxy_record_row ON backends", postgres_database)
    assert store.tend() is None
    postgres.execute(TWO_ROWS, postgres_database)
    assert len(store.changes("", 10)) == 2
    assert store.tend() is None
    assert store.tend() is None


def test_listener_that_is_terminated_listens_again(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    woken = threading.Event()
    store = open_store(on_change=woken.set)
    store.poll()
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()",
        postgres_database,
    )
    answered(store)
    woken.clear()
    postgres.execute(TWO_ROWS, postgres_database)
    assert woken.wait(10)
    assert ids(store) == ["a", "b"]


def test_database_that_falls_silent_is_noticed(
    open_store: Open, postgres_factory: Callable[..., PostgresServer]
) -> None:
    server = postgres_factory()
    woken = threading.Event()
    store = open_store(
        server.url(), on_change=woken.set, reload_s=0.05, query_timeout_s=0.05, connect_timeout_s=0.2
    )
    with stopped(server):
        # Who notices first, the poll or the listener, is up to chance.
        told = refused(store.poll)
        assert "no answer in time" in told or "the connection was lost" in told
        wait_until(lambda: "cannot be reached" in refused(store.poll), reason="attempts to connect to fail")
        assert woken.wait(10), "whoever only waits to be told must hear of it, too"
    answered(store)


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    """All processes of the server hold still, as on a host that hangs."""
    children = server.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()").split()
    parent = server.execute("SELECT pg_read_file('postmaster.pid')").split()[0]
    pids = [int(parent), *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_query_that_takes_too_long_is_ended(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    store = open_store(query_timeout_s=0.2)
    store.poll()

    async def hold_the_lock() -> None:
        holder = await asyncpg.connect(postgres.url(postgres_database))
        await holder.execute("BEGIN; LOCK TABLE backends IN ACCESS EXCLUSIVE MODE")
        told = await asyncio.to_thread(refused, lambda: store.apply(lambda _: RowChange("a", {"port": 1})))
        assert "longer than EDGEPROXY_POSTGRES_QUERY_TIMEOUT_SECS" in told
        await holder.close()

    asyncio.run(hold_the_lock())
    store.apply(lambda _: RowChange("a", {"port": 1}))
    assert ids(store) == ["a"]


def test_connection_lost_during_the_commit_is_told_honestly(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    store = open_store()
    # sleeps: until the session that it ends has ended
    postgres.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON backends DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION die()",
        postgres_database,
    )
    told = refused(lambda: store.apply(lambda _: RowChange("a", {"port": 1})))
    assert "lost during the commit, which may have succeeded" in told


# ---- several hosts -----------------------------------------------------------------------------------


def test_promoted_replica_is_found(open_store: Open, postgres_factory: Callable[..., PostgresServer]) -> None:
    primary = postgres_factory()
    standby = postgres_factory(standby_of=primary)
    hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
    store = open_store(f"postgresql://postgres:{primary.password}@{hosts}/postgres", connect_timeout_s=1)
    primary.execute(TWO_ROWS)
    assert ids(store) == ["a", "b"]
    wait_until(
        lambda: standby.execute("SELECT count(*) FROM backends") == "2",
        reason="the rows to arrive",
        swallow=(AssertionError,),
    )
    primary.kill()
    wait_until(lambda: "takes no writes" in refused(store.poll), reason="the standby to be tried")
    standby.promote()
    assert answered(store) is None
    standby.execute("DELETE FROM backends WHERE id = 'a'")
    assert ids(store) == ["b"]
    store.apply(lambda _: RowChange("c", {"port": 1}))
    assert standby.execute("SELECT id FROM backends ORDER BY id").split() == ["b", "c"]


def test_standby_can_be_asked_for_but_cannot_tell_of_changes(
    open_store: Open, postgres_factory: Callable[..., PostgresServer]
) -> None:
    primary = postgres_factory()
    standby = postgres_factory(standby_of=primary)
    told = refused(lambda: open_store(f"{standby.url()}?target_session_attrs=any"))
    assert "read-only transaction" in told or "during recovery" in told


def test_host_that_swallows_packets_does_not_hide_the_next(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    with silent_port() as port:
        hosts = f"127.0.0.1:{port},127.0.0.1:{postgres.port}"
        url = f"postgresql://postgres:{postgres.password}@{hosts}/{postgres_database}"
        assert ids(open_store(url, connect_timeout_s=0.3)) == []


# ---- errors ------------------------------------------------------------------------------------------


def test_wrong_password_is_refused_at_once_and_not_shown(
    open_store: Open, postgres: PostgresServer, postgres_database: str
) -> None:
    url = postgres.url(postgres_database, password="hunter2")
    told = refused(lambda: open_store(url, patience_s=600), RefusedError)
    assert told.endswith(
        'password authentication failed for user "postgres"; '
        "check the user and the password in EDGEPROXY_POSTGRES_URL"
    )
    assert told.startswith(f"postgresql://127.0.0.1:{postgres.port}/{postgres_database}: ")
    assert "hunter2" not in told


def test_missing_database_is_refused_at_once(open_store: Open, postgres: PostgresServer) -> None:
    told = refused(lambda: open_store(postgres.url("nothing"), patience_s=600), RefusedError)
    assert 'database "nothing" does not exist; make it with createdb' in told


@pytest.mark.parametrize(
    "url", ["postgresql://me:hun/ter2@h/d", "postgresql://me:hunter2@h/d?sslmode=hunter2"]
)
def test_url_that_the_driver_cannot_read_is_not_shown(open_store: Open, url: str) -> None:
    told = refused(lambda: open_store(url, patience_s=600), ConfigError)
    assert told.startswith("EDGEPROXY_POSTGRES_URL: the value (not shown) is no usable URL")
    assert "ter2" not in told


def test_database_that_is_not_there_is_waited_for(
    open_store: Open, postgres_factory: Callable[..., PostgresServer]
) -> None:
    server = postgres_factory()
    server.stop()
    starting = threading.Timer(0.3, server.start)
    starting.start()
    assert ids(open_store(server.url(), patience_s=60)) == []
    starting.join()


def test_waiting_ends_and_says_so(open_store: Open, port: int) -> None:
    started_s = time.monotonic()
    told = refused(lambda: open_store(f"postgresql://u:hunter2@127.0.0.1:{port}/d", patience_s=0.3))
    assert told == (
        f"postgresql://127.0.0.1:{port}/d cannot be reached: 127.0.0.1:{port}: Connection refused; "
        "gave up after 0.3 s"
    )
    assert time.monotonic() - started_s < 10
    assert "gave up" not in refused(lambda: open_store(f"postgresql://u@127.0.0.1:{port}/d"))


def test_host_without_a_name_in_the_url_comes_from_where_the_driver_looks(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", str(port))
    hosts = PostgresHosts(PostgresSettings("postgresql:///d", 1, 1, 1.0, 1.0, 1.0))
    told = refused(lambda: asyncio.run(hosts.connect()))
    assert told == "postgresql:///d cannot be reached: its host: Connection refused"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), "no answer in time"),
        (OSError("several\nlines"), "several"),
        (socket.gaierror(-2, "Name or service not known"), "[Errno -2] Name or service not known"),
        (asyncpg.InterfaceError(""), "InterfaceError"),
    ],
)
def test_errors_are_told_in_one_line(error: Exception, told: str) -> None:
    assert explained(error) == told


def test_session_whose_preparation_fails_is_closed(postgres: PostgresServer) -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError("on purpose")

    settings = PostgresSettings(postgres.url(), 1, 1, 5.0, 5.0, 5.0)
    session = PostgresSession(settings, fail, lambda: None)
    with pytest.raises(ZeroDivisionError):
        session.open(patience_s=600)
    assert "is disconnected" in refused(lambda: session.fetch("SELECT 1"))


# ---- closing -----------------------------------------------------------------------------------------


def test_closed_store_answers_nobody(postgres: PostgresServer, postgres_database: str) -> None:
    store = connect(postgres.url(postgres_database))
    store.close()
    assert "is disconnected" in refused(store.poll)
    assert "is disconnected" in refused(lambda: store.apply(lambda _: None))


def test_question_that_is_open_when_the_store_is_closed_is_answered(
    postgres: PostgresServer, postgres_database: str
) -> None:
    store = connect(postgres.url(postgres_database))
    query = "SELECT pg_sleep(30)"  # sleeps: until the store is closed
    running = f"SELECT count(*) FROM pg_stat_activity WHERE query = '{query}'"
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(refused, lambda: store._session.fetch(query))
        wait_until(lambda: postgres.execute(running) == "1", reason="the query to run")
        store.close()
        assert "is disconnected" in answer.result(10)


def test_store_whose_server_is_silent_is_closed_all_the_same(
    postgres_factory: Callable[..., PostgresServer],
) -> None:
    server = postgres_factory()
    store = connect(server.url())
    with stopped(server):
        started_s = time.monotonic()
        store.close()
        assert time.monotonic() - started_s < 10 * postgres_session.CLOSING_S
