"""Files that are missing, damaged, locked or of another kind, and those that can only be read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edgeproxy.outbound import store_sqlite
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import RowChange
from packages.proxy.tests.integration.outbound.sqlite_files import (
    GUIDE_IDS,
    execute,
    make,
    message_of,
    polled,
    settled,
)

pytestmark = pytest.mark.usefixtures("short_waits")

ORDINARY_USER = 65534


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
