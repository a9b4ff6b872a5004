"""``edgeproxy db`` and ``edgeproxy backends`` on real files, run in this process."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from packages.proxy.tests.integration.cli.commands import NEEDED, Run


def select(sql: str, path: str = "routing.db") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(sql).fetchall()
        connection.commit()
        return rows


def test_init_makes_the_database_of_the_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_DB_PATH", "mine.db")
    done = run("db", "init")
    assert (done.code, done.errors) == (0, [])
    assert done.out.startswith("mine.db is ready")
    assert select("SELECT count(*) FROM backends", "mine.db") == [(0,)]


def test_init_makes_the_database_that_is_named(run: Run) -> None:
    assert run("db", "init", "named.db").code == 0
    assert [each.name for each in Path().iterdir()] == ["named.db"]


def test_init_refuses_an_existing_file_with_exit_code_3(run: Run) -> None:
    run("db", "init")
    assert run("db", "init") == (
        3,
        "",
        ["routing.db exists already and was left as it is; name another file"],
    )


def test_empty_database_is_listed_with_the_command_that_fills_it(run: Run) -> None:
    run("db", "init")
    done = run("backends", "list")
    assert done.code == 0
    assert done.out == (
        "routing.db holds no usable backend; add one with: "
        "edgeproxy backends add ID --app APP --region REGION --host HOST --port PORT\n"
    )


def test_missing_database_exits_3(run: Run) -> None:
    done = run("backends", "list", "--db", "missing.db")
    assert (done.code, done.out) == (3, "")
    assert "missing.db does not exist; make it with `edgeproxy db init" in done.errors[0]


def test_added_backend_is_listed_with_its_defaults(run: Run) -> None:
    run("db", "init")
    assert run("backends", "add", "b1", *NEEDED) == (0, "backend b1 added\n", [])
    assert run("backends", "list").out.splitlines() == [
        "id  app   region  country  host       port  healthy  weight  soft_limit  hard_limit",
        "b1  test  eu      DE       127.0.0.1  9001  yes      2       100         150",
    ]


def test_every_value_can_be_given_when_adding(run: Run) -> None:
    run("db", "init")
    limits = ("--weight", "0", "--soft-limit", "0", "--hard-limit", "0")
    done = run(
        "backends", "add", "b1", "--app", "a", "--region", "US", "--host", "[::1]", "--port", "1", *limits
    )
    assert done.code == 0
    assert run("backends", "set", "b1", "--country", "ca", "--unhealthy").code == 0
    listed = json.loads(run("backends", "list", "--json").out)
    assert listed["issues"] == []
    assert listed["backends"] == [
        {
            "id": "b1",
            "app": "a",
            "region": "us",
            "country": "CA",
            "host": "::1",
            "port": 1,
            "healthy": False,
            "weight": 0,
            "soft_limit": 0,
            "hard_limit": 0,
        }
    ]


def test_only_the_backends_of_one_app_are_listed(run: Run) -> None:
    run("db", "init")
    run("backends", "add", "b1", *NEEDED)
    run("backends", "add", "b2", *NEEDED, "--app", "other")
    listed = json.loads(run("backends", "list", "--app", "other", "--json").out)
    assert [backend["id"] for backend in listed["backends"]] == ["b2"]
    assert run("backends", "list", "--app", "none").out.startswith(
        "routing.db holds no usable backend of app none;"
    )


def test_rows_that_cannot_be_used_are_listed_with_the_reason(run: Run) -> None:
    run("db", "init")
    run("backends", "add", "good", *NEEDED)
    run("backends", "add", "bad", *NEEDED)
    select("UPDATE backends SET port = 99999 WHERE id = 'bad'")
    problem = "is not a whole number from 1 to 65535"
    out = run("backends", "list").out.splitlines()
    assert [line.split()[0] for line in out[:2]] == ["id", "good"]
    assert out[2:] == ["", "Skipped rows:", f"  backend 'bad': port 99999 {problem}"]
    listed = json.loads(run("backends", "list", "--json").out)
    assert listed["issues"] == [
        {"row": "backend 'bad'", "column": "port", "value": "99999", "problem": problem}
    ]


@pytest.mark.feature("table.commands")
def test_set_changes_what_is_given_and_nothing_else(run: Run) -> None:
    run("db", "init")
    run("backends", "add", "b1", *NEEDED)
    assert run("backends", "set", "b1", "--weight", "9", "--unhealthy").out == "backend b1 changed\n"
    assert select("SELECT weight, healthy, soft_limit, port, country FROM backends") == [
        (9, 0, 100, 9001, None)
    ]


def test_set_without_a_value_exits_2(run: Run) -> None:
    run("db", "init")
    assert run("backends", "set", "b1") == (
        2,
        "",
        ["nothing to change; name a value, e.g. --unhealthy or --weight 5"],
    )


def test_removed_backend_is_gone_and_can_be_added_again(run: Run) -> None:
    run("db", "init")
    run("backends", "add", "b1", *NEEDED, "--weight", "9")
    assert run("backends", "remove", "b1").out == "backend b1 removed\n"
    assert select("SELECT id, deleted FROM backends") == [("b1", 1)]
    assert json.loads(run("backends", "list", "--json").out)["backends"] == []
    assert run("backends", "add", "b1", *NEEDED).code == 0
    assert select("SELECT weight, deleted FROM backends") == [(2, 0)]


def test_refusals_exit_2_and_name_the_remedy(run: Run) -> None:
    run("db", "init")
    run("backends", "add", "mock-eu-1", *NEEDED)
    assert run("backends", "add", "mock-eu-1", *NEEDED) == (
        2,
        "",
        ["backend 'mock-eu-1' exists already; change it with `edgeproxy backends set`"],
    )
    for command in (("set", "mock-eu1", "--healthy"), ("remove", "mock-eu1")):
        done = run("backends", *command)
        assert done.code == 2
        assert done.errors == [
            (
                "there is no backend 'mock-eu1' (did you mean 'mock-eu-1'?); "
                "`edgeproxy backends list` shows those there are"
            )
        ]


def test_every_wrong_value_is_named_and_nothing_is_written(run: Run) -> None:
    run("db", "init")
    done = run("backends", "add", "b1", *NEEDED, "--port", "0", "--region", "mars", "--weight", "256")
    assert done.code == 2
    assert [error.split(" is not ")[0] for error in done.errors] == [
        "backend 'b1': region 'mars'",
        "backend 'b1': port 0",
        "backend 'b1': weight 256",
    ]
    assert select("SELECT * FROM backends") == []


def test_region_of_the_settings_file_is_known(run: Run) -> None:
    run("db", "init")
    Path("edge.toml").write_text('[regions.af]\ncountries = ["ZA"]\ndefault_country = "ZA"\n')
    assert run("backends", "add", "b1", *NEEDED, "--region", "af").code == 2
    assert run("backends", "add", "b1", *NEEDED, "--region", "af", "--config", "edge.toml").code == 0
    listed = json.loads(run("backends", "list", "--json", "--config", "edge.toml").out)
    assert listed["backends"][0]["country"] == "ZA"
