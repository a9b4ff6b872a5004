"""The routing database and the country database change, break and come back while clients are served."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from packages.proxy.tests.integration.proxies import (
    PROMISE_S,
    READABLE,
    UNREADABLE,
    NewClient,
    StartProxy,
    edit,
    row,
    wait_until_served_by,
    write_rows,
)
from testkit.geo import write_country_database
from testkit.wait import wait_until

# ---- the routing database ------------------------------------------------------------------------


def delete(path: Path) -> None:
    path.unlink()


def corrupt(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def replace_by_text(path: Path) -> None:
    aside = path.with_name("notes.txt")
    aside.write_text("one 127.0.0.1 9001\n" * 50)
    aside.replace(path)


def drop_the_table(path: Path) -> None:
    edit(path, "DROP TABLE backends")


def test_the_last_good_table_stays_until_the_database_is_back(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient
) -> None:
    proxy = start_proxy([row("one", ports["one"])], db_reload_secs=0.05)
    in_force, next_one = "one", "two"
    for times, breaks in enumerate((delete, corrupt, replace_by_text, drop_the_table), 1):
        breaks(proxy.db_path)
        warning = proxy.wait_log(UNREADABLE, count=times)[-1]
        assert warning["level"] == "warning"
        assert str(proxy.db_path) in warning["why"]
        assert proxy.backend_of(new_client()) == in_force

        for log in proxy.db_path.parent.glob("routing.db-*"):
            log.unlink()
        move_into_place(proxy.db_path, row(next_one, ports[next_one]))
        proxy.wait_log(READABLE, count=times)
        wait_until_served_by(proxy, new_client, next_one)
        # Many polls failed in between; that was said once.
        assert len(proxy.log(UNREADABLE)) == len(proxy.log(READABLE)) == times
        in_force, next_one = next_one, in_force


def move_into_place(path: Path, only_row: dict[str, object]) -> None:
    """``mv new.db routing.db``, the new one being a single file as one that was copied is."""
    fresh = path.with_name("fresh.db")
    write_rows(fresh, [only_row])
    with closing(sqlite3.connect(fresh)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    fresh.replace(path)


def test_a_database_moved_into_place_is_the_table_from_then_on(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient
) -> None:
    proxy = start_proxy([row("one", ports["one"])])
    assert proxy.backend_of(new_client()) == "one"
    move_into_place(proxy.db_path, row("two", ports["two"]))
    wait_until_served_by(proxy, new_client, "two")
    assert proxy.log(UNREADABLE) == []


@pytest.mark.feature("table.bad_rows")
def test_a_bad_row_is_named_and_skipped_and_the_others_work(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient
) -> None:
    proxy = start_proxy([row("one", ports["one"]), row("bad", 99999)], db_reload_secs=0.05)
    (line,) = proxy.wait_log("skipping a bad row")
    assert (line["row"], line["column"], line["value"], line["level"]) == (
        *("backend 'bad'", "port", "99999", "warning"),
    )
    assert proxy.backend_of(new_client()) == "one"

    edit(proxy.db_path, "UPDATE backends SET weight = NULL WHERE id = 'one'")
    proxy.wait_log("skipping a bad row", count=2)
    wait_until_served_by(proxy, new_client, "")
    edit(proxy.db_path, f"UPDATE backends SET port = {ports['two']} WHERE id = 'bad'")
    proxy.wait_log("a bad row is gone")
    wait_until_served_by(proxy, new_client, "two")
    assert len(proxy.log("skipping a bad row")) == 2


def test_of_very_many_bad_rows_some_are_named_and_the_others_counted(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient
) -> None:
    bad = [row(f"bad-{number}", 0) for number in range(2_000)]
    proxy = start_proxy([row("one", ports["one"]), *bad])
    (rest,) = proxy.wait_log("skipping more bad rows")
    named = proxy.log("skipping a bad row")
    assert 0 < len(named) <= 100
    assert len(named) + rest["problems"] == len(bad)
    assert proxy.backend_of(new_client()) == "one"


def test_a_table_too_large_for_the_channels_buffers_reaches_every_worker(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient
) -> None:
    far = [row(f"far-{number}", 9, region="ap", country="JP") for number in range(6_000)]
    proxy = start_proxy([*far, row("one", ports["one"])], workers=2)
    assert {proxy.backend_of(new_client()) for _ in range(20)} == {"one"}
    edit(proxy.db_path, "DELETE FROM backends WHERE region = 'eu'")
    wait_until_served_by(proxy, new_client, "")
    edit(proxy.db_path, f"UPDATE backends SET port = {ports['two']}")
    # All 6,000 listen on one port now, where `two` is.
    wait_until_served_by(proxy, new_client, "two")


def test_a_connection_that_outlives_its_row_counts_for_no_other_backend(
    start_proxy: StartProxy, ports: dict[str, int], new_client: NewClient
) -> None:
    proxy = start_proxy([row("one", ports["one"])], db_reload_secs=0.05)
    with proxy.connect(new_client()) as client:
        assert client.recv(100) == b"one\n"
        edit(proxy.db_path, "DELETE FROM backends")
        wait_until_served_by(proxy, new_client, "")
        write_rows(proxy.db_path, [row("two", ports["two"])])
        wait_until_served_by(proxy, new_client, "two")
        wait_until(lambda: proxy.stats()["backends"] == {"two": 0}, reason="a count of its own")
        client.sendall(b"?")
        assert client.recv(1) == b"?"


def test_a_database_on_a_read_only_file_system_is_served(
    start_proxy: StartProxy,
    ports: dict[str, int],
    new_client: NewClient,
    read_only_copy: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    write_rows(tmp_path / "routing.db", [row("one", ports["one"])])
    proxy = start_proxy(db_path=read_only_copy(tmp_path / "routing.db"), admin_socket=tmp_path / "admin.sock")
    assert proxy.backend_of(new_client()) == "one"


# ---- the country database ------------------------------------------------------------------------

KEPT = "keeping the country database in use"
REPLACED = "country database replaced"
CLIENT = "127.20.0.{}"


@pytest.fixture
def countries(tmp_path: Path) -> Path:
    path = tmp_path / "countries.mmdb"
    write_country_database(path, {"127.20.0.0/16": "BR"})
    return path


@pytest.mark.feature("geography.own_database")
def test_the_last_good_country_database_stays_until_a_good_one_is_moved_into_place(
    start_proxy: StartProxy, ports: dict[str, int], countries: Path
) -> None:
    proxy = start_proxy(
        [
            row("one", ports["one"], region="sa", country="BR"),
            row("two", ports["two"], region="ap", country="JP"),
        ],
        geoip_path=countries,
        workers=2,
    )

    def all_are_served_by(backend: str) -> bool:
        # So many that each of the workers has some.
        return {proxy.backend_of(CLIENT.format(last)) for last in range(1, 25)} == {backend}

    def country() -> str:
        found: str = proxy.ask("explain", client=CLIENT.format(1))["client"]["country"]
        return found

    assert all_are_served_by("one")
    assert country() == "BR"

    # The clients move, so what bound them to the backend of their old country is void.
    write_country_database(countries, {"127.20.0.0/16": "JP"})
    (line,) = proxy.wait_log(REPLACED)
    assert str(countries) in line["countries"]
    assert country() == "JP"
    wait_until(lambda: all_are_served_by("two"), reason="the new one to be used", timeout_s=10 * PROMISE_S)

    for times, breaks in enumerate((delete, replace_by_noise), 1):
        breaks(countries)
        line = proxy.wait_log(KEPT, count=times)[-1]
        assert line["level"] == "warning"
        assert str(countries) in line["why"]
        assert country() == "JP"
        assert all_are_served_by("two")

    write_country_database(countries, {"127.20.0.0/16": "BR"})
    proxy.wait_log(REPLACED, count=2)
    wait_until(lambda: all_are_served_by("one"), reason="the good one to be used")
    assert len(proxy.log(KEPT)) == 2


def replace_by_noise(path: Path) -> None:
    # Written in place, it would change under those who have it open.
    noise = path.with_name("noise.mmdb")
    noise.write_bytes(os.urandom(8192))
    noise.replace(path)
