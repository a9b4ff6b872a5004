"""A real server: started, asked, killed, restarted, replicated, gone."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit import postgres as module
from testkit.postgres import PostgresServer, find_binaries, postgres_server, run_as
from testkit.wait import wait_until


def test_databases_of_two_tests_know_nothing_of_each_other(postgres: PostgresServer) -> None:
    first, second = postgres.create_database(), postgres.create_database()
    postgres.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7), (8)", first)
    assert postgres.execute("SELECT n, n + 1 FROM t ORDER BY n", first) == "7|8\n8|9"
    assert postgres.execute("SELECT count(*) FROM pg_tables WHERE tablename = 't'", second) == "0"


def test_failed_statement_carries_the_error(postgres: PostgresServer, postgres_database: str) -> None:
    with pytest.raises(AssertionError, match='relation "nothing" does not exist'):
        postgres.execute("SELECT * FROM nothing", postgres_database)


def test_wrong_password_is_refused(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "password", "wrong")
    with pytest.raises(AssertionError, match="password authentication failed"):
        postgres.execute("SELECT 1")


def test_killed_server_comes_back_with_what_was_committed(
    postgres_factory: Callable[..., PostgresServer],
) -> None:
    server = postgres_factory()
    server.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
    server.kill()
    assert not server.running
    assert "stopped" in repr(server)
    with pytest.raises(AssertionError, match="refused"):
        server.execute("SELECT 1")
    server.start()
    assert "running" in repr(server)
    assert server.execute("SELECT n FROM t") == "7"


def test_start_waits_until_another_server_has_left_the_data(
    postgres_factory: Callable[..., PostgresServer], postgres_binaries: Path
) -> None:
    first = postgres_factory()
    second = PostgresServer(postgres_binaries, first._folder, first.port)
    second.password = first.password
    stop_first = threading.Timer(0.1, first.stop)
    stop_first.start()
    second.start()
    assert second.execute("SELECT 1") == "1"
    second.stop()
    stop_first.join()


def test_standby_follows_and_takes_over(postgres_factory: Callable[..., PostgresServer]) -> None:
    primary = postgres_factory()
    primary.execute("CREATE TABLE t (n int)")
    standby = postgres_factory(standby_of=primary)
    primary.execute("INSERT INTO t VALUES (7)")
    wait_until(lambda: standby.execute("SELECT n FROM t") == "7", reason="the row to arrive")
    with pytest.raises(AssertionError, match="read-only transaction"):
        standby.execute("INSERT INTO t VALUES (8)")
    primary.kill()
    standby.promote()
    standby.execute("INSERT INTO t VALUES (8)")
    assert standby.execute("SELECT count(*) FROM t") == "2"


def test_nothing_is_left_of_a_server(postgres_binaries: Path) -> None:
    with postgres_server(postgres_binaries) as server:
        folder = server._folder
        assert "ready to accept connections" in server.log
    assert not server.running
    assert not folder.exists()
    server.stop()


def test_killed_server_leaves_no_memory_behind(postgres_factory: Callable[..., PostgresServer]) -> None:
    server = postgres_factory()
    pid = int(server.execute("SELECT pg_read_file('postmaster.pid')").split()[0])
    # What it shares by a name outlives it, unless that is in its folder.
    assert "/dev/shm/PostgreSQL." not in Path(f"/proc/{pid}/maps").read_text()


def test_server_that_cannot_start_says_why(postgres_binaries: Path) -> None:
    with postgres_server(postgres_binaries) as server:
        server.stop()
        (server.data / "PG_VERSION").write_text("1")
        with pytest.raises(AssertionError, match="incompatible"):
            server.start()


def test_server_that_never_ran_has_no_log(postgres_binaries: Path, tmp_path: Path) -> None:
    server = PostgresServer(postgres_binaries, tmp_path, 1)
    assert (server.log, server.running) == ("", False)


def test_program_that_fails_says_why(postgres_binaries: Path, tmp_path: Path) -> None:
    server = PostgresServer(postgres_binaries, tmp_path, 1)
    with pytest.raises(AssertionError, match="pg_basebackup: "):
        server.make_standby_of(server)


# ---- finding the programs ----------------------------------------------------------------------------


def fake_binaries(folder: Path, *, exit_code: int = 0) -> Path:
    folder.mkdir(parents=True)
    (folder / "initdb").touch()
    program = folder / "postgres"
    program.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return folder


@pytest.fixture
def nothing_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(module, "run_as", lambda: ())


@pytest.mark.usefixtures("nothing_embedded")
def test_programs_on_the_path_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake_binaries(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    assert find_binaries() == folder


@pytest.mark.usefixtures("nothing_embedded")
def test_newest_version_of_the_distribution_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    for version in ("9.6", "15", "9", "16"):
        fake_binaries(tmp_path / version / "bin")
    fake_binaries(tmp_path / "17" / "bin", exit_code=1)
    (tmp_path / "18" / "bin").mkdir(parents=True)
    monkeypatch.setattr(module, "DISTRIBUTION_FOLDER", tmp_path)
    assert find_binaries() == tmp_path / "16" / "bin"


@pytest.mark.usefixtures("nothing_embedded")
def test_no_programs_are_found_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(module, "DISTRIBUTION_FOLDER", tmp_path)
    assert find_binaries() is None


def test_only_root_becomes_somebody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run_as() == ()
    before = tmp_path.stat()
    module.give_away(tmp_path)
    assert tmp_path.stat() == before
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert run_as()[0] == "setpriv"


def test_root_becomes_nobody_where_there_is_no_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    known = pwd.getpwnam

    def without_postgres(name: str) -> object:
        if name == "postgres":
            raise KeyError(name)
        return known(name)

    monkeypatch.setattr(pwd, "getpwnam", without_postgres)
    assert module._ordinary_user().pw_name == "nobody"
