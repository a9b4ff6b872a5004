"""Real files, edited by the real ``sqlite3`` program and by other connections while a store polls."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.outbound import store_sqlite
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import Row, RowChange
from packages.proxy.tests.integration.outbound.sqlite_files import (
    GUIDE,
    GUIDE_IDS,
    ORIGINAL_SCHEMA,
    SCHEMA_WITHOUT_KEY,
    execute,
    make,
    message_of,
    polled,
    settled,
    shell,
)

pytestmark = pytest.mark.usefixtures("short_waits")


# ---- reading ---------------------------------------------------------------------------------------


def test_first_poll_returns_every_row_with_its_columns(path: Path) -> None:
    rows = SqliteStore(make(path)).poll()
    assert rows is not None
    assert [row["id"] for row in rows] == GUIDE_IDS
    assert rows[2] == {
        "id": "mock-us-1",
        "app": "test",
        "region": "us",
        "wg_ip": "127.0.0.1",
        "port": 9003,
        "healthy": 1,
        "weight": 2,
        "soft_limit": 100,
        "hard_limit": 150,
    }


def test_table_with_a_country_column_is_read_with_it(path: Path) -> None:
    make(path)
    execute(path, "ALTER TABLE backends ADD COLUMN country TEXT; UPDATE backends SET country = 'PT'")
    assert {row["country"] for row in SqliteStore(path).poll() or ()} == {"PT"}


def test_column_names_in_another_case_are_known(path: Path) -> None:
    make(path, schema=ORIGINAL_SCHEMA.upper())
    assert [row["wg_ip"] for row in SqliteStore(path).poll() or ()] == ["127.0.0.1"] * 3


def test_removed_rows_are_left_out(path: Path) -> None:
    make(path)
    execute(path, "UPDATE backends SET deleted = 1 WHERE id = 'mock-eu-1'")
    execute(path, "UPDATE backends SET deleted = NULL WHERE id = 'mock-eu-2'")
    assert [*polled(SqliteStore(path))] == ["mock-eu-2", "mock-us-1"]


def test_values_of_any_type_are_handed_on_as_they_are(path: Path) -> None:
    make(path)
    execute(
        path,
        """
        UPDATE backends SET port = NULL, weight = 'heavy', soft_limit = 1.5, hard_limit = x'00',
        app = CAST(x'ff41' AS TEXT) WHERE id = 'mock-eu-1'
        """,
    )
    rows = polled(SqliteStore(path))
    bad = rows["mock-eu-1"]
    assert (bad["port"], bad["weight"], bad["soft_limit"], bad["hard_limit"], bad["app"]) == (
        *(None, "heavy", 1.5, b"\0"),
        b"\xffA",
    )
    assert rows["mock-eu-2"]["app"] == "test"


def test_reading_neither_changes_the_journal_mode_nor_leaves_files(path: Path, journal_mode: str) -> None:
    make(path, journal_mode)
    before = path.read_bytes()
    SqliteStore(path).poll()
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["routing.db"]


def test_path_with_characters_that_mean_something_in_a_uri_is_read(tmp_path: Path) -> None:
    path = make(tmp_path / "a b?c#d%20.db")
    assert [*polled(SqliteStore(path))] == GUIDE_IDS


# ---- edits by hand -----------------------------------------------------------------------------------


@pytest.mark.feature("table.sqlite")
def test_edits_with_the_shell_are_seen(path: Path, journal_mode: str) -> None:
    SqliteStore.create(path)
    shell(path, f"PRAGMA journal_mode = {journal_mode}")
    store = settled(SqliteStore(path))
    shell(path, GUIDE)
    assert [*polled(store)] == GUIDE_IDS
    settled(store)
    shell(path, "UPDATE backends SET healthy=0 WHERE id='mock-eu-1'")
    assert [row["healthy"] for row in polled(store).values()] == [0, 1, 1]
    settled(store)
    shell(path, "INSERT OR REPLACE INTO backends VALUES ('mock-eu-1','x','eu',NULL,'::1',1,1,1,1,1,0)")
    assert polled(store)["mock-eu-1"]["app"] == "x"
    settled(store)
    shell(path, "UPDATE backends SET id='mock-eu-7' WHERE id='mock-eu-2'")
    assert set(polled(store)) == {"mock-eu-1", "mock-eu-7", "mock-us-1"}
    settled(store)
    shell(path, GUIDE)
    assert set(polled(store)) == {*GUIDE_IDS}
    settled(store)
    shell(path, "DELETE FROM backends")
    assert polled(store) == {}


def test_edit_by_a_connection_that_stays_open_is_seen(path: Path, journal_mode: str) -> None:
    make(path, journal_mode)
    with closing(sqlite3.connect(path, isolation_level=None)) as editor:
        editor.execute("SELECT * FROM backends").fetchall()
        store = settled(SqliteStore(path))
        editor.execute("UPDATE backends SET weight = 9")
        assert {row["weight"] for row in polled(store).values()} == {9}
        settled(store)
        editor.execute("UPDATE backends SET weight = 8")
        assert {row["weight"] for row in polled(store).values()} == {8}


def test_edit_in_an_open_transaction_is_seen_when_it_is_committed(path: Path, journal_mode: str) -> None:
    make(path, journal_mode)
    with closing(sqlite3.connect(path, isolation_level=None)) as editor:
        store = settled(SqliteStore(path))
        editor.execute("BEGIN IMMEDIATE")
        editor.execute("UPDATE backends SET weight = 9")
        assert store.poll() is None
        editor.execute("COMMIT")
        assert {row["weight"] for row in polled(store).values()} == {9}


def test_second_edit_that_leaves_the_stamp_alone_is_seen_while_the_file_is_young(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_sqlite, "STAMP_GRANULARITY_S", 60.0)
    monkeypatch.setattr(store_sqlite, "_identity", lambda *_: ())
    store = SqliteStore(make(path))
    store.poll()
    execute(path, "UPDATE backends SET weight = 9")
    assert {row["weight"] for row in store.poll() or ()} == {9}


def test_reading_a_write_ahead_log_leaves_the_stamp_alone(path: Path) -> None:
    make(path, "wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as editor:
        editor.execute("UPDATE backends SET weight = 9")
        before = store_sqlite._Stamp.of(path)
        assert before.log
        SqliteStore(path).poll()
        after = store_sqlite._Stamp.of(path)
    assert (after.file, after.log) == (before.file, before.log)


def test_touched_file_is_no_edit(path: Path) -> None:
    store = settled(SqliteStore(make(path)))
    path.touch()
    assert store.poll() is None


def test_file_that_did_not_change_is_not_even_opened(path: Path) -> None:
    store = settled(SqliteStore(make(path)))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert store.poll() is None


def test_table_dropped_and_made_again_is_read(path: Path, journal_mode: str) -> None:
    store = settled(SqliteStore(make(path, journal_mode)))
    execute(path, "DROP TABLE backends")
    assert "has no table backends" in message_of(store.poll)
    execute(path, f"{ORIGINAL_SCHEMA} ALTER TABLE backends ADD COLUMN country TEXT; {GUIDE}")
    execute(path, "UPDATE backends SET country = 'FR'")
    assert {row["country"] for row in polled(store).values()} == {"FR"}


def test_table_without_a_key_is_read_with_its_repeated_ids(path: Path) -> None:
    make(path, schema=SCHEMA_WITHOUT_KEY)
    execute(path, "INSERT INTO backends SELECT * FROM backends WHERE id = 'mock-eu-1'")
    assert [row["id"] for row in SqliteStore(path).poll() or ()] == [*GUIDE_IDS, "mock-eu-1"]


@pytest.mark.parametrize("new_mode", ["delete", "wal"])
def test_file_moved_over_the_old_one_is_read_and_stays_intact(
    path: Path, journal_mode: str, new_mode: str
) -> None:
    store = settled(SqliteStore(make(path, journal_mode)))
    shell(path, "UPDATE backends SET weight = 7")
    assert {row["weight"] for row in polled(store).values()} == {7}
    other = make(path.with_name("new.db"), new_mode, "CREATE TABLE notes (n);" + ORIGINAL_SCHEMA)
    execute(other, "UPDATE backends SET weight = 9")
    other.replace(path)
    assert {row["weight"] for row in polled(store).values()} == {9}
    assert shell(path, "PRAGMA integrity_check; SELECT DISTINCT weight FROM backends") == "ok\n9"


def test_file_overwritten_in_place_with_its_times_kept_is_read(path: Path) -> None:
    make(path)
    other = path.with_name("other.db")
    shutil.copy2(path, other)
    execute(path, "UPDATE backends SET weight = 8")
    execute(other, "UPDATE backends SET weight = 9")
    store = settled(SqliteStore(path))
    status = path.stat()
    shutil.copyfile(other, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert {row["weight"] for row in polled(store).values()} == {9}


def test_deleted_file_is_an_error_until_it_is_back(path: Path) -> None:
    store = settled(SqliteStore(make(path)))
    path.unlink()
    assert "does not exist" in message_of(store.poll)
    assert not path.exists()
    make(path)
    assert store.poll() is None
    path.unlink()
    make(path)
    execute(path, "UPDATE backends SET weight = 9")
    assert {row["weight"] for row in polled(store).values()} == {9}


def test_edits_beside_the_target_of_a_symbolic_link_are_seen(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = make(tmp_path / "elsewhere" / "target.db", "wal")
    path.symlink_to(target)
    with closing(sqlite3.connect(target, isolation_level=None)) as editor:
        editor.execute("SELECT * FROM backends").fetchall()
        store = settled(SqliteStore(path))
        editor.execute("UPDATE backends SET weight = 9")
        assert {row["weight"] for row in polled(store).values()} == {9}


def test_journal_mode_can_be_changed_while_a_store_polls(path: Path) -> None:
    store = settled(SqliteStore(make(path, "wal")))
    assert shell(path, "PRAGMA journal_mode = DELETE") == "delete"
    assert store.poll() is None
    assert shell(path, "PRAGMA journal_mode = WAL") == "wal"
    assert store.poll() is None


# ---- writing -------------------------------------------------------------------------------------


def rows_of(path: Path) -> dict[object, Mapping[str, object]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return {row["id"]: dict(row) for row in connection.execute("SELECT * FROM backends")}


def test_change_of_a_row_leaves_its_other_columns_alone(path: Path, journal_mode: str) -> None:
    make(path, journal_mode)
    execute(path, "ALTER TABLE backends ADD COLUMN note TEXT; UPDATE backends SET note = 'mine'")
    before = rows_of(path)["mock-eu-1"]
    store = settled(SqliteStore(path))
    change = RowChange("mock-eu-1", {"weight": 9, "healthy": 0})
    assert store.apply(lambda _: change) is change
    assert rows_of(path)["mock-eu-1"] == {**before, "weight": 9, "healthy": 0}
    assert polled(store)["mock-eu-1"]["weight"] == 9


def test_change_of_an_unknown_id_makes_a_row(path: Path) -> None:
    store = SqliteStore(make(path))
    store.apply(lambda _: RowChange("new", {"app": "x", "port": 5, "deleted": 0, "country": None}))
    row = rows_of(path)["new"]
    assert (row["app"], row["port"], row["deleted"], row["weight"]) == ("x", 5, 0, None)


def test_country_is_refused_where_the_table_has_no_such_column(path: Path) -> None:
    store = SqliteStore(make(path))
    told = message_of(lambda: store.apply(lambda _: RowChange("mock-eu-1", {"country": "PT"})))
    assert told.endswith("ALTER TABLE backends ADD COLUMN country TEXT")
    execute(path, "ALTER TABLE backends ADD COLUMN country TEXT")
    store.apply(lambda _: RowChange("mock-eu-1", {"country": "PT"}))
    assert rows_of(path)["mock-eu-1"]["country"] == "PT"


def test_operation_sees_every_row_by_its_id(path: Path) -> None:
    make(path)
    execute(path, "UPDATE backends SET deleted = 1 WHERE id = 'mock-eu-1'")
    execute(path, "INSERT INTO backends (id) VALUES (NULL), (x'00')")
    seen: list[Sequence[object]] = []

    def look(table: Mapping[str, Row]) -> None:
        seen.append([*table])
        seen.append([len(table), table["mock-eu-1"]["deleted"], table["mock-eu-2"]["deleted"]])
        seen.append([table.get("nobody"), table.get("\udcff")])

    assert SqliteStore(path).apply(look) is None
    assert seen == [GUIDE_IDS, [3, 1, 0], [None, None]]


def test_operation_that_fails_or_decides_against_it_writes_nothing(path: Path) -> None:
    make(path)
    before = path.read_bytes()

    def fail(table: Mapping[str, Row]) -> RowChange:
        raise ValueError("on purpose")

    store = SqliteStore(path)
    with pytest.raises(ValueError, match="on purpose"):
        store.apply(fail)
    assert store.apply(lambda _: "no") == "no"
    assert path.read_bytes() == before


def test_no_other_writer_comes_between_what_an_operation_sees_and_writes(path: Path) -> None:
    make(path)

    def decide(table: Mapping[str, Row]) -> RowChange:
        other = sqlite3.connect(path, timeout=0)
        with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("UPDATE backends SET weight = 5")
        return RowChange("mock-eu-1", {"weight": 9})

    SqliteStore(path).apply(decide)
    assert rows_of(path)["mock-eu-1"]["weight"] == 9


def test_missing_file_cannot_be_written(path: Path) -> None:
    assert "does not exist" in message_of(lambda: SqliteStore(path).apply(lambda _: None))
    assert not path.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_file_moved_in_place_while_we_write_stays_intact(path: Path, journal_mode: str, fails: bool) -> None:
    make(path, journal_mode)
    new = make(path.with_name("new.db"), "delete", "CREATE TABLE notes (n);" + ORIGINAL_SCHEMA)
    execute(new, "UPDATE backends SET weight = 9")

    def move(_: Mapping[str, Row]) -> RowChange:
        new.replace(path)
        return RowChange("mock-eu-1", {"country": "PT"} if fails else {"weight": 5})

    # With a write-ahead log the write succeeds, on a file that has no name any more.
    told = "no column country" if fails else "was replaced by another file while it was in use"
    with pytest.raises(StoreError, match=told) if fails or journal_mode == "delete" else nullcontext():
        SqliteStore(path).apply(move)
    assert shell(path, "PRAGMA integrity_check; SELECT DISTINCT weight FROM backends") == "ok\n9"


def test_log_that_was_moved_in_place_with_its_file_is_left_alone(path: Path) -> None:
    make(path, "wal")
    new = make(path.with_name("new.db"), "wal")
    with closing(sqlite3.connect(new, isolation_level=None)) as editor:
        editor.execute("UPDATE backends SET weight = 9")

        def move(_: Mapping[str, Row]) -> RowChange:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{new}{suffix}").replace(f"{path}{suffix}")
            return RowChange("mock-eu-1", {"weight": 5})

        with suppress(StoreError):
            SqliteStore(path).apply(move)
        assert shell(path, "PRAGMA integrity_check; SELECT DISTINCT weight FROM backends") == "ok\n9"


# ---- making a database -----------------------------------------------------------------------------


def test_created_database_is_empty_in_write_ahead_mode_and_takes_the_originals_sql(path: Path) -> None:
    SqliteStore.create(path)
    assert SqliteStore(path).poll() == []
    execute(path, GUIDE)
    assert [*polled(SqliteStore(path))] == GUIDE_IDS
    assert [*path.parent.iterdir()] == [path]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT DISTINCT deleted, country FROM backends").fetchall() == [(0, None)]


def test_existing_file_is_not_overwritten(path: Path) -> None:
    path.write_text("precious")
    assert f"{path} exists already" in message_of(lambda: SqliteStore.create(path))
    assert path.read_text() == "precious"


def test_database_cannot_be_made_where_nothing_can(path: Path) -> None:
    told = message_of(lambda: SqliteStore.create(path.parent / "missing" / "routing.db"))
    assert told.endswith(f"there is no directory {path.parent / 'missing'}")
    path.touch()
    told = message_of(lambda: SqliteStore.create(path / "routing.db"))
    assert told == f"{path / 'routing.db'} cannot be made: Not a directory"


def test_database_that_could_not_be_completed_is_taken_away(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        told = message_of(lambda: SqliteStore.create(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"{path} cannot be used: " in told
    assert [*path.parent.iterdir()] == []
