"""Every way of editing routing.db by hand, and what the change log says of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from edgeproxy.core.controlplane.row_text import row_from_text
from edgeproxy.errors import StoreError
from edgeproxy.outbound import change_log_sqlite, sqlite_file, store_sqlite
from edgeproxy.outbound.change_log_sqlite import LogSettings, inconsistencies
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import Change, RowChange
from testkit.wait import wait_until

ORIGINAL_SCHEMA = """
    CREATE TABLE backends (id TEXT PRIMARY KEY, app TEXT, region TEXT, wg_ip TEXT, port INTEGER,
    healthy INTEGER, weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER DEFAULT 0);
"""
TWO_ROWS = """
    INSERT INTO backends VALUES ('a', 'test', 'eu', '127.0.0.1', 9001, 1, 2, 100, 150, 0);
    INSERT INTO backends VALUES ('b', 'test', 'us', '127.0.0.1', 9002, 1, 2, 100, 150, 0);
"""
ROW_A = "('a', 'test', 'eu', '127.0.0.1', 9001, 1, 2, 100, 150, 0)"
WITHOUT_KEY = """
    CREATE TABLE copy AS SELECT * FROM backends;
    DROP TABLE backends;
    ALTER TABLE copy RENAME TO backends;
"""
ROW_A_MOVED = ROW_A.replace("9001", "9005")
GAPS = "the numbers of origin {} have gaps or repeat"
LOG_TABLES = ["edgeproxy_changes", "edgeproxy_log", "edgeproxy_rows"]

SETTINGS = LogSettings(author="proxy", node="pop-1", max_changes=1000, max_age_s=3600.0)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_sqlite, "STAMP_GRANULARITY_S", 0.02)
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.05)


@pytest.fixture(params=["delete", "wal"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A user's file with two rows, in both journal modes."""
    path = tmp_path / "routing.db"
    shell(path, f"PRAGMA journal_mode = {request.param}; {ORIGINAL_SCHEMA} {TWO_ROWS}")
    return path


@pytest.fixture
def store(path: Path) -> SqliteStore:
    """A store whose log is installed and has the two rows."""
    store = open_store(path)
    assert store.tend() is None
    return store


def open_store(path: Path, **settings: object) -> SqliteStore:
    return SqliteStore(path, SETTINGS._replace(**settings))  # type: ignore[arg-type]


def shell(path: Path, sql: str) -> str:
    program = shutil.which("sqlite3")
    if program is None:
        pytest.skip("the sqlite3 program is not installed")
    done = subprocess.run([program, path, sql], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def changes(store: SqliteStore) -> list[Change]:
    return [*store.changes("", 10_000)]


def tended(store: SqliteStore) -> list[Change]:
    """The log after the store has taken notice of every edit."""
    wait_until(lambda: store_sqlite._Stamp.of(store.path).is_settled, reason="the file is no longer young")
    assert store.tend() is None
    assert problems(store) == []
    return changes(store)


def problems(store: SqliteStore) -> list[str]:
    with store.reading() as connection:
        return inconsistencies(connection, store.path)


def summary(entries: Iterable[Change]) -> list[tuple[str, str, object, object]]:
    """Author, id, and of each image only what differs."""
    return [(each.author, each.id, *_differences(each)) for each in entries]


def _differences(change: Change) -> tuple[object, object]:
    if change.old is None or change.new is None:
        return change.old and "row", change.new and "row"
    differing = [column for column in change.new if change.old.get(column) != change.new[column]]
    return tuple({column: image.get(column) for column in differing} for image in (change.old, change.new))  # type: ignore[return-value]


def incarnations(entries: Iterable[Change]) -> list[str]:
    return [*dict.fromkeys(str(each.origin) for each in entries)]


# ---- installing --------------------------------------------------------------------------------------


def test_first_log_has_every_row_as_found(path: Path) -> None:
    first, second = tended(open_store(path))
    assert (first.id, first.author, first.old) == ("a", "found", None)
    assert first.new == row_from_text(
        "app='test' region='eu' wg_ip='127.0.0.1' port=9001 healthy=1 weight=2 soft_limit=100 hard_limit=150 "
        "deleted=0"
    )
    assert (second.id, second.sequence) == ("b", 2)
    assert first.origin == second.origin
    assert first.origin is not None
    assert first.origin.startswith("pop-1/")


def test_file_of_the_user_stays_what_it_was(path: Path) -> None:
    mode = shell(path, "PRAGMA journal_mode")
    rows, schema = shell(path, "SELECT * FROM backends"), shell(path, "PRAGMA table_info(backends)")
    tended(open_store(path))
    assert shell(path, "PRAGMA journal_mode") == mode
    assert shell(path, "SELECT * FROM backends") == rows
    assert shell(path, "PRAGMA table_info(backends)") == schema
    assert shell(path, "PRAGMA user_version; PRAGMA integrity_check") == "0\nok"


def test_reading_installs_nothing(path: Path) -> None:
    before = path.read_bytes()
    store = open_store(path)
    store.poll()
    assert changes(store) == []
    assert problems(store) == []
    assert path.read_bytes() == before


def test_file_that_did_not_change_is_not_opened_again(store: SqliteStore) -> None:
    tended(store)
    tended(store)  # of what the first time wrote
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert store.tend() is None


def test_locked_file_is_an_error_and_tended_later(path: Path) -> None:
    store = open_store(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="is locked by another program"):
            store.tend()
    assert len(tended(store)) == 2


@pytest.mark.parametrize("act", ["tend", "apply"])
def test_file_that_vanishes_while_its_log_is_written_is_an_error(path: Path, act: str) -> None:
    store = open_store(path)
    begin = change_log_sqlite._Found.by

    def vanish(connection: sqlite3.Connection, of: Path) -> object:
        path.unlink(missing_ok=True)
        return begin(connection, of)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(change_log_sqlite._Found, "by", vanish)
        with pytest.raises(StoreError, match=r"No such file|was removed while it was in use"):
            store.tend() if act == "tend" else store.apply(lambda _: RowChange("a", {"weight": 1}))
    assert not path.exists()


def test_read_only_file_is_served_without_a_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    store = open_store(path)
    assert store.tend() == "the database is read-only for this process"
    assert len(store.poll() or ()) == 2
    assert changes(store) == []


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        (WITHOUT_KEY, "CREATE UNIQUE INDEX backends_id ON backends (id)"),
        ("ALTER TABLE backends RENAME TO kept; CREATE VIEW backends AS SELECT * FROM kept", "is a view"),
    ],
)
def test_table_whose_rows_have_no_identity_is_served_without_a_log(path: Path, sql: str, why: str) -> None:
    shell(path, sql)
    store = open_store(path)
    told = store.tend()
    assert told is not None
    assert why in told
    assert store.tend() == told
    assert len(store.poll() or ()) == 2


def test_rows_of_a_table_without_identity_can_still_be_written(path: Path) -> None:
    shell(
        path,
        f"""
        {WITHOUT_KEY}
        CREATE INDEX by_id ON backends (id);
        CREATE UNIQUE INDEX some ON backends (id) WHERE id > 'x';
        CREATE UNIQUE INDEX regardless_of_case ON backends (id COLLATE NOCASE);
        CREATE UNIQUE INDEX both ON backends (id, port);
        """,
    )
    store = open_store(path)
    store.apply(lambda _: RowChange("a", {"weight": 9}))
    assert shell(path, "SELECT weight FROM backends WHERE id = 'a'") == "9"
    assert changes(store) == []


def test_unique_index_gives_rows_their_identity(path: Path) -> None:
    shell(path, f'{WITHOUT_KEY} CREATE UNIQUE INDEX "a ""name""" ON backends (ID)')
    assert len(tended(open_store(path))) == 2


# ---- edits by hand -----------------------------------------------------------------------------------


@pytest.mark.feature("table.change_log")
@pytest.mark.parametrize(
    ("sql", "logged"),
    [
        ("UPDATE backends SET healthy = 0 WHERE id = 'a'", [("a", {"healthy": 1}, {"healthy": 0})]),
        ("UPDATE backends SET healthy = 1", []),
        ("UPDATE backends SET weight = '2' WHERE id = 'a'", []),
        (
            "UPDATE backends SET weight = NULL, app = 'it''s' WHERE id = 'b'",
            [("b", {"app": "test", "weight": 2}, {"app": "it's", "weight": None})],
        ),
        ("INSERT INTO backends (id, port) VALUES ('c', 1)", [("c", None, "row")]),
        ("DELETE FROM backends WHERE id = 'a'", [("a", "row", None)]),
        ("DELETE FROM backends", [("a", "row", None), ("b", "row", None)]),
        (f"INSERT OR REPLACE INTO backends VALUES {ROW_A_MOVED}", [("a", {"port": 9001}, {"port": 9005})]),
        (f"REPLACE INTO backends VALUES {ROW_A}", []),
        (f"INSERT OR IGNORE INTO backends VALUES {ROW_A_MOVED}", []),
        (
            f"INSERT INTO backends VALUES {ROW_A} ON CONFLICT (id) DO UPDATE SET port = 7",
            [("a", {"port": 9001}, {"port": 7})],
        ),
        ("UPDATE backends SET id = 'z' WHERE id = 'a'", [("a", "row", None), ("z", None, "row")]),
        (
            "UPDATE OR REPLACE backends SET id = 'b' WHERE id = 'a'",
            [("a", "row", None), ("b", {"region": "us", "port": 9002}, {"region": "eu", "port": 9001})],
        ),
        ("BEGIN; UPDATE backends SET weight = 9; ROLLBACK", []),
        ("UPDATE backends SET id = NULL WHERE id = 'a'", [("a", "row", None)]),
        ("INSERT INTO backends (id) VALUES (NULL), (x'00')", []),
        ("UPDATE backends SET deleted = 1 WHERE id = 'a'", [("a", {"deleted": 0}, {"deleted": 1})]),
        ("VACUUM", []),
        ("REINDEX; ANALYZE", []),
    ],
)
def test_edit_with_the_shell_is_logged(
    store: SqliteStore, sql: str, logged: list[tuple[str, object, object]]
) -> None:
    shell(store.path, sql)
    expected = [("outside", *each) for each in logged]
    assert summary(changes(store)[2:]) == expected
    entries = tended(store)
    assert summary(entries[2:]) == expected
    assert [each.sequence for each in entries] == [*range(1, 1 + len(entries))]
    assert len(incarnations(entries)) == 1


def test_replace_in_a_shell_with_recursive_triggers_is_logged(store: SqliteStore) -> None:
    shell(store.path, f"PRAGMA recursive_triggers = 1; REPLACE INTO backends VALUES {ROW_A_MOVED}")
    assert summary(tended(store)[2:]) == [("outside", "a", "row", None), ("outside", "a", None, "row")]


def test_edit_through_an_attached_database_is_logged(store: SqliteStore, tmp_path: Path) -> None:
    shell(
        tmp_path / "other.db",
        f"{ORIGINAL_SCHEMA} INSERT INTO backends VALUES {ROW_A_MOVED}; ATTACH '{store.path}' AS live; "
        "REPLACE INTO live.backends SELECT * FROM main.backends",
    )
    assert summary(tended(store)[2:]) == [("outside", "a", {"port": 9001}, {"port": 9005})]


def test_values_of_any_type_are_logged_as_they_are(store: SqliteStore) -> None:
    shell(
        store.path,
        "UPDATE backends SET port = 'http', weight = 1.5, soft_limit = x'00ff', hard_limit = 9e999, "
        "app = CAST(x'ff41' AS TEXT) WHERE id = 'a'",
    )
    (change,) = tended(store)[2:]
    assert change.new is not None
    assert {**change.new} | {"port": "http", "weight": 1.5, "soft_limit": b"\0\xff"} == {**change.new}
    assert (change.new["hard_limit"], change.new["app"]) == (float("inf"), "\\xffA")


def test_edits_that_no_trigger_saw_are_found_by_the_difference(store: SqliteStore) -> None:
    with closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'backends'"
        triggers = connection.execute(query).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE backends SET weight = 8 WHERE id = 'b'")
        connection.execute("DELETE FROM backends WHERE id = 'a'")
        connection.execute("INSERT INTO backends (id) VALUES ('c')")
        for _, definition in triggers:
            connection.execute(definition)
    assert problems(store) == [f"backend '{each}' changed unseen by the log" for each in "abc"]
    assert sorted(summary(tended(store)[2:]), key=str) == [
        ("found", "a", "row", None),
        ("found", "b", {"weight": 2}, {"weight": 8}),
        ("found", "c", None, "row"),
    ]


def test_row_that_a_unique_key_of_the_users_own_removed_is_found(store: SqliteStore) -> None:
    shell(
        store.path,
        "CREATE UNIQUE INDEX place ON backends (wg_ip, port); "
        "REPLACE INTO backends (id, wg_ip, port) VALUES ('c', '127.0.0.1', 9001)",
    )
    assert summary(tended(store)[2:]) == [("outside", "c", None, "row"), ("found", "a", "row", None)]


def test_difference_is_logged_after_drop_and_create(store: SqliteStore) -> None:
    shell(
        store.path,
        f"DROP TABLE backends; {ORIGINAL_SCHEMA} INSERT INTO backends VALUES {ROW_A_MOVED}, "
        "('c', NULL, NULL, NULL, 1, 1, 1, 1, 1, 0)",
    )
    assert "is missing" in problems(store)[0]
    assert sorted(summary(tended(store)[2:]), key=str) == [
        ("found", "a", {"port": 9001}, {"port": 9005}),
        ("found", "b", "row", None),
        ("found", "c", None, "row"),
    ]
    shell(store.path, "UPDATE backends SET port = 1 WHERE id = 'a'")
    assert summary(changes(store)[5:]) == [("outside", "a", {"port": 9005}, {"port": 1})]


def test_difference_is_logged_before_our_own_write(store: SqliteStore) -> None:
    shell(store.path, "DROP TRIGGER edgeproxy_backends_update; UPDATE backends SET weight = 5 WHERE id = 'a'")
    shell(store.path, "DELETE FROM backends WHERE id = 'b'")
    store.apply(lambda _: RowChange("a", {"weight": 6}))
    assert summary(changes(store)[2:]) == [
        ("outside", "b", "row", None),
        ("found", "a", {"weight": 2}, {"weight": 5}),
        ("proxy", "a", {"weight": 5}, {"weight": 6}),
    ]
    assert problems(store) == []


def test_renamed_table_gives_its_triggers_to_the_one_in_its_place(store: SqliteStore) -> None:
    shell(
        store.path,
        f"ALTER TABLE backends RENAME TO old; {ORIGINAL_SCHEMA} INSERT INTO backends VALUES {ROW_A}",
    )
    assert summary(tended(store)[2:]) == [("found", "b", "row", None)]
    shell(store.path, "UPDATE old SET weight = 1; UPDATE backends SET weight = 5")
    assert summary(tended(store)[3:]) == [("outside", "a", {"weight": 2}, {"weight": 5})]


def test_added_column_country_is_logged_from_then_on(store: SqliteStore) -> None:
    shell(store.path, "ALTER TABLE backends ADD COLUMN country TEXT")
    shell(store.path, "UPDATE backends SET country = 'FR' WHERE id = 'a'")
    tended(store)
    shell(store.path, "UPDATE backends SET country = 'PT' WHERE id = 'a'")
    assert summary(changes(store))[-1] == ("outside", "a", {"country": "FR"}, {"country": "PT"})


def test_column_of_the_users_own_is_no_change(store: SqliteStore) -> None:
    shell(store.path, "ALTER TABLE backends ADD COLUMN note TEXT; UPDATE backends SET note = 'mine'")
    assert tended(store)[2:] == []


def test_rows_that_differ_only_in_case_are_two(path: Path) -> None:
    shell(path, "INSERT INTO backends (id) VALUES ('A')")
    store = open_store(path)
    tended(store)
    shell(path, "UPDATE backends SET weight = 9 WHERE id = 'A'")
    assert summary(tended(store)[3:]) == [("outside", "A", {"weight": None}, {"weight": 9})]


def test_column_that_takes_upper_and_lower_case_for_equal_is_logged(path: Path) -> None:
    schema = ORIGINAL_SCHEMA.replace("region TEXT", "region TEXT COLLATE NOCASE")
    shell(path, f"DROP TABLE backends; {schema} {TWO_ROWS}")
    store = open_store(path)
    tended(store)
    shell(path, "UPDATE backends SET region = 'EU' WHERE id = 'a'")
    assert summary(tended(store)[2:]) == [("outside", "a", {"region": "eu"}, {"region": "EU"})]


@pytest.mark.parametrize("table", LOG_TABLES)
def test_log_whose_table_was_dropped_begins_anew(store: SqliteStore, table: str) -> None:
    shell(store.path, f"DROP TABLE {table}")
    assert problems(store) == [f"the table {table} is missing"]
    shell(store.path, "DROP TRIGGER IF EXISTS edgeproxy_backends_update")
    tended(store)
    shell(store.path, "UPDATE backends SET weight = 9 WHERE id = 'a'")
    assert summary(tended(store))[-1] == ("outside", "a", {"weight": 2}, {"weight": 9})


def test_log_without_its_origin_gets_a_new_one(store: SqliteStore) -> None:
    shell(store.path, "DELETE FROM edgeproxy_log")
    assert problems(store) == ["edgeproxy_log is empty"]
    shell(store.path, "UPDATE backends SET weight = 9 WHERE id = 'a'")
    entries = tended(open_store(store.path))
    assert [(each.author, each.sequence) for each in entries] == [("found", 1), ("found", 2), ("outside", 1)]
    assert len(incarnations(entries)) == 2


# ---- our own writes ----------------------------------------------------------------------------------


def test_own_write_is_told_from_edits_before_and_after(store: SqliteStore) -> None:
    shell(store.path, "UPDATE backends SET weight = 5 WHERE id = 'a'")
    store.apply(lambda _: RowChange("a", {"weight": 6}))
    store.apply(lambda _: RowChange("c", {"port": 1}))
    shell(store.path, "UPDATE backends SET weight = 7 WHERE id = 'a'")
    entries = changes(store)[2:]
    assert summary(entries) == [
        ("outside", "a", {"weight": 2}, {"weight": 5}),
        ("proxy", "a", {"weight": 5}, {"weight": 6}),
        ("proxy", "c", None, "row"),
        ("outside", "a", {"weight": 6}, {"weight": 7}),
    ]
    assert [each.sequence for each in entries] == [3, 4, 5, None]
    assert [each.sequence for each in tended(store)] == [1, 2, 3, 4, 5, 6]


def test_processes_share_one_origin(store: SqliteStore) -> None:
    other = open_store(store.path, author="cli")
    other.apply(lambda _: RowChange("a", {"weight": 6}))
    store.apply(lambda _: RowChange("a", {"weight": 7}))
    other.apply(lambda _: RowChange("a", {"weight": 8}))
    entries = tended(store)
    assert [each.author for each in entries[2:]] == ["cli", "proxy", "cli"]
    assert [each.sequence for each in entries] == [1, 2, 3, 4, 5]
    assert len(incarnations(entries)) == 1


def test_write_that_fails_leaves_the_log_as_it_was(store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="has no column country"):
        store.apply(lambda _: RowChange("a", {"weight": 6, "country": "PT"}))
    assert len(tended(store)) == 2


def test_store_without_settings_for_the_log_writes_like_anybody_outside(store: SqliteStore) -> None:
    SqliteStore(store.path).apply(lambda _: RowChange("a", {"weight": 6}))
    assert summary(tended(store)[2:]) == [("outside", "a", {"weight": 2}, {"weight": 6})]


# ---- incarnations ------------------------------------------------------------------------------------


def test_copy_of_the_file_gets_a_new_incarnation(store: SqliteStore, tmp_path: Path) -> None:
    before = tended(store)
    copy = tmp_path / "copy.db"
    shutil.copy2(store.path, copy)
    shell(copy, "UPDATE backends SET weight = 9 WHERE id = 'a'")
    entries = tended(open_store(copy))
    assert entries[:2] == before
    assert summary(entries[2:]) == [("outside", "a", {"weight": 2}, {"weight": 9})]
    assert entries[2].sequence == 1
    assert len(incarnations(entries)) == 2
    assert tended(store) == before


def test_dump_read_into_a_new_file_gets_a_new_incarnation(store: SqliteStore, tmp_path: Path) -> None:
    before = tended(store)
    script = tmp_path / "dump.sql"
    script.write_text(shell(store.path, ".dump"))
    copy = tmp_path / "copy.db"
    shell(copy, f".read {script}")
    copied = open_store(copy)
    assert [each.id for each in tended(copied)] == [each.id for each in before]
    shell(copy, "UPDATE backends SET weight = 9 WHERE id = 'a'")
    assert len(incarnations(tended(copied))) == 2


def test_new_name_of_the_node_is_a_new_origin(store: SqliteStore) -> None:
    tended(store)
    renamed = open_store(store.path, node="pop-2")
    shell(store.path, "UPDATE backends SET weight = 9 WHERE id = 'a'")
    assert tended(renamed)[2].origin.startswith("pop-2/")  # type: ignore[union-attr]


def test_file_moved_in_place_is_logged_as_the_difference(store: SqliteStore, tmp_path: Path) -> None:
    tended(store)
    new = tmp_path / "new.db"
    shell(new, f"{ORIGINAL_SCHEMA} INSERT INTO backends VALUES {ROW_A_MOVED}")
    new.replace(store.path)
    entries = tended(store)
    assert sorted(summary(entries), key=str) == [
        ("found", "a", {"port": 9001}, {"port": 9005}),
        ("found", "b", "row", None),
    ]
    assert sorted(str(each.sequence) for each in entries) == ["1", "2"]
    assert shell(store.path, "PRAGMA integrity_check") == "ok"


def test_file_moved_in_place_before_a_start_is_logged_as_a_whole(store: SqliteStore, tmp_path: Path) -> None:
    tended(store)
    new = tmp_path / "new.db"
    shell(new, f"{ORIGINAL_SCHEMA} {TWO_ROWS}")
    new.replace(store.path)
    assert [each.author for each in tended(open_store(store.path))] == ["found", "found"]


def test_copy_moved_in_place_is_logged_as_the_difference(store: SqliteStore, tmp_path: Path) -> None:
    tended(store)
    copy = tmp_path / "copy.db"
    shutil.copy2(store.path, copy)
    shell(store.path, "UPDATE backends SET weight = 9, app = CAST(x'ff' AS TEXT) WHERE id = 'a'")
    live = tended(store)
    copy.replace(store.path)
    entries = tended(store)
    assert entries[:2] == live[:2]
    assert summary(entries[2:]) == [
        ("found", "a", {"app": "\\xff", "weight": 9}, {"app": "test", "weight": 2})
    ]
    assert len(incarnations(entries)) == 2


def test_file_that_went_back_in_place_is_a_new_incarnation(store: SqliteStore, tmp_path: Path) -> None:
    tended(store)
    copy = tmp_path / "copy.db"
    shell(store.path, f".backup {copy}")
    shell(store.path, "UPDATE backends SET weight = 9 WHERE id = 'a'")
    assert tended(store)[-1].sequence == 3
    shell(store.path, f".restore {copy}")
    entries = tended(store)
    assert summary(entries[2:]) == [("found", "a", {"weight": 9}, {"weight": 2})]
    assert len(incarnations(entries)) == 2
    assert entries[2].sequence == 1


# ---- bounds ------------------------------------------------------------------------------------------


def test_log_keeps_the_newest_entries(path: Path) -> None:
    store = open_store(path, max_changes=3)
    tended(store)
    for weight in range(10, 16):
        shell(path, f"UPDATE backends SET weight = {weight} WHERE id = 'a'")
    entries = tended(store)
    assert [each.new["weight"] for each in entries if each.new] == [13, 14, 15]
    assert [each.sequence for each in entries] == [6, 7, 8]
    shell(path, "UPDATE backends SET weight = 16 WHERE id = 'a'")
    assert tended(store)[-1].sequence == 9


def test_old_entries_are_dropped_and_numbers_go_on(path: Path) -> None:
    store = open_store(path)
    tended(store)
    shell(path, "UPDATE backends SET weight = 8 WHERE id = 'a'")
    shell(path, "UPDATE edgeproxy_changes SET at = '2001-01-01T00:00:00.000Z' WHERE change < 3")
    assert [each.sequence for each in tended(store)] == [3]
    shell(
        path,
        "UPDATE edgeproxy_changes SET at = '2001-01-01T00:00:00.000Z'; DELETE FROM backends WHERE id = 'b'",
    )
    assert [each.sequence for each in tended(store)] == [4]
    shell(path, "DELETE FROM backends; UPDATE edgeproxy_changes SET at = '2001-01-01T00:00:00.000Z'")
    assert tended(store) == []
    shell(path, "INSERT INTO backends (id) VALUES ('c')")
    assert [each.sequence for each in tended(store)] == [6]


def test_entry_that_seems_old_between_young_ones_is_kept(path: Path) -> None:
    store = open_store(path)
    tended(store)
    shell(path, "UPDATE edgeproxy_changes SET at = '2001-01-01T00:00:00.000Z' WHERE change = 2")
    assert [each.sequence for each in tended(store)] == [1, 2]


def test_changes_are_told_since_a_time_and_at_most_so_many(store: SqliteStore) -> None:
    shell(store.path, "UPDATE edgeproxy_changes SET at = '2026-01-02T03:04:05.678Z' WHERE id = 'a'")
    for weight in range(5):
        shell(store.path, f"UPDATE backends SET weight = {weight + 5} WHERE id = 'a'")
    assert [each.number for each in store.changes("", 2)] == [6, 7]
    assert [each.number for each in store.changes("2026-01-02T03:04:05.679Z", 3)] == [5, 6, 7]
    assert [each.number for each in store.changes("2026-01-02T03:04:05.678Z", 100)] == [1, 2, 3, 4, 5, 6, 7]
    assert [*store.changes("9999", 100)] == []


# ---- a log that somebody altered ---------------------------------------------------------------------


def test_altered_entry_is_named(store: SqliteStore) -> None:
    shell(store.path, "UPDATE edgeproxy_changes SET new = 'nonsense' WHERE change = 2")
    with pytest.raises(StoreError, match=r"entry 2 of the change log was altered: no row of the change log"):
        changes(store)


def test_trigger_that_is_not_ours_is_named_and_replaced(store: SqliteStore) -> None:
    shell(
        store.path,
        "DROP TRIGGER edgeproxy_rows_insert; "
        "CREATE TRIGGER edgeproxy_rows_insert AFTER INSERT ON edgeproxy_rows BEGIN SELECT 1; END",
    )
    assert problems(store) == [
        "the trigger edgeproxy_rows_insert differs from ours; edits are noticed only by comparing rows"
    ]
    shell(store.path, "INSERT INTO backends (id) VALUES ('unseen')")
    tended(store)
    shell(store.path, "INSERT INTO backends (id) VALUES ('seen')")
    assert summary(changes(store)[2:]) == [("outside", "seen", None, "row")]


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM edgeproxy_changes WHERE sequence = 2", GAPS),
        ("UPDATE edgeproxy_changes SET sequence = 1 WHERE sequence = 2", GAPS),
        ("DELETE FROM edgeproxy_changes WHERE sequence = 3", "the last number of origin {} is 2, not 3"),
    ],
)
def test_numbers_that_do_not_fit_are_named(store: SqliteStore, sql: str, problem: str) -> None:
    shell(store.path, "UPDATE backends SET weight = 9 WHERE id = 'a'")
    (origin,) = incarnations(tended(store))
    shell(store.path, sql)
    assert problems(store) == [problem.format(origin)]


def test_entry_without_an_origin_among_numbered_ones_is_named(store: SqliteStore) -> None:
    shell(store.path, "UPDATE edgeproxy_changes SET origin = NULL WHERE sequence = 1")
    assert "the numbers of origin None have gaps or repeat" in problems(store)


def test_changes_of_our_own_processes_are_bounded_too(path: Path) -> None:
    store = open_store(path, max_changes=3)
    tended(store)
    other = open_store(path, author="api")
    for weight in range(10, 16):
        other.apply(lambda _, weight=weight: RowChange("a", {"weight": weight}))  # type: ignore[misc]
    assert [each.new["weight"] for each in tended(store) if each.new] == [13, 14, 15]
