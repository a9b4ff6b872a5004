"""Leases in a real PostgreSQL: who is told of them, who may write them, and what costs how many questions."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.outbound.leases_postgres import PostgresLeases
from edgeproxy.outbound.postgres_hosts import PostgresSettings
from edgeproxy.outbound.postgres_session import PostgresTransaction
from edgeproxy.outbound.store_postgres import PostgresStore
from edgeproxy.ports import Lease, LeaseOperation, LeaseWrite, NotWritten, RowChange
from testkit.contracts.row_store import row, without_id
from testkit.postgres import PostgresServer


@contextmanager
def opened(url: str, on_change: Callable[[], None] = lambda: None) -> Iterator[PostgresStore]:
    settings = PostgresSettings(url, 1, 5, connect_timeout_s=5.0, query_timeout_s=10.0, reload_s=3600.0)
    store = PostgresStore(settings, author="proxy", max_changes=1000, max_age_s=3600.0, on_change=on_change)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def store(postgres: PostgresServer, postgres_database: str) -> Iterator[PostgresStore]:
    with opened(postgres.url(postgres_database)) as store:
        yield store


@pytest.fixture
def leases(store: PostgresStore) -> PostgresLeases:
    return PostgresLeases(store, "api")


def writes(backend_id: str, *, heartbeat_at_s: float = 20.0, **values: object) -> LeaseOperation[Any]:
    lease = Lease(backend_id, "pop", 10.0, heartbeat_at_s, expired=False)
    change = RowChange(backend_id, without_id(row(backend_id, **values)))
    return lambda _table, _lease: LeaseWrite(backend_id, change, lease)


def renews(backend_id: str, heartbeat_at_s: float) -> LeaseOperation[Any]:
    lease = Lease(backend_id, "pop", 10.0, heartbeat_at_s, expired=False)
    return lambda _table, _lease: LeaseWrite(backend_id, None, lease)


def test_registration_is_logged_as_the_api_s(store: PostgresStore, leases: PostgresLeases) -> None:
    leases.apply([("a", writes("a"))])
    store.apply(lambda _table: RowChange("a", {"weight": 9}))
    assert [(each.id, each.author) for each in store.changes("", 10)] == [("a", "api"), ("a", "proxy")]


def test_heartbeat_is_no_change_and_wakes_nobody(postgres: PostgresServer, postgres_database: str) -> None:
    woken = threading.Event()
    with opened(postgres.url(postgres_database), woken.set) as store:
        leases = PostgresLeases(store, "api")
        leases.apply([("a", writes("a"))])
        assert woken.wait(10)
        store.poll()
        woken.clear()
        leases.apply([("a", renews("a", 30.0))])
        # What is notified after the heartbeat comes after it.
        assert store.poll() is None
        postgres.execute("NOTIFY edgeproxy_backends", postgres_database)
        assert woken.wait(10)
        assert len(store.changes("", 10)) == 1


def test_thousand_heartbeats_cost_a_handful_of_questions(
    leases: PostgresLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"b{number}" for number in range(1000)]
    leases.apply([(each, renews(each, 1.0)) for each in ids])
    asked: list[str] = []
    execute, fetch = PostgresTransaction.execute, PostgresTransaction.fetch

    def counted_execute(self: PostgresTransaction, query: str, *arguments: object) -> str:
        asked.append(query)
        return execute(self, query, *arguments)

    def counted_fetch(self: PostgresTransaction, query: str, *arguments: object) -> list[Any]:
        asked.append(query)
        return fetch(self, query, *arguments)

    monkeypatch.setattr(PostgresTransaction, "execute", counted_execute)
    monkeypatch.setattr(PostgresTransaction, "fetch", counted_fetch)
    seen: list[object] = []

    def look(_table: object, lease: Lease | None) -> None:
        seen.append(lease)

    leases.apply([(each, renews(each, 2.0)) for each in ids])
    assert len(asked) < 10
    leases.apply([("b7", look)])
    assert seen == [Lease("b7", "pop", 10.0, 2.0, expired=False)]


def test_value_that_does_not_fit_its_column_is_the_matter_of_its_row(
    leases: PostgresLeases, postgres: PostgresServer, postgres_database: str
) -> None:
    outcomes = leases.apply(
        [
            *(("a", writes("a")), ("big", writes("big", port=2**40)), ("text", writes("text", port="http"))),
            *(("nul\0", writes("nul\0")), ("half\udcff", writes("half\udcff")), ("z", writes("z"))),
        ]
    )
    assert [type(each) for each in outcomes] == [LeaseWrite, *[NotWritten] * 4, LeaseWrite]
    assert postgres.execute("SELECT id FROM backends ORDER BY id", postgres_database) == "a\nz"


def test_row_is_seen_as_the_triggers_of_its_owner_made_it(
    leases: PostgresLeases, postgres: PostgresServer, postgres_database: str
) -> None:
    postgres.execute(
        "CREATE FUNCTION ours() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.weight = 7; RETURN NEW; "
        "END $$; CREATE TRIGGER ours BEFORE INSERT ON backends FOR EACH ROW EXECUTE FUNCTION ours()",
        postgres_database,
    )
    seen: list[object] = []

    def look(table: Any, _lease: Lease | None) -> None:
        seen.append((table["a"]["weight"], table["a"]["deleted"]))

    leases.apply([("a", writes("a")), ("a", look)])
    assert seen == [(7, 0)]


def test_role_that_may_not_write_leases_is_told_so(
    store: PostgresStore, postgres: PostgresServer, postgres_database: str
) -> None:
    assert store.tend() is None
    role = f"editor_{os.getpid()}"
    postgres.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'p'; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON backends, edgeproxy_changes TO {role}; "
        f"GRANT SELECT ON edgeproxy_leases TO {role}",
        postgres_database,
    )
    try:
        with opened(postgres.url(postgres_database, user=role, password="p")) as other:
            leases = PostgresLeases(other, "api")
            assert list(leases.leases()) == []
            with pytest.raises(StoreError, match="permission denied for table edgeproxy_leases"):
                leases.apply([("a", writes("a"))])
            assert other.poll() == []
    finally:
        postgres.execute(f"DROP OWNED BY {role}; DROP ROLE {role}", postgres_database)


def test_what_an_older_version_made_is_brought_up_to_date(
    store: PostgresStore, postgres: PostgresServer, postgres_database: str
) -> None:
    assert store.tend() is None
    postgres.execute(
        "DROP TRIGGER edgeproxy_release_health ON backends; DROP FUNCTION edgeproxy_release_health; "
        "DROP TABLE edgeproxy_leases",
        postgres_database,
    )
    with opened(postgres.url(postgres_database)) as newer:
        assert isinstance(PostgresLeases(newer, "api").apply([("a", writes("a"))])[0], LeaseWrite)
