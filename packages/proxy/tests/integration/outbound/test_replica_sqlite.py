"""The replicated state in real files: what becomes of edits here and of writes from elsewhere."""

from __future__ import annotations

import itertools
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from edgeproxy.core.replication.model import PRESENT, Group, Stamp
from edgeproxy.errors import StoreError
from edgeproxy.ports import RowChange
from packages.proxy.tests.integration.outbound.replicas import (
    COLUMNS,
    VALUES,
    Make,
    Pop,
    assert_same,
    assert_sound,
    dots,
    pull_snapshot,
    sync,
)

pytestmark = pytest.mark.usefixtures("short_waits")


# ---- what is written here ------------------------------------------------------------------------------


@pytest.mark.feature("replication.changes")
def test_edit_becomes_a_write_of_the_groups_that_changed(two_pops: tuple[Pop, Pop]) -> None:
    first, _ = two_pops
    first.edit("UPDATE backends SET weight = 9 WHERE id = 'a'")
    (write,) = first.captured()
    assert write.id == "a"
    assert write.groups == {Group.LIMITS: {"weight": 9, "soft_limit": 100, "hard_limit": 150}}
    assert write.stamp.node == "pop-1"
    assert first.captured() == []


def test_numbers_of_writes_have_no_gaps_and_stamps_rise(make_pop: Make) -> None:
    pop = make_pop("pop-1")
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


def test_writes_of_all_our_processes_are_captured_once(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.store.apply(lambda _: RowChange("a", {"weight": 7}))
    first.replica.apply([])
    first.store.apply(lambda _: RowChange("a", {"weight": 8}))
    assert [write.groups[Group.LIMITS]["weight"] for write in first.captured()] == [7, 8]
    sync(first, second)
    assert_same(first, second)


def test_time_of_an_edit_is_that_of_its_trigger(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
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


def test_edit_with_a_clock_that_is_set_back_still_overwrites_what_it_saw(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.ahead_ms = 50_000
    first.edit("UPDATE backends SET weight = 5 WHERE id = 'a'")
    sync(first, second)
    second.start()
    second.ahead_ms = -50_000
    second.edit("UPDATE backends SET weight = 6 WHERE id = 'a'")
    sync(first, second)
    assert first.table["a"][6] == 6
    assert_same(first, second)


def test_capture_leaves_a_file_that_did_not_change_alone(two_pops: tuple[Pop, Pop]) -> None:
    first, _ = two_pops
    before = first.path.read_bytes()
    for _ in range(3):
        assert first.captured() == []
    assert first.path.read_bytes() == before


# ---- what is written elsewhere -------------------------------------------------------------------------


@pytest.mark.feature("replication.changes")
def test_groups_of_one_row_are_won_by_their_own_last_writers(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.edit("UPDATE backends SET weight = 9 WHERE id = 'a'")
    second.edit("UPDATE backends SET wg_ip = '10.0.0.1', port = 1 WHERE id = 'a'")
    first.captured()
    second.edit("DELETE FROM backends WHERE id = 'b'")
    sync(first, second)
    assert first.table == {"a": ("test", "eu", "DE", "10.0.0.1", 1, 1, 9, 100, 150, 0)}
    assert_same(first, second)


def test_writes_from_elsewhere_are_logged_as_their_writers(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
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


def test_order_and_repetition_make_no_difference(make_pop: Make) -> None:
    source = make_pop("pop-1")
    source.add("a")
    writes = source.captured()
    for sql in ("weight = 5", "weight = 6", "healthy = 0"):
        source.edit(f"UPDATE backends SET {sql}")
        writes += source.captured()
    source.edit("DELETE FROM backends")
    writes += source.captured()
    for number, order in enumerate(itertools.permutations(writes[-4:])):
        target = make_pop(f"other-{number}")
        for write in (*order, *order[:2], *writes[:1], *order):
            target.replica.apply([write])
            assert target.captured() == []
        assert_same(source, target)
        if number == 5:
            break


def test_gaps_are_known(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
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
    two_pops: tuple[Pop, Pop], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_pops
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
def test_any_exchange_of_any_edits_converges(make_pop: Make, seed: int) -> None:
    draw = random.Random(seed)
    pops = [make_pop(f"pop-{number}", max_changes=40) for number in range(3)]
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


# ---- snapshots, tombstones, bounds ---------------------------------------------------------------------


def test_snapshot_of_many_rows_comes_in_bounded_parts(two_pops: tuple[Pop, Pop], make_pop: Make) -> None:
    first, _ = two_pops
    first.edit(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) "
        f"INSERT INTO backends ({COLUMNS}) SELECT 'x' || i, {VALUES} FROM n"
    )
    first.captured()
    part = first.replica.read_rows(None)
    assert len(part.rows) == 512
    assert part.until == part.rows[-1].id
    third = make_pop("pop-3")
    third.captured()
    pull_snapshot(third, first)
    assert third.captured() == []
    assert len(third.table) == 1202
    assert_same(first, third)
    origin = first.replica.capture().origin
    assert third.replica.read_log({origin: ((1, 1),)}).gone


def test_row_that_was_collected_elsewhere_goes_with_the_snapshot(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
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


def test_log_is_bounded_and_says_what_is_gone(make_pop: Make) -> None:
    pop = make_pop("pop-1", max_changes=5)
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


def test_log_forgets_what_is_old(make_pop: Make) -> None:
    pop = make_pop("pop-1", max_age_s=60.0)
    pop.add("a")
    pop.captured()
    pop.ahead_ms = 3_600_000
    pop.edit("UPDATE backends SET weight = 9")
    (write,) = pop.captured()
    assert pop.replica.read_log({write.dot.origin: ((1, 1),)}).gone
    assert pop.replica.read_log({write.dot.origin: ((2, 2),)}).writes == (write,)


def test_entries_that_are_no_writes_yet_are_not_dropped(make_pop: Make) -> None:
    pop = make_pop("pop-1", max_changes=3)
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


def test_portion_of_the_log_is_bounded(make_pop: Make) -> None:
    pop = make_pop("pop-1", max_changes=2000)
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


def test_file_that_never_was_replicated_knows_nothing(make_pop: Make) -> None:
    pop = make_pop("pop-1")
    pop.add("a")
    assert pop.replica.known() == {}
    assert pop.replica.fingerprint() == ({}, 0)
    assert pop.replica.read_rows(None).rows == ()
    assert pop.replica.read_log({"x/1": ((1, 5),)}).writes == ()


def test_stamp_is_used_only_after_the_clocks_mark_is_written_down(make_pop: Make) -> None:
    pop = make_pop("pop-1")
    marks: list[int] = []
    pop.replica._keep = lambda mark_ms, _origin, _sequence: marks.append(mark_ms)
    pop.add("a")
    pop.captured()
    pop.edit("UPDATE backends SET weight = 9")
    (write,) = pop.captured()
    assert isinstance(write.stamp, Stamp)
    assert marks
    assert marks[-1] >= write.stamp.wall_ms


def test_part_of_a_snapshot_makes_known_what_is_in_it(two_pops: tuple[Pop, Pop], make_pop: Make) -> None:
    first, _ = two_pops
    third = make_pop("pop-3")
    third.captured()
    part = first.replica.read_rows(None)
    third.replica.install(None, "a", part.known, part.rows[:1], learn=False)
    assert set(third.table) == {"a"}
    ((origin, spans),) = part.known.items()
    assert third.replica.known()[origin] == ((1, 1),)
    assert spans == ((1, 2),)
    assert third.replica.read_log({origin: ((1, 2),)}).gone


def test_rows_that_are_refused_are_tried_again_some_at_a_time(
    two_pops: tuple[Pop, Pop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.outbound.replica_sqlite.RETRIES", 2)
    first, second = two_pops
    second.edit("CREATE TRIGGER rule BEFORE INSERT ON backends BEGIN SELECT RAISE(ABORT, 'full'); END")
    first.add(*"cdefg")
    second.replica.apply(first.captured())
    assert set(second.replica.refused) == set("cdefg")
    second.edit("DROP TRIGGER rule")
    for left in ("cdg", "cd", ""):
        second.replica.apply([])
        assert set(second.replica.refused) == set(left)
    assert_same(first, second)


def test_rule_that_ends_whole_transactions_is_named(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
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
    two_pops: tuple[Pop, Pop], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_pops
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


def test_entry_that_somebody_altered_is_made_up_for_by_comparing(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    first.edit("UPDATE backends SET weight = 8 WHERE id = 'a'; UPDATE backends SET weight = 9 WHERE id = 'b'")
    first.edit("UPDATE edgeproxy_changes SET new = 'nonsense' WHERE id = 'a' AND author IS NULL")
    assert first.replica.capture().is_new
    sync(first, second)
    assert {row_id: values[6] for row_id, values in second.table.items()} == {"a": 8, "b": 9}
    assert_same(first, second)


def test_row_that_is_refused_is_no_difference(two_pops: tuple[Pop, Pop], tmp_path: Path) -> None:
    first, second = two_pops
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
