"""The replicated state in real files: what becomes of edits here and of writes from elsewhere."""

from __future__ import annotations

import itertools
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.core.replication.model import EXPIRED, PRESENT, Group, Stamp
from edgeproxy.errors import StoreError
from edgeproxy.outbound.leases_sqlite import SqliteLeases
from edgeproxy.ports import Lease, LeaseWrite, RowChange
from packages.proxy.tests.integration.outbound.replicas import (
    COLUMNS,
    VALUES,
    Pop,
    assert_same,
    assert_sound,
    dots,
    pull_snapshot,
    sync,
)
from packages.proxy.tests.integration.outbound.sqlite_files import ORIGINAL_SCHEMA

pytestmark = pytest.mark.usefixtures("short_waits")

Make = Callable[..., Pop]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes members, each with a file of its own."""
    return lambda node, **settings: Pop(tmp_path / f"{node}.db", node, **settings)


@pytest.fixture
def two(make: Make) -> tuple[Pop, Pop]:
    """Two members that agree on the rows a and b."""
    first, second = make("pop-1"), make("pop-2")
    first.add("a", "b")
    sync(first, second)
    return first, second


# ---- what is written here ------------------------------------------------------------------------------


@pytest.mark.feature("replication.changes")
def test_edit_becomes_a_write_of_the_groups_that_changed(two: tuple[Pop, Pop]) -> None:
    first, _ = two
    first.edit("UPDATE backends SET weight = 9 WHERE id = 'a'")
    (write,) = first.captured()
    assert write.id == "a"
    assert write.groups == {Group.LIMITS: {"weight": 9, "soft_limit": 100, "hard_limit": 150}}
    assert write.stamp.node == "pop-1"
    assert first.captured() == []


def test_numbers_of_writes_have_no_gaps_and_stamps_rise(make: Make) -> None:
    pop = make("pop-1")
    pop.add("a", "b")
    writes = pop.captured()
    pop.edit(
        "UPDATE backends SET weight = 5; UPDATE backends SET healthy = 0; DELETE FROM backends WHERE id = 'b'"
    )
    writes += pop.captured()
    assert dots(writes) == [1, 2, 3, 4, 5, 6, 7]
    assert len({write.dot.origin for write in writes}) == 1
    assert sorted(each.stamp for each in writes[2:]) == [each.stamp for each in writes[2:]]
    assert writes[-1].groups == {Group.PRESENCE: {PRESENT: 0, "deleted": None}}
    assert_sound(pop)


def test_writes_of_all_our_processes_are_captured_once(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.store.apply(lambda _: RowChange("a", {"weight": 7}))
    first.replica.apply([])
    first.store.apply(lambda _: RowChange("a", {"weight": 8}))
    assert [write.groups[Group.LIMITS]["weight"] for write in first.captured()] == [7, 8]
    sync(first, second)
    assert_same(first, second)


def test_time_of_an_edit_is_that_of_its_trigger(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.edit("UPDATE backends SET weight = 5 WHERE id = 'a'")
    first.edit("UPDATE edgeproxy_changes SET at = '2001-01-01T00:00:00.000Z' WHERE author IS NULL")
    # An hour passes before the proxy that was down sees it, and meanwhile somebody else wrote.
    second.edit("UPDATE backends SET weight = 6 WHERE id = 'a'")
    second.captured()
    first.start()
    first.ahead_ms = 30_000
    sync(first, second)
    assert first.table["a"][6] == 6
    assert_same(first, second)


def test_edit_with_a_clock_that_is_set_back_still_overwrites_what_it_saw(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.ahead_ms = 50_000
    first.edit("UPDATE backends SET weight = 5 WHERE id = 'a'")
    sync(first, second)
    second.start()
    second.ahead_ms = -50_000
    second.edit("UPDATE backends SET weight = 6 WHERE id = 'a'")
    sync(first, second)
    assert first.table["a"][6] == 6
    assert_same(first, second)


def test_capture_leaves_a_file_that_did_not_change_alone(two: tuple[Pop, Pop]) -> None:
    first, _ = two
    before = first.path.read_bytes()
    for _ in range(3):
        assert first.captured() == []
    assert first.path.read_bytes() == before


# ---- what is written elsewhere -------------------------------------------------------------------------


@pytest.mark.feature("replication.changes")
def test_groups_of_one_row_are_won_by_their_own_last_writers(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.edit("UPDATE backends SET weight = 9 WHERE id = 'a'")
    second.edit("UPDATE backends SET wg_ip = '10.0.0.1', port = 1 WHERE id = 'a'")
    first.captured()
    second.edit("DELETE FROM backends WHERE id = 'b'")
    sync(first, second)
    assert first.table == {"a": ("test", "eu", "DE", "10.0.0.1", 1, 1, 9, 100, 150, 0)}
    assert_same(first, second)


def test_writes_from_elsewhere_are_logged_as_their_writers(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.edit("UPDATE backends SET weight = 9 WHERE id = 'a'")
    (write,) = first.captured()
    second.replica.apply([write])
    entry = [*second.store.changes("", 100)][-1]
    assert (entry.author, entry.origin, entry.sequence) == ("peer pop-1", *_dot(write))
    assert entry.old is not None
    assert entry.new is not None
    assert (entry.old["weight"], entry.new["weight"]) == (2, 9)
    assert second.captured() == []
    assert_sound(second)


def _dot(write: object) -> tuple[str, int]:
    return write.dot.origin, write.dot.sequence  # type: ignore[attr-defined]


def test_order_and_repetition_make_no_difference(make: Make) -> None:
    source = make("pop-1")
    source.add("a")
    writes = source.captured()
    for sql in ("weight = 5", "weight = 6", "healthy = 0"):
        source.edit(f"UPDATE backends SET {sql}")
        writes += source.captured()
    source.edit("DELETE FROM backends")
    writes += source.captured()
    for number, order in enumerate(itertools.permutations(writes[-4:])):
        target = make(f"other-{number}")
        for write in (*order, *order[:2], *writes[:1], *order):
            target.replica.apply([write])
            assert target.captured() == []
        assert_same(source, target)
        if number == 5:
            break


def test_gaps_are_known(two: tuple[Pop, Pop]) -> None:
    first, second = two
    for weight in range(5, 9):
        first.edit(f"UPDATE backends SET weight = {weight} WHERE id = 'a'")
    writes = first.captured()
    assert second.replica.apply([writes[1], writes[3]]) == 2
    origin = writes[0].dot.origin
    assert second.replica.known()[origin] == ((1, 2), (4, 4), (6, 6))
    assert second.replica.read_log({origin: ((3, 6),)}).writes == (writes[1], writes[3])
    assert second.replica.apply(writes) == 2
    assert second.replica.known()[origin] == ((1, 6),)
    assert_same(first, second)


def test_failure_in_the_middle_of_a_batch_leaves_nothing_of_it(
    two: tuple[Pop, Pop], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    first.edit("UPDATE backends SET weight = 9")
    writes = first.captured()
    before = second.table, second.replica.known(), second.store.changes("", 100)
    broken = [writes[0], object()]
    with pytest.raises(AttributeError):
        second.replica.apply(broken)  # type: ignore[arg-type]
    assert (second.table, second.replica.known(), second.store.changes("", 100)) == before
    assert second.replica.apply(writes) == 2
    assert_same(first, second)


@pytest.mark.parametrize("seed", range(3))
def test_any_exchange_of_any_edits_converges(make: Make, seed: int) -> None:
    draw = random.Random(seed)
    pops = [make(f"pop-{number}", max_changes=40) for number in range(3)]
    edits = [
        f"INSERT OR REPLACE INTO backends ({COLUMNS}) VALUES ('{{}}', {VALUES})",
        "UPDATE backends SET weight = {n} WHERE id = '{}'",
        "UPDATE backends SET port = {n}, country = NULL WHERE id = '{}'",
        "UPDATE backends SET deleted = 1 WHERE id = '{}'",
        "DELETE FROM backends WHERE id = '{}'",
        "UPDATE backends SET healthy = {n} WHERE id <> '{}'",
    ]
    for _ in range(12):
        for pop in pops:
            for _ in range(draw.randrange(4)):
                pop.edit(draw.choice(edits).format(draw.choice("abcd"), n=draw.randrange(100)))
        sync(*draw.sample(pops, 2))
    for _ in range(2):
        sync(*pops)
    assert_same(*pops)


# ---- files of users ------------------------------------------------------------------------------------


def test_table_without_country_takes_part_and_takes_nothing_away(make: Make) -> None:
    first, second = make("pop-1"), make("pop-2")
    second.edit(
        f"DROP TABLE backends; {ORIGINAL_SCHEMA} ALTER TABLE backends ADD COLUMN note TEXT DEFAULT 'mine'"
    )
    first.add("a")
    sync(first, second)
    second.edit("UPDATE backends SET port = 7")
    sync(first, second)
    assert first.table["a"] == ("test", "eu", "DE", "127.0.0.1", 7, 1, 2, 100, 150, 0)
    assert second.select("SELECT id, port, note FROM backends") == [("a", 7, "mine")]
    third = make("pop-3")
    sync(second, third)
    assert third.table == first.table


def test_row_that_the_owner_of_a_file_forbids_is_named_and_taken_later(two: tuple[Pop, Pop]) -> None:
    first, second = two
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


def test_unique_key_of_the_owner_costs_only_the_row_that_breaks_it(two: tuple[Pop, Pop]) -> None:
    first, second = two
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


def test_number_that_sqlite_cannot_hold_costs_only_its_row(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.edit("UPDATE backends SET weight = 9")
    one, other = first.captured()
    huge = {Group.LIMITS: {**one.groups[Group.LIMITS], "weight": 1 << 64 - 1}}
    second.replica.apply([type(one)(one.dot, one.stamp, one.id, huge), other])
    assert list(second.replica.refused) == [one.id]
    assert second.table[other.id][6] == 9


def test_what_a_trigger_of_the_owner_does_to_other_rows_is_a_change_of_ours(two: tuple[Pop, Pop]) -> None:
    first, second = two
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


def test_ids_that_are_no_text_stay_at_home(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.edit("INSERT INTO backends (id) VALUES (CAST(x'ff' AS TEXT)), (NULL), (x'00')")
    first.edit("UPDATE backends SET weight = 4 WHERE id = 'a'")
    sync(first, second)
    assert set(second.table) == {"a", "b"}
    assert second.table["a"][6] == 4
    assert second.replica.known() == first.replica.known()


def test_table_whose_ids_may_repeat_is_refused(make: Make) -> None:
    pop = make("pop-1")
    pop.edit(
        "CREATE TABLE copy AS SELECT * FROM backends; DROP TABLE backends; "
        "ALTER TABLE copy RENAME TO backends"
    )
    with pytest.raises(StoreError, match="cannot be replicated: the ids of the table backends may repeat"):
        pop.replica.capture()


def test_state_that_somebody_altered_is_an_error_and_not_a_crash(two: tuple[Pop, Pop]) -> None:
    first, _ = two
    first.edit("UPDATE edgeproxy_cells SET cells = 'nonsense'; UPDATE backends SET weight = 3")
    with pytest.raises(StoreError, match="was altered"):
        first.replica.capture()


# ---- files that begin, go back, are copied or replaced -------------------------------------------------


def test_rows_that_never_were_replicated_lose_against_all_that_were_written(make: Make) -> None:
    old = make("pop-1")
    old.add("a", "stale", "mine")
    old.store.tend()
    old.edit("UPDATE backends SET weight = 3")
    current = make("pop-2")
    current.captured()
    current.ahead_ms = -3_600_000
    current.edit(f"INSERT INTO backends ({COLUMNS}) VALUES ('a', {VALUES}), ('stale', {VALUES})")
    current.edit("UPDATE backends SET weight = 9; DELETE FROM backends WHERE id = 'stale'")
    sync(current, old)
    assert {row_id: values[6] for row_id, values in old.table.items()} == {"a": 9, "mine": 3}
    assert_same(old, current)


def test_copy_at_another_pop_gets_an_origin_of_its_own(two: tuple[Pop, Pop], tmp_path: Path) -> None:
    first, second = two
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
    two: tuple[Pop, Pop], tmp_path: Path
) -> None:
    first, second = two
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


def test_renewal_writes_anew_what_was_written_under_numbers_in_use(two: tuple[Pop, Pop]) -> None:
    first, second = two
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


def test_new_file_moved_in_place_is_a_change_of_what_differs(two: tuple[Pop, Pop], tmp_path: Path) -> None:
    first, second = two
    first.store.tend()
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


def test_difference_after_drop_and_create_is_a_change(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.edit(f"DROP TABLE backends; {ORIGINAL_SCHEMA}")
    first.edit(
        "INSERT INTO backends VALUES ('a', 'test', 'eu', '127.0.0.1', 9005, 1, 2, 100, 150, 0), "
        "('c', 'test', 'eu', '127.0.0.1', 9006, 1, 2, 100, 150, 0)"
    )
    first.store.tend()
    sync(first, second)
    assert {row_id: values[4] for row_id, values in second.table.items()} == {"a": 9005, "c": 9006}


def test_tables_of_replication_that_were_dropped_are_made_again(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.edit("DROP TABLE edgeproxy_cells; UPDATE backends SET weight = 6 WHERE id = 'a'")
    second.edit("UPDATE backends SET weight = 5 WHERE id = 'b'")
    first.start()
    sync(first, second)
    pull_snapshot(first, second)
    pull_snapshot(second, first)
    assert second.table == first.table
    assert first.table["b"][6] == 5


def test_edits_while_replication_was_off_are_not_lost_with_the_log(two: tuple[Pop, Pop]) -> None:
    first, second = two
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


# ---- leases --------------------------------------------------------------------------------------------


def lease(pop: Pop, owner: str, *, at_s: float = 10.5, expired: bool = False, healthy: int = 1) -> None:
    write = LeaseWrite(
        "a", RowChange("a", {"healthy": healthy}), Lease("a", owner, 10.123456789, at_s, expired)
    )
    SqliteLeases(pop.store).apply([("a", lambda _table, _lease: write)])


def test_owner_of_a_lease_is_a_change_and_a_heartbeat_is_none(two: tuple[Pop, Pop]) -> None:
    first, second = two
    lease(first, "pop-1")
    (write,) = first.captured()
    assert write.groups == {Group.LEASE: {"owner": "pop-1", "registered_at": 10.123456789}}
    lease(first, "pop-1", at_s=99.0)
    assert first.captured() == []
    second.replica.apply([write])
    (theirs,) = SqliteLeases(second.store).leases()
    assert (theirs.owner, theirs.registered_at_s, theirs.expired) == ("pop-1", 10.123456789, False)
    lease(second, "pop-2")
    sync(first, second)
    assert [each.owner for each in SqliteLeases(first.store).leases()] == ["pop-2"]
    assert_same(first, second)


def test_expiry_is_undone_by_another_pop_and_the_operators_word_is_not(two: tuple[Pop, Pop]) -> None:
    first, second = two
    lease(first, "pop-1")
    lease(first, "pop-1", expired=True, healthy=0)
    sync(first, second)
    (theirs,) = SqliteLeases(second.store).leases()
    assert theirs.expired
    assert second.table["a"][5] == 0
    second.edit("UPDATE backends SET healthy = 0 WHERE id = 'a'")
    (write,) = second.captured()
    assert write.groups == {Group.HEALTH: {"healthy": 0, EXPIRED: 0}}
    sync(first, second)
    assert not SqliteLeases(first.store).leases()[0].expired
    assert_same(first, second)


def test_order_of_lease_and_row_makes_no_difference(two: tuple[Pop, Pop]) -> None:
    first, second = two
    lease(first, "pop-1")
    lease(first, "pop-1", expired=True, healthy=0)
    for write in reversed(first.captured()):
        second.replica.apply([write])
    assert SqliteLeases(second.store).leases()[0].expired
    assert second.captured() == []
    assert_same(first, second)


def test_end_of_a_lease_replicates(two: tuple[Pop, Pop]) -> None:
    first, second = two
    lease(first, "pop-1")
    sync(first, second)
    ends = LeaseWrite("a", RowChange("a", {"deleted": 1}), None)
    SqliteLeases(first.store).apply([("a", lambda _table, _lease: ends)])
    sync(first, second)
    assert second.select("SELECT count(*) FROM edgeproxy_leases") == [(0,)]
    assert_same(first, second)


# ---- snapshots, tombstones, bounds ---------------------------------------------------------------------


def test_snapshot_of_many_rows_comes_in_bounded_parts(two: tuple[Pop, Pop], make: Make) -> None:
    first, _ = two
    first.edit(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) "
        f"INSERT INTO backends ({COLUMNS}) SELECT 'x' || i, {VALUES} FROM n"
    )
    first.captured()
    part = first.replica.read_rows(None)
    assert len(part.rows) == 512
    assert part.until == part.rows[-1].id
    third = make("pop-3")
    third.captured()
    pull_snapshot(third, first)
    assert third.captured() == []
    assert len(third.table) == 1202
    assert_same(first, third)
    origin = first.replica.capture().origin
    assert third.replica.read_log({origin: ((1, 1),)}).gone


def test_row_that_was_collected_elsewhere_goes_with_the_snapshot(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.edit("DELETE FROM backends WHERE id = 'a'")
    first.captured()
    assert first.tombstones == ["a"]
    assert first.replica.collect({}) == 0
    assert first.replica.collect(first.replica.known()) == 1
    second.add("late")
    second.captured()
    pull_snapshot(second, first)
    assert set(second.table) == {"b", "late"}
    assert second.replica.known().items() >= first.replica.known().items()
    sync(first, second)
    assert_same(first, second)


def test_log_is_bounded_and_says_what_is_gone(make: Make) -> None:
    pop = make("pop-1", max_changes=5)
    pop.add("a")
    for weight in range(20):
        pop.edit(f"UPDATE backends SET weight = {weight + 5}")
        pop.captured()
    ((origin, spans),) = pop.replica.known().items()
    assert spans == ((1, 20),)
    assert pop.replica.read_log({origin: ((1, 3),)}) == pop.replica.read_log({origin: ((14, 15),)})
    assert pop.replica.read_log({origin: ((1, 3),)}).gone
    assert dots(pop.replica.read_log({origin: ((18, 30),)}).writes) == [18, 19, 20]
    assert pop.select("SELECT count(*) <= 7 FROM edgeproxy_writes") == [(1,)]


def test_log_forgets_what_is_old(make: Make) -> None:
    pop = make("pop-1", max_age_s=60.0)
    pop.add("a")
    pop.captured()
    pop.ahead_ms = 3_600_000
    pop.edit("UPDATE backends SET weight = 9")
    (write,) = pop.captured()
    assert pop.replica.read_log({write.dot.origin: ((1, 1),)}).gone
    assert pop.replica.read_log({write.dot.origin: ((2, 2),)}).writes == (write,)


def test_entries_that_are_no_writes_yet_are_not_dropped(make: Make) -> None:
    pop = make("pop-1", max_changes=3)
    pop.captured()
    for name in "abcdefgh":
        pop.add(name)
    pop.store.tend()
    writes = pop.captured()
    assert dots(writes) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(write.stamp.wall_ms for write in writes), "each has the time of its entry"
    pop.add("i")
    pop.store.tend()
    assert pop.select("SELECT count(*) FROM edgeproxy_changes") == [(3,)]


def test_portion_of_the_log_is_bounded(make: Make) -> None:
    pop = make("pop-1", max_changes=2000)
    pop.captured()
    pop.edit(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 600) "
        f"INSERT INTO backends ({COLUMNS}) SELECT 'x' || i, {VALUES} FROM n"
    )
    origin = pop.replica.capture().origin
    assert len(pop.replica.read_log({origin: ((1, 600),)}).writes) == 512
    pop.edit("UPDATE backends SET app = hex(zeroblob(300000)) WHERE id IN ('x1', 'x10', 'x100')")
    pop.captured()
    assert dots(pop.replica.read_log({origin: ((601, 603),)}).writes) == [601]
    assert [len(pop.replica.read_rows("x").rows), pop.replica.read_rows("x").until] == [1, "x1"]


def test_file_that_never_was_replicated_knows_nothing(make: Make) -> None:
    pop = make("pop-1")
    pop.add("a")
    assert pop.replica.known() == {}
    assert pop.replica.fingerprint() == ({}, 0)
    assert pop.replica.read_rows(None).rows == ()
    assert pop.replica.read_log({"x/1": ((1, 5),)}).writes == ()


def test_stamp_is_used_only_after_the_clocks_mark_is_written_down(make: Make) -> None:
    pop = make("pop-1")
    marks: list[int] = []
    pop.replica._keep = lambda mark_ms, _origin, _sequence: marks.append(mark_ms)
    pop.add("a")
    pop.captured()
    pop.edit("UPDATE backends SET weight = 9")
    (write,) = pop.captured()
    assert isinstance(write.stamp, Stamp)
    assert marks
    assert marks[-1] >= write.stamp.wall_ms


def test_part_of_a_snapshot_makes_known_what_is_in_it(two: tuple[Pop, Pop], make: Make) -> None:
    first, _ = two
    third = make("pop-3")
    third.captured()
    part = first.replica.read_rows(None)
    third.replica.install(None, "a", part.known, part.rows[:1], learn=False)
    assert set(third.table) == {"a"}
    ((origin, spans),) = part.known.items()
    assert third.replica.known()[origin] == ((1, 1),)
    assert spans == ((1, 2),)
    assert third.replica.read_log({origin: ((1, 2),)}).gone


def test_rows_that_are_refused_are_tried_again_some_at_a_time(
    two: tuple[Pop, Pop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.outbound.replica_sqlite.RETRIES", 2)
    first, second = two
    second.edit("CREATE TRIGGER rule BEFORE INSERT ON backends BEGIN SELECT RAISE(ABORT, 'full'); END")
    first.add(*"cdefg")
    second.replica.apply(first.captured())
    assert set(second.replica.refused) == set("cdefg")
    second.edit("DROP TRIGGER rule")
    for left in ("cdg", "cd", ""):
        second.replica.apply([])
        assert set(second.replica.refused) == set(left)
    assert_same(first, second)


def test_rule_that_ends_whole_transactions_is_named(two: tuple[Pop, Pop]) -> None:
    first, second = two
    second.edit(
        "CREATE TRIGGER rule BEFORE UPDATE ON backends WHEN NEW.weight > 100 "
        "BEGIN SELECT RAISE(ROLLBACK, 'too heavy'); END"
    )
    first.edit(
        "UPDATE backends SET weight = 200 WHERE id = 'a'; UPDATE backends SET weight = 3 WHERE id = 'b'"
    )
    writes = first.captured()
    before = second.table, second.replica.known()
    with pytest.raises(StoreError, match=r"ends whole transactions at backend 'a' \(too heavy\)"):
        second.replica.apply(writes)
    assert (second.table, second.replica.known()) == before
    second.edit("DROP TRIGGER rule")
    second.replica.apply(writes)
    assert_same(first, second)


def test_full_disk_is_an_error_of_the_batch_and_not_of_a_row(
    two: tuple[Pop, Pop], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    first.edit("UPDATE backends SET weight = 3 WHERE id = 'b'")
    writes = first.captured()

    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("edgeproxy.outbound.replica_rows._put", full)
        with pytest.raises(StoreError, match="disk is full"):
            second.replica.apply(writes)
    assert second.replica.apply(writes) == 1
    assert_same(first, second)


def test_entry_that_somebody_altered_is_made_up_for_by_comparing(two: tuple[Pop, Pop]) -> None:
    first, second = two
    first.edit("UPDATE backends SET weight = 8 WHERE id = 'a'; UPDATE backends SET weight = 9 WHERE id = 'b'")
    first.edit("UPDATE edgeproxy_changes SET new = 'nonsense' WHERE id = 'a' AND author IS NULL")
    assert first.replica.capture().is_new
    sync(first, second)
    assert {row_id: values[6] for row_id, values in second.table.items()} == {"a": 8, "b": 9}
    assert_same(first, second)


def test_row_that_is_refused_is_no_difference(two: tuple[Pop, Pop], tmp_path: Path) -> None:
    first, second = two
    second.edit("CREATE TRIGGER rule BEFORE UPDATE ON backends BEGIN SELECT RAISE(ABORT, 'no'); END")
    first.edit("UPDATE backends SET weight = 8 WHERE id = 'a'")
    sync(first, second)
    second.edit("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy2(second.path, tmp_path / "pop-3.db")
    third = Pop(tmp_path / "pop-3.db", "pop-3")
    third.captured()
    assert list(third.replica.refused) == ["a"]
    third.edit("DROP TRIGGER rule")
    sync(first, third)
    assert third.table["a"][6] == 8
    assert third.table == first.table
