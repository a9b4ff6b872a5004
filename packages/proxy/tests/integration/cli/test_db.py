"""``edgeproxy db backup``, ``restore``, ``verify`` and ``log``, run in this process."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from packages.proxy.tests.integration.cli.commands import NEEDED, Run
from testkit.postgres import PostgresServer


@pytest.fixture
def made(run: Run) -> Run:
    """As ``run``, with a database of one backend."""
    run("db", "init")
    run("backends", "add", "b1", *NEEDED)
    return run


def execute(sql: str, path: str = "routing.db") -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(sql)


# ---- backup and restore --------------------------------------------------------------------------------


@pytest.mark.feature("table.backup")
def test_backup_and_restore_say_what_they_did(made: Run) -> None:
    assert made("db", "backup", "copy.db") == (0, "routing.db is copied to copy.db\n", [])
    execute("UPDATE backends SET weight = 9; INSERT INTO backends (id) VALUES ('b2')")
    assert made("db", "restore", "copy.db") == (
        0,
        "routing.db is restored from copy.db: 0 rows added, 1 changed, 1 removed\n",
        [],
    )


def test_backup_refuses_to_overwrite_with_exit_code_3(made: Run) -> None:
    Path("copy.db").write_text("precious")
    done = made("db", "backup", "copy.db")
    assert (done.code, done.out) == (3, "")
    assert done.errors == ["copy.db exists already and was left as it is; name another file"]


def test_restoring_over_a_damaged_file_says_where_that_is_kept(made: Run) -> None:
    made("db", "backup", "copy.db")
    Path("routing.db").write_text("no database\n" * 1000)
    done = made("db", "restore", "copy.db")
    assert done.code == 0
    first, second = done.out.splitlines()
    assert re.fullmatch(r"routing\.db could not be used; it is kept as \S+routing\.db\.damaged-\S+", first)
    assert second == "routing.db is restored from copy.db: 1 rows added, 0 changed, 0 removed"


def test_restore_of_nothing_exits_3(made: Run) -> None:
    done = made("db", "restore", "nothing.db")
    assert (done.code, done.out) == (3, "")
    assert done.errors == ["nothing.db does not exist; name a file that `edgeproxy db backup` made"]


# ---- verify --------------------------------------------------------------------------------------------


def test_sound_database_and_backup_verify_with_exit_code_0(made: Run) -> None:
    made("db", "backup", "copy.db")
    assert made("db", "verify") == (0, "routing.db is sound and holds 1 usable backends\n", [])
    assert made("db", "verify", "copy.db") == (0, "copy.db is sound and holds 1 usable backends\n", [])


def test_bad_rows_and_a_log_that_does_not_agree_exit_1(made: Run) -> None:
    execute("DROP TRIGGER edgeproxy_backends_update; UPDATE backends SET port = 0, weight = 'x'")
    done = made("db", "verify")
    assert done.code == 1
    unseen = "is missing; edits are noticed only by comparing rows"
    assert done.out.splitlines() == [
        "backend 'b1': port 0 is not a whole number from 1 to 65535",
        "backend 'b1': weight 'x' is not a whole number from 0 to 255",
        f"change log: the trigger edgeproxy_backends_update {unseen}",
        "change log: backend 'b1' changed unseen by the log",
        "routing.db is sound and holds 0 usable backends; 4 problems found",
    ]


def test_damaged_database_exits_3_with_every_damage(made: Run) -> None:
    content = bytearray(Path("routing.db").read_bytes())
    content[36:40] = (7).to_bytes(4, "big")
    Path("routing.db").write_bytes(content)
    done = made("db", "verify")
    assert (done.code, done.out) == (3, "")
    assert done.errors
    assert all(error.startswith("routing.db: ") for error in done.errors)


def test_database_without_the_table_exits_3(run: Run) -> None:
    execute("CREATE TABLE other (n)")
    done = run("db", "verify")
    assert done.code == 3
    assert "has no table backends" in done.errors[0]


# ---- log -----------------------------------------------------------------------------------------------


@pytest.mark.feature("table.change_log")
def test_log_tells_who_changed_what(made: Run) -> None:
    execute("UPDATE backends SET weight = 9, healthy = 0")
    made("backends", "remove", "b1")
    execute("DELETE FROM backends")
    done = made("db", "log")
    lines = [re.sub(r"^\S{24}  ", "", line) for line in done.out.splitlines()]
    limits = "soft_limit 100, hard_limit 150"
    values = f"wg_ip '127.0.0.1', port 9001, healthy 1, weight 2, {limits}, deleted 0"
    assert lines == [
        f"cli      b1  added: app 'test', region 'eu', country NULL, {values}",
        "outside  b1  healthy 1 → 0, weight 2 → 9",
        "cli      b1  deleted 0 → 1",
        "outside  b1  removed",
    ]


def test_log_is_told_as_json_too(made: Run) -> None:
    (change,) = json.loads(made("db", "log", "--json").out)["changes"]
    assert {key: change[key] for key in ("number", "author", "sequence", "id", "old")} == {
        "number": 1, "author": "cli", "sequence": 1, "id": "b1", "old": None,
    }  # fmt: skip
    assert change["new"]["port"] == 9001


def test_log_can_be_narrowed(made: Run) -> None:
    for weight in range(3, 6):
        execute(f"UPDATE backends SET weight = {weight}")
    assert [line[-5:] for line in made("db", "log", "--limit", "2").out.splitlines()] == ["3 → 4", "4 → 5"]
    assert len(made("db", "log", "--since", "1h").out.splitlines()) == 4
    assert len(made("db", "log", "--since", "2001-01-01T00:00").out.splitlines()) == 4
    assert made("db", "log", "--since", "9998-12-31T23:00:00-01:00").out == (
        "no change is logged since 9999-01-01T00:00:00.000Z\n"
    )


def test_database_without_a_log_has_no_changes(run: Run) -> None:
    run("db", "init")
    assert run("db", "log").out == "no change is logged\n"
    assert json.loads(run("db", "log", "--json").out) == {"changes": []}


@pytest.mark.parametrize("when", ["yesterday", "10", "1w", "999999999d"])
def test_time_that_is_none_exits_2(run: Run, when: str) -> None:
    assert run("db", "log", "--since", when) == (
        2,
        "",
        [f"--since {when}: write an age (90s, 10m, 2h, 3d) or a time in UTC (2026-11-20T10:00)"],
    )


# ---- PostgreSQL ------------------------------------------------------------------------------------------


@pytest.fixture
def with_postgres(
    run: Run, postgres: PostgresServer, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """As ``run``, with settings that name an empty database."""
    monkeypatch.setenv("EDGEPROXY_POSTGRES_ENABLED", "true")
    monkeypatch.setenv("EDGEPROXY_POSTGRES_URL", postgres.url(postgres_database))
    return run


def test_commands_work_on_postgres(
    with_postgres: Run, postgres: PostgresServer, postgres_database: str
) -> None:
    place = f"postgresql://127.0.0.1:{postgres.port}/{postgres_database}"
    done = with_postgres("db", "init")
    assert done == (0, f"{place} is ready; add backends with `edgeproxy backends add` or psql\n", [])
    assert with_postgres("backends", "list").out.startswith(
        f"{place} holds no usable backend; add one with: "
    )
    assert with_postgres("backends", "add", "b1", *NEEDED).out == "backend b1 added\n"
    assert with_postgres("backends", "add", "b1", *NEEDED).code == 2
    assert with_postgres("backends", "set", "b1", "--weight", "9").code == 0
    postgres.execute("UPDATE backends SET port = 0", postgres_database)
    assert with_postgres("backends", "list").out.splitlines()[-1] == (
        "  backend 'b1': port 0 is not a whole number from 1 to 65535"
    )
    assert with_postgres("backends", "remove", "b1").code == 0
    lines = with_postgres("db", "log").out.splitlines()
    assert [re.split("  +", line)[1] for line in lines] == ["cli", "cli", "outside (postgres, psql)", "cli"]
    assert not Path("routing.db").exists()


def test_named_file_is_used_whatever_the_settings_say(with_postgres: Run) -> None:
    assert with_postgres("db", "init", "mine.db").out.startswith("mine.db is ready")
    assert with_postgres("backends", "add", "b1", *NEEDED, "--db", "mine.db").code == 0
    assert with_postgres("db", "verify", "mine.db").out == "mine.db is sound and holds 1 usable backends\n"


@pytest.mark.parametrize(
    ("arguments", "program"),
    [
        (("backup", "x"), "pg_dump"),
        (("restore", "x"), "pg_restore"),
        (("verify",), "pg_amcheck"),
        (("at", "1h"), "point-in-time recovery"),
        (("archive", "file:///x"), "continuous archiving"),
    ],
)
def test_what_is_for_files_names_the_program_for_postgres(
    with_postgres: Run, arguments: tuple[str, ...], program: str
) -> None:
    done = with_postgres("db", *arguments)
    assert (done.code, done.errors) == (2, [f"this is for databases in files; for PostgreSQL use {program}"])


# ---- points in time --------------------------------------------------------------------------------------


@pytest.fixture
def edited(made: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """As ``made``; the weight was 2 at second 1, 5 at second 2, and at second 3 another backend came."""
    monkeypatch.setenv("EDGEPROXY_CHANGE_LOG_MAX_AGE_SECS", "3153600000")
    execute("UPDATE backends SET weight = 5; INSERT INTO backends (id, port) VALUES ('b2', 7)")
    execute(
        "UPDATE edgeproxy_changes SET at = '2026-01-01T00:00:0' || change || '.000Z'; CREATE TABLE mine (n)"
    )
    return made


@pytest.mark.feature("recovery.point_in_time")
def test_table_is_shown_as_it_was(edited: Run) -> None:
    done = edited("db", "at", "2026-01-01T00:00:01.5")
    limits = "soft_limit 100, hard_limit 150"
    values = f"wg_ip '127.0.0.1', port 9001, healthy 1, weight 2, {limits}, deleted 0"
    assert done == (0, f"b1  app 'test', region 'eu', country NULL, {values}\n", [])
    later = json.loads(edited("db", "at", "2026-01-01T00:00:03", "--json").out)
    assert later["at"] == "2026-01-01T00:00:03.000Z"
    assert [(each["id"], each["weight"]) for each in later["backends"]] == [("b1", 5), ("b2", None)]


def test_empty_table_is_said_to_be_empty(made: Run) -> None:
    execute("DELETE FROM backends")
    assert re.fullmatch(r"there were no rows at \S+\n", made("db", "at", "0s").out)


@pytest.mark.feature("recovery.point_in_time")
def test_rows_are_restored_to_a_time_as_new_changes(edited: Run) -> None:
    to = ("db", "restore", "--to", "2026-01-01T00:00:01")
    lines = ["b1  weight 5 → 2", "b2  removed"]
    counts = "0 rows added, 1 changed, 1 removed"
    done = edited(*to, "--dry-run")
    assert done.out.splitlines() == [
        *lines,
        f"routing.db would be restored to 2026-01-01T00:00:01.000Z: {counts}; nothing was written",
    ]
    assert len(edited("db", "log").out.splitlines()) == 3
    done = edited(*to)
    assert done.out.splitlines() == [*lines, f"routing.db is restored to 2026-01-01T00:00:01.000Z: {counts}"]
    log = [re.split("  +", line, maxsplit=1)[1] for line in edited("db", "log").out.splitlines()]
    assert log[3:] == ["restore  b1  weight 5 → 2", "restore  b2  removed"]
    done = edited("db", "restore", "--to", "2026-01-01T00:00:03")
    assert done.out.splitlines()[0] == "b1  weight 2 → 5"
    assert done.out.splitlines()[1].startswith("b2  added: app NULL, ")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("at", "yesterday"), 2, "TIME yesterday: write an age (90s, 10m, 2h, 3d) or a time in UTC"),
        (
            ("at", "2025-01-01"),
            3,
            "the change log of routing.db begins at 2026-01-01T00:00:01.000Z; what was",
        ),
        (("restore", "--to", "2025-01-01"), 3, "the change log of routing.db begins at 2026-01-01T00:00:01"),
        (("restore", "--to", "soon"), 2, "--to soon: write an age"),
        (("restore",), 2, "name a backup, or a time with --to, or an archive with --from-archive"),
        (("restore", "copy.db", "--to", "1h"), 2, "copy.db is restored as a whole: leave out --to, "),
        (("restore", "--from-archive", "copy.db"), 2, "copy.db is no archive; write file:///FOLDER or s3"),
        (("restore", "--from-archive", "file:///nowhere"), 3, "the archive has nothing of "),
        (("archive",), 2, "name an archive, or set EDGEPROXY_ARCHIVE_URL"),
    ],
)
def test_what_cannot_be_restored_says_why(
    edited: Run, arguments: tuple[str, ...], code: int, error: str
) -> None:
    before = Path("routing.db").read_bytes()
    done = edited("db", *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.errors[0].startswith(error)
    assert Path("routing.db").read_bytes() == before


def test_log_with_gaps_exits_3(edited: Run) -> None:
    execute("DELETE FROM edgeproxy_changes WHERE change = 2")
    done = edited("db", "at", "2026-01-01T00:00:01")
    assert (done.code, done.out) == (3, "")
    assert done.errors[0].endswith("the entries 2 to 2 are missing")


def test_log_of_one_backend(edited: Run) -> None:
    edited("backends", "set", "b1", "--weight", "9")
    lines = edited("db", "log", "--backend", "b1", "--limit", "2").out.splitlines()
    assert [line[-5:] for line in lines] == ["2 → 5", "5 → 9"]
    assert edited("db", "log", "--backend", "b3").out == "no change of backend b3 is logged\n"


# ---- archives --------------------------------------------------------------------------------------------


@pytest.mark.feature("recovery.archive")
def test_archive_is_added_to_and_restored_from(edited: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = Path("archive").absolute().as_uri()
    monkeypatch.setenv("EDGEPROXY_ARCHIVE_URL", url)
    monkeypatch.setenv("EDGEPROXY_REPLICATION_NODE_ID", "pop-1")
    done = edited("db", "archive")
    assert re.fullmatch(
        rf"0 changes of routing\.db are added to {url}, and a snapshot; it goes up to \S+\n", done.out
    )
    edited("backends", "set", "b1", "--weight", "9")
    assert edited("db", "archive", url).out.startswith(f"1 changes of routing.db are added to {url}; it goes")
    Path("routing.db").unlink()
    for companion in Path().glob("routing.db-*"):
        companion.unlink()
    edited("db", "init")
    monkeypatch.setenv("EDGEPROXY_REPLICATION_NODE_ID", "pop-2")
    restore = ("db", "restore", "--from-archive", url, "--node", "pop-1")
    assert edited(*restore, "--dry-run").out.splitlines()[-1].endswith("; nothing was written")
    done = edited(*restore)
    assert done.code == 0
    assert done.out.splitlines()[-1].endswith(": 2 rows added, 0 changed, 0 removed")
    assert edited(*restore).out.splitlines()[-1].endswith(": 0 rows added, 0 changed, 0 removed")
    assert "weight 9" in edited("db", "at", "0s").out


def test_long_log_is_archived_in_one_call(edited: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = Path("archive").absolute().as_uri()
    edited("db", "archive", url)
    monkeypatch.setattr("edgeproxy.outbound.archive.CHANGES_PER_OBJECT", 1)
    for weight in range(3):
        execute(f"UPDATE backends SET weight = {weight + 6} WHERE id = 'b1'")
    assert edited("db", "archive", url).out.startswith("3 changes of routing.db are added to ")
