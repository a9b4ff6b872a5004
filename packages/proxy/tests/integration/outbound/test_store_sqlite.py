"""Real files, edited by the real ``sqlite3`` program and by other connections while a store polls."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.outbound import sqlite_file, store_sqlite
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import Row, RowChange
from testkit.wait import wait_until

ORDINARY_USER = 65534

ORIGINAL_SCHEMA = """
    CREATE TABLE backends (id TEXT PRIMARY KEY, app TEXT, region TEXT, wg_ip TEXT, port INTEGER,
    healthy INTEGER, weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER DEFAULT 0);
"""
SCHEMA_WITHOUT_KEY = ORIGINAL_SCHEMA.replace(" PRIMARY KEY", "")

# As the guide to testing the original has it.
GUIDE = """
-- Clear existing test backends
DELETE FROM backends WHERE id LIKE 'mock-%';

-- Add mock backends
INSERT INTO backends (id, app, region, wg_ip, port, healthy, weight, soft_limit, hard_limit)
VALUES
  ('mock-eu-1', 'test', 'eu', '127.0.0.1', 9001, 1, 2, 100, 150),
  ('mock-eu-2', 'test', 'eu', '127.0.0.1', 9002, 1, 2, 100, 150),
  ('mock-us-1', 'test', 'us', '127.0.0.1', 9003, 1, 2, 100, 150);
"""
GUIDE_IDS = ["mock-eu-1", "mock-eu-2", "mock-us-1"]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    # A kernel tick is at most 10 ms, and that is the granularity of file systems that tests run on.
    monkeypatch.setattr(store_sqlite, "STAMP_GRANULARITY_S", 0.02)
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "routing.db"


def execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(sql)


def shell(path: Path, sql: str) -> str:
    program = shutil.which("sqlite3")
    if program is None:
        pytest.skip("the sqlite3 program is not installed")
    done = subprocess.run([program, path, sql], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def make(path: Path, journal_mode: str = "delete", schema: str = ORIGINAL_SCHEMA) -> Path:
    execute(path, f"PRAGMA journal_mode = {journal_mode}; {schema} {GUIDE}")
    return path


def settled(store: SqliteStore) -> SqliteStore:
    """Poll until the store trusts the stamp it has, so that only a change of the stamp makes it read."""

    def is_settled() -> bool:
        store.poll()
        return store._stamp is not None and store._stamp.is_settled

    wait_until(is_settled, reason="the stamp settles")
    assert store.poll() is None
    return store


def polled(store: SqliteStore) -> dict[object, Row]:
    """The rows by id, read because of the stamp and not because the file is young."""
    wait_until(lambda: store_sqlite._Stamp.of(store.path).is_settled, reason="the file is no longer young")
    rows = store.poll()
    assert rows is not None, "the edit was not seen"
    return {row["id"]: row for row in rows}


def message_of(act: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        act()
    (line,) = str(caught.value).splitlines()
    return line


@pytest.fixture(params=["delete", "wal"])
def journal_mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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


# ---- files that cannot be used -------------------------------------------------------------------


def test_missing_file_is_named_with_the_remedy_and_not_made(path: Path) -> None:
    assert message_of(SqliteStore(path).poll) == (
        f"routing database {path} does not exist; make it with `edgeproxy db init {path}`, "
        "or name another file with EDGEPROXY_DB_PATH"
    )
    assert not path.exists()


def test_file_that_vanishes_before_it_is_opened_is_not_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path)
    take_stamp = store_sqlite._Stamp.of

    def vanish(path: Path) -> object:
        stamp = take_stamp(path)
        path.unlink()
        return stamp

    monkeypatch.setattr(store_sqlite._Stamp, "of", vanish)
    assert str(path) in message_of(SqliteStore(path).poll)
    assert not path.exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path} is a directory" in message_of(SqliteStore(tmp_path).poll)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert f"{fifo} is not a regular file" in message_of(SqliteStore(fifo).poll)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert f"{loop} cannot be reached: " in message_of(SqliteStore(loop).poll)


@pytest.mark.parametrize("text", ["hello", "-- this is a text file\n" * 100])
def test_text_file_is_no_database(path: Path, text: str) -> None:
    path.write_text(text)
    assert f"{path} is not a SQLite database" in message_of(SqliteStore(path).poll)
    assert path.read_text() == text


def test_empty_file_has_no_table(path: Path) -> None:
    path.touch()
    assert f"{path} has no table backends" in message_of(SqliteStore(path).poll)


def test_missing_columns_are_listed(path: Path) -> None:
    execute(path, "CREATE TABLE backends (id TEXT, app TEXT, region TEXT, wg_ip TEXT, port INTEGER)")
    assert "lacks deleted, hard_limit, healthy, soft_limit, weight;" in message_of(SqliteStore(path).poll)


def fill(path: Path) -> None:
    execute(
        path,
        """
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO backends SELECT 'b' || i, 'test', 'eu', '10.0.0.1', 1, 1, 1, 1, 1, 0 FROM n
        """,
    )


def test_truncated_file_is_damaged_at_start(path: Path) -> None:
    fill(make(path))
    os.truncate(path, path.stat().st_size // 2)
    assert f"{path} is damaged; `edgeproxy db verify` says where" in message_of(SqliteStore(path).poll)


def test_file_that_is_damaged_and_restored_while_in_use_is_read_again(path: Path) -> None:
    fill(make(path))
    store = settled(SqliteStore(path))
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
    assert "is damaged" in message_of(store.poll)
    assert "is damaged" in message_of(store.poll)
    path.write_bytes(content)
    assert store.poll() is None
    execute(path, "UPDATE backends SET weight = 9")
    assert {row["weight"] for row in polled(store).values()} == {9}


@pytest.mark.parametrize("act", ["poll", "apply"])
def test_locked_file_is_an_error_until_the_lock_is_gone(path: Path, act: str) -> None:
    store = SqliteStore(make(path))
    acts: Mapping[str, Callable[[], object]] = {
        "poll": store.poll,
        "apply": lambda: store.apply(lambda _: None),
    }
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "is locked by another program" in message_of(acts[act])
    assert [*polled(store)] == GUIDE_IDS


def test_other_errors_of_sqlite_are_passed_on(path: Path) -> None:
    make(path)
    execute(path, "ALTER TABLE backends RENAME TO real; CREATE VIEW backends AS SELECT * FROM real")
    store = SqliteStore(path)
    assert [*polled(store)] == GUIDE_IDS
    told = message_of(lambda: store.apply(lambda _: RowChange("mock-eu-1", {"weight": 1})))
    assert told == f"routing database {path} cannot be used: cannot modify backends because it is a view"


# ---- files that can only be read -----------------------------------------------------------------


@contextmanager
def effective_user(user: int) -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that other users reach, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(params=["mount", "permissions"])
def read_only(request: pytest.FixtureRequest, open_dir: Path) -> Iterator[Callable[[], None]]:
    """Makes ``open_dir`` read-only from the call to the end of the test."""
    undo: list[Callable[[], object]] = []

    def mount() -> None:
        for options in (["--bind", open_dir], ["-o", "remount,ro,bind"]):
            done = subprocess.run(["mount", *options, open_dir], capture_output=True, check=False)
            if done.returncode:
                pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")
            undo.append(lambda: subprocess.run(["umount", "-l", open_dir], check=False, capture_output=True))

    def restrict() -> None:
        open_dir.chmod(0o555)
        undo.append(lambda: open_dir.chmod(0o755))
        user = effective_user(ORDINARY_USER)
        user.__enter__()
        undo.append(lambda: user.__exit__(None, None, None))

    yield mount if request.param == "mount" else restrict
    for step in reversed(undo):
        step()


def test_read_only_database_is_served_and_refuses_writes(
    open_dir: Path, read_only: Callable[[], None], journal_mode: str
) -> None:
    path = make(open_dir / "routing.db", journal_mode)
    read_only()
    store = SqliteStore(path)
    assert [*polled(store)] == GUIDE_IDS
    assert settled(store).poll() is None
    told = message_of(lambda: store.apply(lambda _: RowChange("mock-eu-1", {"weight": 1})))
    assert told.startswith(f"routing database {path} is read-only for this process; ")


def test_file_without_write_permission_is_served_and_refuses_writes(open_dir: Path) -> None:
    path = make(open_dir / "routing.db")
    path.chmod(0o444)
    with effective_user(ORDINARY_USER):
        store = SqliteStore(path)
        assert [*polled(store)] == GUIDE_IDS
        told = message_of(lambda: store.apply(lambda _: RowChange("mock-eu-1", {"weight": 1})))
    assert "is read-only for this process" in told


def test_file_without_read_permission_is_named_with_the_remedy(open_dir: Path) -> None:
    path = make(open_dir / "routing.db")
    path.chmod(0o000)
    with effective_user(ORDINARY_USER):
        assert "may not be read by this user; give it read permission" in message_of(SqliteStore(path).poll)


def test_directory_that_may_not_be_entered_is_named(open_dir: Path) -> None:
    path = make(open_dir / "routing.db")
    open_dir.chmod(0o600)
    with effective_user(ORDINARY_USER):
        told = message_of(SqliteStore(path).poll)
    open_dir.chmod(0o700)
    assert told == f"routing database {path} cannot be reached: Permission denied"


def test_write_ahead_log_of_an_open_database_is_read_in_a_read_only_directory(
    open_dir: Path, read_only: Callable[[], None]
) -> None:
    path = make(open_dir / "routing.db", "wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as editor:
        editor.execute("UPDATE backends SET weight = 9")
        read_only()
        assert {row["weight"] for row in polled(SqliteStore(path)).values()} == {9}


def test_orphaned_write_ahead_log_in_a_read_only_directory_is_named_with_the_remedy(
    open_dir: Path, read_only: Callable[[], None]
) -> None:
    source = make(open_dir / "source.db", "wal")
    with closing(sqlite3.connect(source, isolation_level=None)) as editor:
        editor.execute("UPDATE backends SET weight = 9")
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{source}{suffix}", f"{open_dir / 'routing.db'}{suffix}")
    read_only()
    told = message_of(SqliteStore(open_dir / "routing.db").poll)
    assert "routing.db-wal" in told
    assert told.endswith("sqlite3 routing.db 'PRAGMA wal_checkpoint(TRUNCATE)'")


def test_interrupted_write_in_a_read_only_directory_is_named_with_the_remedy(
    open_dir: Path, read_only: Callable[[], None]
) -> None:
    path = make(open_dir / "routing.db")
    fill(path)
    interrupted = """
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE backends SET app = app || app || app")
        os._exit(0)
    """
    program = "\n".join(line.strip() for line in interrupted.splitlines())
    subprocess.run([sys.executable, "-c", program, path], check=True, timeout=30)
    assert path.with_name("routing.db-journal").exists()
    path.chmod(0o444)
    read_only()
    assert "holds an interrupted write" in message_of(SqliteStore(path).poll)


def test_file_that_changes_while_it_is_read_without_locks_is_an_error(
    open_dir: Path, read_only: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(open_dir / "routing.db", "wal")
    read_only()
    stamps: list[object] = []

    def another_each_time(*what: object) -> tuple[int, ...]:
        stamps.append(what)
        return (len(stamps),)

    monkeypatch.setattr(store_sqlite, "_identity", another_each_time)
    assert message_of(SqliteStore(path).poll) == f"routing database {path} changed while it was read"


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
