"""The replicated state in a user's own file, one that begins, goes back, is copied or is replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeproxy.core.replication.model import Group
from edgeproxy.errors import StoreError
from packages.proxy.tests.integration.outbound.replicas import (
    COLUMNS,
    VALUES,
    Make,
    Pop,
    assert_same,
    pull_snapshot,
    sync,
)
from packages.proxy.tests.integration.outbound.sqlite_files import ORIGINAL_SCHEMA

pytestmark = pytest.mark.usefixtures("short_waits")


# ---- files of users ------------------------------------------------------------------------------------


def test_table_without_country_takes_part_and_takes_nothing_away(make_pop: Make) -> None:
    first, second = make_pop("pop-1"), make_pop("pop-2")
    second.edit(
        f"DROP TABLE backends; {ORIGINAL_SCHEMA} ALTER TABLE backends ADD COLUMN note TEXT DEFAULT 'mine'"
    )
    first.add("a")
    sync(first, second)
    second.edit("UPDATE backends SET port = 7")
    sync(first, second)
    assert first.table["a"] == ("test", "eu", "DE", "127.0.0.1", 7, 1, 2, 100, 150, 0)
    assert second.select("SELECT id, port, note FROM backends") == [("a", 7, "mine")]
    third = make_pop("pop-3")
    sync(second, third)
    assert third.table == first.table


def test_row_that_the_owner_of_a_file_forbids_is_named_and_taken_later(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    second.edit(
        "CREATE TRIGGER rule BEFORE UPDATE ON backends WHEN NEW.weight > 100 "
        "BEGIN SELECT RAISE(ABORT, 'too heavy'); END"
    )
    first.edit(
        "UPDATE backends SET weight = 200 WHERE id = 'a'; UPDATE backends SET weight = 3 WHERE id = 'b'"
    )
    sync(first, second)
    assert second.replica.refused == {"a": "too heavy"}
    assert (second.table["a"][6], second.table["b"][6]) == (2, 3)
    assert second.replica.fingerprint() == first.replica.fingerprint()
    second.edit("UPDATE backends SET port = 5 WHERE id = 'a'")
    sync(first, second)
    assert first.table["a"][4:7] == (5, 1, 200)
    second.edit("DROP TRIGGER rule")
    sync(first, second)
    assert second.replica.refused == {}
    assert_same(first, second)


def test_unique_key_of_the_owner_costs_only_the_row_that_breaks_it(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    second.edit("UPDATE backends SET port = 1 WHERE id = 'b'")
    sync(first, second)
    second.edit("CREATE UNIQUE INDEX place ON backends (wg_ip, port)")
    first.edit("UPDATE backends SET port = 1 WHERE id = 'a'")
    first.edit("INSERT INTO backends (id, wg_ip, port) VALUES ('c', '127.0.0.2', 1)")
    sync(first, second)
    assert list(second.replica.refused) == ["a"]
    first.edit("UPDATE backends SET port = 3 WHERE id = 'a'")
    sync(first, second)
    assert second.replica.refused == {}
    assert_same(first, second)


def test_number_that_sqlite_cannot_hold_costs_only_its_row(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.edit("UPDATE backends SET weight = 9")
    one, other = first.captured()
    huge = {Group.LIMITS: {**one.groups[Group.LIMITS], "weight": 1 << 64 - 1}}
    second.replica.apply([type(one)(one.dot, one.stamp, one.id, huge), other])
    assert list(second.replica.refused) == [one.id]
    assert second.table[other.id][6] == 9


def test_what_a_trigger_of_the_owner_does_to_other_rows_is_a_change_of_ours(
    two_pops: tuple[Pop, Pop],
) -> None:
    first, second = two_pops
    second.edit(
        "CREATE TRIGGER follow AFTER UPDATE OF weight ON backends WHEN NEW.id = 'a' "
        "BEGIN UPDATE backends SET weight = NEW.weight + 1 WHERE id = 'b'; END"
    )
    first.edit("UPDATE backends SET weight = 50 WHERE id = 'a'")
    second.replica.apply(first.captured())
    (write,) = second.captured()
    assert (write.id, write.groups[Group.LIMITS]["weight"]) == ("b", 51)
    sync(first, second)
    assert_same(first, second)


def test_ids_that_are_no_text_stay_at_home(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.edit("INSERT INTO backends (id) VALUES (CAST(x'ff' AS TEXT)), (NULL), (x'00')")
    first.edit("UPDATE backends SET weight = 4 WHERE id = 'a'")
    sync(first, second)
    assert set(second.table) == {"a", "b"}
    assert second.table["a"][6] == 4
    assert second.replica.known() == first.replica.known()


def test_table_whose_ids_may_repeat_is_refused(make_pop: Make) -> None:
    pop = make_pop("pop-1")
    pop.edit(
        "CREATE TABLE copy AS SELECT * FROM backends; DROP TABLE backends; "
        "ALTER TABLE copy RENAME TO backends"
    )
    with pytest.raises(StoreError, match="cannot be replicated: the ids of the table backends may repeat"):
        pop.replica.capture()


def test_state_that_somebody_altered_is_an_error_and_not_a_crash(two_pops: tuple[Pop, Pop]) -> None:
    first, _ = two_pops
    first.edit("UPDATE edgeproxy_cells SET cells = 'nonsense'; UPDATE backends SET weight = 3")
    with pytest.raises(StoreError, match="was altered"):
        first.replica.capture()


# ---- files that begin, go back, are copied or replaced -------------------------------------------------


def test_rows_that_never_were_replicated_lose_against_all_that_were_written(make_pop: Make) -> None:
    old = make_pop("pop-1")
    old.add("a", "stale", "mine")
    old.store.tend()
    old.edit("UPDATE backends SET weight = 3")
    current = make_pop("pop-2")
    current.captured()
    current.ahead_ms = -3_600_000
    current.edit(f"INSERT INTO backends ({COLUMNS}) VALUES ('a', {VALUES}), ('stale', {VALUES})")
    current.edit("UPDATE backends SET weight = 9; DELETE FROM backends WHERE id = 'stale'")
    sync(current, old)
    assert {row_id: values[6] for row_id, values in old.table.items()} == {"a": 9, "mine": 3}
    assert_same(old, current)


def test_copy_at_another_pop_gets_an_origin_of_its_own(two_pops: tuple[Pop, Pop], tmp_path: Path) -> None:
    first, second = two_pops
    first.edit("UPDATE backends SET weight = 4 WHERE id = 'a'")
    shutil.copy2(first.path, tmp_path / "pop-3.db")
    third = Pop(tmp_path / "pop-3.db", "pop-3")
    third.edit("UPDATE backends SET weight = 5 WHERE id = 'b'")
    assert third.replica.capture().origin.startswith("pop-3/")
    sync(first, second, third)
    sync(first, second, third)
    assert {row_id: values[6] for row_id, values in first.table.items()} == {"a": 4, "b": 5}
    assert_same(first, second, third)


def test_file_that_went_back_while_the_proxy_was_down_gets_a_new_incarnation(
    two_pops: tuple[Pop, Pop], tmp_path: Path
) -> None:
    first, second = two_pops
    first.store.tend()
    content = first.path.read_bytes()
    first.edit("UPDATE backends SET weight = 4 WHERE id = 'a'")
    first.edit("UPDATE backends SET weight = 5 WHERE id = 'a'")
    sync(first, second)
    origin, last = (
        first.replica.capture().origin,
        first.replica.known()[first.replica.capture().origin][-1][1],
    )
    _put_back(first.path, content)
    first.start()
    first.store.expect(origin, last)
    first.edit("UPDATE backends SET weight = 7 WHERE id = 'b'")
    assert first.replica.capture().origin != origin
    sync(first, second)
    assert {row_id: values[6] for row_id, values in first.table.items()} == {"a": 5, "b": 7}
    assert_same(first, second)


def test_renewal_writes_anew_what_was_written_under_numbers_in_use(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.store.tend()
    content = first.path.read_bytes()
    first.edit("UPDATE backends SET weight = 4 WHERE id = 'a'")
    sync(first, second)
    _put_back(first.path, content)
    first.start()
    first.edit("UPDATE backends SET weight = 7 WHERE id = 'b'")
    captured = first.replica.capture()
    renewed = first.replica.renew(captured.origin)
    assert renewed != captured.origin
    assert first.replica.renew(captured.origin) == renewed
    assert first.replica.capture().is_new
    sync(first, second)
    sync(first, second)
    assert {row_id: values[6] for row_id, values in first.table.items()} == {"a": 4, "b": 7}
    assert second.table == first.table


def _put_back(path: Path, content: bytes) -> None:
    """Give a file an earlier content; it stays the same file."""
    for companion in ("-wal", "-shm"):
        path.with_name(path.name + companion).unlink(missing_ok=True)
    with path.open("r+b") as file:
        file.truncate()
        file.write(content)


def test_new_file_moved_in_place_is_a_change_of_what_differs(
    two_pops: tuple[Pop, Pop], tmp_path: Path
) -> None:
    first, second = two_pops
    new = Pop(tmp_path / "new.db", "shell")
    new.edit(f"INSERT INTO backends ({COLUMNS}) VALUES ('a', {VALUES}), ('c', {VALUES})")
    new.edit("UPDATE backends SET port = 7 WHERE id = 'a'")
    second.edit("UPDATE backends SET weight = 8 WHERE id = 'a'")
    second.captured()
    new.path.replace(first.path)
    assert first.replica.capture().is_new
    sync(first, second)
    assert set(first.table) == {"a", "c"}
    assert first.table["a"][4:7] == (7, 1, 8)
    assert second.table == first.table


def test_difference_after_drop_and_create_is_a_change(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.edit(f"DROP TABLE backends; {ORIGINAL_SCHEMA}")
    first.edit(
        "INSERT INTO backends VALUES ('a', 'test', 'eu', '127.0.0.1', 9005, 1, 2, 100, 150, 0), "
        "('c', 'test', 'eu', '127.0.0.1', 9006, 1, 2, 100, 150, 0)"
    )
    first.store.tend()
    sync(first, second)
    assert {row_id: values[4] for row_id, values in second.table.items()} == {"a": 9005, "c": 9006}


def test_tables_of_replication_that_were_dropped_are_made_again(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.edit("DROP TABLE edgeproxy_cells; UPDATE backends SET weight = 6 WHERE id = 'a'")
    second.edit("UPDATE backends SET weight = 5 WHERE id = 'b'")
    first.start()
    sync(first, second)
    pull_snapshot(first, second)
    pull_snapshot(second, first)
    assert second.table == first.table
    assert first.table["b"][6] == 5


def test_edits_while_replication_was_off_are_not_lost_with_the_log(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.edit("UPDATE backends SET weight = 6 WHERE id = 'a'")
    for port in range(5):
        first.edit(f"UPDATE backends SET port = {port} WHERE id = 'b'")
    first.store.tend()
    first.edit("DELETE FROM edgeproxy_changes WHERE sequence < 5")
    second.edit("UPDATE backends SET weight = 7 WHERE id = 'b'")
    first.start()
    sync(first, second)
    assert first.table["a"][6] == 6
    assert first.table["b"][4:7] == (4, 1, 7)
    assert_same(first, second)
