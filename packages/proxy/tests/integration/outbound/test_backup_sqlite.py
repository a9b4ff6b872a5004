"""Backups of real files: taken under writes, looked through, put in the place of files in any state."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edgeproxy.errors import DamagedStoreError, StoreError
from edgeproxy.outbound import sqlite_file
from edgeproxy.outbound.backup_sqlite import Restored, back_up, restore
from edgeproxy.outbound.change_log_sqlite import LogSettings
from edgeproxy.outbound.integrity_sqlite import check_quickly, look_through
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import RowChange

SCHEMA = """
    CREATE TABLE backends (id TEXT PRIMARY KEY, app TEXT, region TEXT, wg_ip TEXT, port INTEGER,
    healthy INTEGER, weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER DEFAULT 0);
"""
TWO_ROWS = """
    INSERT INTO backends VALUES ('a', 'test', 'eu', '127.0.0.1', 9001, 1, 2, 100, 150, 0);
    INSERT INTO backends VALUES ('b', 'test', 'us', '127.0.0.1', 9002, 1, 2, 100, 150, 0);
"""
WITHOUT_KEY = """
    CREATE TABLE copy AS SELECT * FROM backends;
    DROP TABLE backends;
    ALTER TABLE copy RENAME TO backends;
"""
MANY_ROWS = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO backends SELECT 'b' || i, 'test', 'eu', '10.0.0.1', 1, 1, 1, 1, 1, 0 FROM n;
"""


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.05)


@pytest.fixture(params=["delete", "wal"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> SqliteStore:
    """A store with two rows and a log, in both journal modes."""
    return make(tmp_path / "routing.db", request.param)


def make(path: Path, journal_mode: str = "delete", rows: str = TWO_ROWS) -> SqliteStore:
    execute(path, f"PRAGMA journal_mode = {journal_mode}; {SCHEMA} {rows}")
    store = as_author("proxy", path)
    store.tend()
    return store


def as_author(author: str, path: Path) -> SqliteStore:
    return SqliteStore(path, LogSettings(author, node="pop-1", max_changes=10_000, max_age_s=3600.0))


def execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(sql)


def select(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def rows(path: Path) -> list[tuple[object, ...]]:
    return select(path, "SELECT * FROM backends ORDER BY id")


def logged(store: SqliteStore) -> list[tuple[str, str]]:
    return [(each.author, each.id) for each in store.changes("", 10_000)]


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def overwrite_pages(path: Path) -> None:
    """Lose all pages but the first two, as with a failing disk."""
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))


def miscount_pages(path: Path) -> None:
    """Have the header count free pages that do not exist, which only a check of the whole file notices."""
    content = bytearray(path.read_bytes())
    content[36:40] = (7).to_bytes(4, "big")
    path.write_bytes(content)


# ---- backing up --------------------------------------------------------------------------------------


def test_backup_is_a_whole_database_in_one_file(store: SqliteStore, tmp_path: Path) -> None:
    target = tmp_path / "backups" / "one.db"
    target.parent.mkdir()
    back_up(store, target)
    assert names(target.parent) == {"one.db"}
    assert rows(target) == rows(store.path)
    assert select(target, "PRAGMA journal_mode") == select(store.path, "PRAGMA journal_mode")
    assert target.stat().st_mode == store.path.stat().st_mode
    assert look_through(SqliteStore(target)) == ([], [])


def test_database_without_a_log_is_backed_up_without_one(tmp_path: Path) -> None:
    execute(tmp_path / "routing.db", f"{SCHEMA} {TWO_ROWS}")
    back_up(SqliteStore(tmp_path / "routing.db"), tmp_path / "backup.db")
    assert select(tmp_path / "backup.db", "SELECT name FROM sqlite_master WHERE type = 'table'") == [
        ("backends",)
    ]


def test_backup_has_what_is_still_in_the_write_ahead_log(tmp_path: Path) -> None:
    store = make(tmp_path / "routing.db", "wal")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as editor:
        editor.execute("UPDATE backends SET weight = 9")
        assert store.path.with_name("routing.db-wal").stat().st_size
        back_up(store, tmp_path / "backup.db")
    assert select(tmp_path / "backup.db", "SELECT DISTINCT weight FROM backends") == [(9,)]


def test_backup_has_the_permissions_and_owner_of_the_database(store: SqliteStore, tmp_path: Path) -> None:
    store.path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(store.path, 1234, 4321)
    target = tmp_path / "backup.db"
    back_up(store, target)
    status, expected = target.stat(), store.path.stat()
    assert (status.st_mode, status.st_uid, status.st_gid) == (
        *(expected.st_mode, expected.st_uid, expected.st_gid),
    )


@pytest.mark.feature("table.backup")
def test_backup_under_writes_is_one_moment(tmp_path: Path) -> None:
    store = make(tmp_path / "routing.db", "wal", MANY_ROWS)
    stop = threading.Event()
    rounds = 0

    def write() -> None:
        nonlocal rounds
        with closing(sqlite3.connect(store.path, isolation_level=None, timeout=30)) as editor:
            while not stop.is_set():
                rounds += 1
                editor.execute("UPDATE backends SET weight = ?", (rounds % 200,))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            back_up(store, tmp_path / f"{number}.db")
    finally:
        stop.set()
        writer.join()
    assert rounds
    for number in range(5):
        assert len(select(tmp_path / f"{number}.db", "SELECT DISTINCT weight FROM backends")) == 1
        assert look_through(SqliteStore(tmp_path / f"{number}.db")) == ([], [])


def test_existing_file_is_not_overwritten(store: SqliteStore, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    target.write_text("precious")
    with pytest.raises(StoreError, match=r"backup.db exists already and was left as it is"):
        back_up(store, target)
    assert target.read_text() == "precious"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="exists already"):
        back_up(store, dangling)


def test_file_that_appears_meanwhile_is_not_overwritten(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "backups" / "backup.db"
    target.parent.mkdir()
    sync = os.fsync

    def appear(handle: int) -> None:
        target.write_text("precious")
        sync(handle)

    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(StoreError, match="exists already"):
        back_up(store, target)
    assert target.read_text() == "precious"
    assert names(target.parent) == {"backup.db"}


def test_backup_that_cannot_be_written_names_the_place(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing/backup.db cannot be written: No such file or directory"):
        back_up(store, tmp_path / "missing" / "backup.db")


def test_damaged_database_is_not_backed_up(tmp_path: Path) -> None:
    store = make(tmp_path / "routing.db", rows=MANY_ROWS)
    (tmp_path / "backups").mkdir()
    overwrite_pages(store.path)
    with pytest.raises(DamagedStoreError, match=r"routing.db is damaged"):
        back_up(store, tmp_path / "backups" / "one.db")
    assert names(tmp_path / "backups") == set()


def test_backup_put_in_place_by_hand_is_a_new_incarnation(store: SqliteStore, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    back_up(store, target)
    (before,) = {each.origin for each in store.changes("", 10)}
    store.path.write_bytes(target.read_bytes())
    as_author("cli", store.path).apply(lambda _: RowChange("a", {"weight": 9}))
    assert {each.origin for each in store.changes("", 10)} > {before}


# ---- looking through ---------------------------------------------------------------------------------


def test_damaged_file_is_told_with_where_it_is_damaged(tmp_path: Path) -> None:
    store = make(tmp_path / "routing.db", rows=MANY_ROWS)
    assert look_through(store) == ([], [])
    miscount_pages(store.path)
    assert look_through(store).damages
    with pytest.raises(DamagedStoreError, match=r"routing.db is damaged \(.+\); `edgeproxy db verify`"):
        check_quickly(store, 60)


def test_sound_file_passes_the_quick_check(store: SqliteStore) -> None:
    check_quickly(store, 60)


def test_quick_check_that_takes_too_long_passes(tmp_path: Path) -> None:
    store = make(tmp_path / "routing.db")
    execute(
        store.path,
        "CREATE TABLE big AS "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) "
        "SELECT i, hex(i) AS h FROM n; CREATE INDEX by_h ON big (h)",
    )
    check_quickly(store, 0.001)


def test_locked_file_cannot_be_checked(tmp_path: Path) -> None:
    store = make(tmp_path / "routing.db")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="is locked"):
            check_quickly(store, 60)


def test_error_of_the_quick_check_itself_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path / "routing.db")

    @contextmanager
    def reading() -> Iterator[sqlite3.Connection]:
        with SqliteStore(store.path).reading() as connection:
            connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
            yield connection

    monkeypatch.setattr(store, "reading", reading)
    with pytest.raises(StoreError, match="cannot be used: not authorized"):
        check_quickly(store, 60)


# ---- restoring ---------------------------------------------------------------------------------------


def test_restored_rows_are_new_changes_of_the_same_log(store: SqliteStore, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    back_up(store, backup)
    execute(
        store.path,
        "UPDATE backends SET weight = 9, app = NULL WHERE id = 'a'; DELETE FROM backends WHERE id = 'b'; "
        "INSERT INTO backends (id) VALUES ('c')",
    )
    before = store.changes("", 100)
    assert restore(as_author("restore", store.path), SqliteStore(backup)) == Restored(1, 1, 1, None)
    assert rows(store.path) == rows(backup)
    after = store.changes("", 100)
    assert [each.number for each in after[: len(before)]] == [each.number for each in before]
    assert sorted(logged(store)[len(before) :]) == [("restore", "a"), ("restore", "b"), ("restore", "c")]
    assert [each.sequence for each in after] == [*range(1, 1 + len(after))]
    assert len({each.origin for each in after}) == 1
    assert look_through(store) == ([], [])


def test_open_shell_sees_the_restored_rows_and_can_go_on_writing(store: SqliteStore, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    back_up(store, backup)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as editor:
        editor.execute("UPDATE backends SET weight = 9")
        restore(store, SqliteStore(backup))
        assert editor.execute("SELECT DISTINCT weight FROM backends").fetchall() == [(2,)]
        editor.execute("UPDATE backends SET weight = 8")
    assert select(store.path, "PRAGMA integrity_check; ") == [("ok",)]


def test_restoring_what_is_there_already_changes_nothing(store: SqliteStore, tmp_path: Path) -> None:
    back_up(store, tmp_path / "backup.db")
    before = logged(store)
    assert restore(store, SqliteStore(tmp_path / "backup.db")) == Restored(0, 0, 0, None)
    assert logged(store) == before


def test_other_tables_and_columns_of_the_user_stay(store: SqliteStore, tmp_path: Path) -> None:
    back_up(store, tmp_path / "backup.db")
    execute(
        store.path,
        "CREATE TABLE notes (n); INSERT INTO notes VALUES (1); ALTER TABLE backends ADD COLUMN note TEXT; "
        "UPDATE backends SET note = 'mine', weight = 9",
    )
    restore(store, SqliteStore(tmp_path / "backup.db"))
    assert select(store.path, "SELECT n FROM notes") == [(1,)]
    assert select(store.path, "SELECT DISTINCT note, weight FROM backends") == [("mine", 2)]


def test_columns_that_only_the_backup_has_are_added(store: SqliteStore, tmp_path: Path) -> None:
    backup = make(tmp_path / "backup.db")
    execute(
        backup.path,
        'ALTER TABLE backends ADD COLUMN country TEXT; ALTER TABLE backends ADD COLUMN "my ""note" INTEGER; '
        "UPDATE backends SET country = 'PT', \"my \"\"note\" = '7'",
    )
    assert restore(store, backup) == Restored(0, 2, 0, None)
    assert select(store.path, 'SELECT DISTINCT country, "my ""note" FROM backends') == [("PT", 7)]
    assert look_through(store).log == []


def test_table_that_was_dropped_comes_back(store: SqliteStore, tmp_path: Path) -> None:
    back_up(store, tmp_path / "backup.db")
    before = rows(store.path)
    execute(store.path, "DROP TABLE backends")
    assert restore(store, SqliteStore(tmp_path / "backup.db")) == Restored(2, 0, 0, None)
    assert rows(store.path) == before
    assert select(store.path, "PRAGMA index_list(backends)")
    assert look_through(store) == ([], [])


def test_rows_without_a_key_are_restored_too(store: SqliteStore, tmp_path: Path) -> None:
    backup = make(tmp_path / "backup.db")
    execute(
        backup.path,
        f"{WITHOUT_KEY} INSERT INTO backends SELECT * FROM backends; "
        "INSERT INTO backends (id, port) VALUES (NULL, 1), (NULL, 2), (x'00', 3)",
    )
    execute(store.path, f"{WITHOUT_KEY} INSERT INTO backends (id, port) VALUES (NULL, 1), ('z', 5), ('z', 6)")
    assert restore(store, backup) == Restored(7, 0, 5, None)
    assert rows(store.path) == rows(backup.path)
    assert restore(store, backup) == Restored(0, 0, 0, None)


def test_missing_database_is_made_of_the_backup(store: SqliteStore, tmp_path: Path) -> None:
    back_up(store, tmp_path / "backup.db")
    target = as_author("restore", tmp_path / "new" / "routing.db")
    target.path.parent.mkdir()
    # What an old file left must not be taken for part of the new one.
    target.path.with_name("routing.db-wal").write_bytes(b"old")
    assert restore(target, SqliteStore(tmp_path / "backup.db")) == Restored(2, 0, 0, None)
    assert rows(target.path) == rows(store.path)
    assert look_through(target) == ([], [])
    assert not target.path.with_name("routing.db-wal").exists()
    target.tend()
    assert logged(target) == logged(store)


@pytest.mark.parametrize("how", ["overwritten", "text", "miscounted"])
def test_damaged_database_is_kept_aside_and_replaced(tmp_path: Path, how: str) -> None:
    store = make(tmp_path / "routing.db", rows=MANY_ROWS)
    back_up(store, tmp_path / "backup.db")
    if how == "overwritten":
        overwrite_pages(store.path)
    elif how == "text":
        store.path.write_text("no database at all")
    else:
        miscount_pages(store.path)
    content = store.path.read_bytes()
    store.path.chmod(0o604)
    outcome = restore(store, SqliteStore(tmp_path / "backup.db"))
    assert outcome.damaged is not None
    assert outcome.damaged.name.startswith("routing.db.damaged-")
    assert outcome.damaged.read_bytes() == content
    assert outcome == Restored(2000, 0, 0, outcome.damaged)
    assert rows(store.path) == rows(tmp_path / "backup.db")
    assert store.path.stat().st_mode & 0o777 == 0o604


def test_link_to_a_damaged_database_stays_a_link(tmp_path: Path) -> None:
    real = make(tmp_path / "real.db")
    back_up(real, tmp_path / "backup.db")
    real.path.write_text("no database at all")
    link = tmp_path / "routing.db"
    link.symlink_to(real.path)
    outcome = restore(SqliteStore(link), SqliteStore(tmp_path / "backup.db"))
    assert outcome.damaged is not None
    assert outcome.damaged.parent == tmp_path
    assert link.is_symlink()
    assert len(rows(link)) == 2


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        act()
    (line,) = str(caught.value).splitlines()
    return line


def test_backup_that_cannot_be_used_changes_nothing(store: SqliteStore, tmp_path: Path) -> None:
    before = store.path.read_bytes()
    broken = make(tmp_path / "broken.db", rows=MANY_ROWS)
    overwrite_pages(broken.path)
    text, empty = tmp_path / "text.db", tmp_path / "empty.db"
    text.write_text("no database at all")
    empty.touch()
    miscounted = make(tmp_path / "miscounted.db")
    miscount_pages(miscounted.path)
    for backup, told in (
        (tmp_path / "missing.db", "missing.db does not exist; name a file that `edgeproxy db backup` made"),
        (broken.path, "broken.db is damaged"),
        (miscounted.path, "; nothing was restored"),
        (text, "text.db is not a SQLite database"),
        (empty, "empty.db has no table backends"),
    ):
        assert told in refused(lambda backup=backup: restore(store, SqliteStore(backup)))  # type: ignore[misc]
    assert "is the routing database itself" in refused(lambda: restore(store, SqliteStore(store.path)))
    assert store.path.read_bytes() == before


def test_locked_database_is_left_as_it_is(store: SqliteStore, tmp_path: Path) -> None:
    back_up(store, tmp_path / "backup.db")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE backends SET weight = 9")
        assert "is locked" in refused(lambda: restore(store, SqliteStore(tmp_path / "backup.db")))
        other.execute("COMMIT")
    assert select(store.path, "SELECT DISTINCT weight FROM backends") == [(9,)]


def test_restore_that_is_killed_leaves_the_rows_as_they_were(tmp_path: Path) -> None:
    store = make(tmp_path / "routing.db", "wal", MANY_ROWS)
    backup = make(tmp_path / "backup.db", rows=TWO_ROWS)
    before = rows(store.path)
    program = """
import os, sys
from contextlib import contextmanager
from pathlib import Path
from edgeproxy.outbound.backup_sqlite import restore
from edgeproxy.outbound.store_sqlite import SqliteStore

transaction = SqliteStore.transaction

@contextmanager
def killed_before_the_commit(store, prepare):
    with transaction(store, prepare) as inner:
        yield inner
        os._exit(9)

SqliteStore.transaction = killed_before_the_commit
restore(SqliteStore(Path(sys.argv[1])), SqliteStore(Path(sys.argv[2])))
"""
    done = subprocess.run([sys.executable, "-c", program, store.path, backup.path], check=False, timeout=30)
    assert done.returncode == 9
    assert rows(store.path) == before
    assert look_through(store) == ([], [])
