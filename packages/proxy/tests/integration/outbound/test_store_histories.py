"""Several writers at once: what each of them saw has an explanation, and nothing acknowledged is lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgeproxy.errors import StoreError
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.ports import Row, RowChange
from packages.proxy.tests.integration.outbound.sqlite_files import GUIDE_IDS, make
from testkit.checkers.counters import check_counter
from testkit.checkers.history import Call, History
from testkit.checkers.linearizability import Counting, Register, Verdict, check_linearizable
from testkit.checkers.sets import check_set
from testkit.wait import wait_until

_CLIENTS = 3
_OPERATIONS = 12
_FIRST = 2
"""The weight of all rows of the guide."""


def _at_once(client: Callable[[int], None]) -> None:
    """Run clients of numbers 0, 1, 2 …, each with a thread and a store of its own, and wait for all."""
    threads = [threading.Thread(target=client, args=[number]) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _apply(store: SqliteStore, call: Call, operation: Callable[[Mapping[str, Row]], object]) -> None:
    """Have the store apply it; a store that is busy has refused it for certain."""
    decided: list[object] = []

    def decide(table: Mapping[str, Row]) -> object:
        decided.append(operation(table))
        return decided[-1]

    try:
        made = store.apply(decide)
    except StoreError:
        call.not_done()
    else:
        call.done(None if isinstance(made, RowChange) else made)


def _weight(backend: str) -> Callable[[Mapping[str, Row]], int]:
    return lambda table: int(str(table[backend]["weight"]))


def _change(backend: str, **values: object) -> Callable[[Mapping[str, Row]], object]:
    return lambda _: RowChange(backend, values)


def _increment(backend: str, before: int | None) -> Callable[[Mapping[str, Row]], object]:
    """Add one to the weight that the table has, or to one that was read ``before``."""

    def operation(table: Mapping[str, Row]) -> object:
        weight = before if before is not None else _weight(backend)(table)
        return RowChange(backend, {"weight": weight + 1})

    return operation


def _swap(backend: str, expected: int, value: int) -> Callable[[Mapping[str, Row]], object]:
    """Change a weight if it is as expected; otherwise say False and write nothing."""

    def operation(table: Mapping[str, Row]) -> object:
        return RowChange(backend, {"weight": value}) if table[backend]["weight"] == expected else False

    return operation


def test_readers_and_writers_see_one_order_of_all_writes(path: Path, seed: int, journal_mode: str) -> None:
    make(path, journal_mode)
    history = History()

    def client(number: int) -> None:
        store, draws = SqliteStore(path), random.Random(seed + number)
        for _ in range(_OPERATIONS):
            backend, value = draws.choice(GUIDE_IDS[:2]), draws.randrange(4)
            match draws.choice(["read", "write", "cas"]):
                case "read":
                    with history.calling(number, "read", key=backend) as call:
                        _apply(store, call, _weight(backend))
                case "write":
                    with history.calling(number, "write", value, key=backend) as call:
                        _apply(store, call, _change(backend, weight=value))
                case _:
                    expected = draws.randrange(4)
                    with history.calling(number, "cas", (expected, value), key=backend) as call:
                        _apply(store, call, _swap(backend, expected, value))
                        if call.result is None:
                            call.result = True

    _at_once(client)
    finding = check_linearizable(history.operations, Register(_FIRST))
    assert finding.verdict is Verdict.LINEARIZABLE, f"{finding}\n{history}"


@pytest.mark.parametrize("is_broken", [False, True])
def test_no_increment_is_lost_unless_reading_and_writing_come_apart(path: Path, is_broken: bool) -> None:
    """Also the proof that this kind of test notices: a store that reads first and writes later loses some."""
    make(path)
    history = History()
    barrier = threading.Barrier(_CLIENTS, timeout=30)

    def client(number: int) -> None:
        store = SqliteStore(path)
        with history.calling(number, "add", 1) as call:
            before = wait_until(
                lambda: store.apply(_weight("mock-eu-1")), reason="a reading", swallow=(StoreError,)
            )
            assert isinstance(before, int)
            barrier.wait()
            while call.result is None:
                _apply(store, call, _increment("mock-eu-1", before if is_broken else None))
                call.result = "done" if call.fate.name == "DONE" else None

    _at_once(client)
    with history.calling("the end", "read") as call:
        _apply(SqliteStore(path), call, _weight("mock-eu-1"))
    assert bool(check_counter(history.operations, start=_FIRST)) is is_broken
    assert (
        check_linearizable(history.operations, Counting(_FIRST)).verdict is Verdict.LINEARIZABLE
    ) is not is_broken


def test_every_row_that_was_acknowledged_is_there_once(path: Path) -> None:
    make(path)
    history = History()

    def client(number: int) -> None:
        store = SqliteStore(path)
        for count in range(_OPERATIONS):
            name = f"added-{number}-{count}"
            with history.calling(number, "add", name) as call:
                _apply(store, call, _change(name, app="test", deleted=0))

    _at_once(client)
    rows = SqliteStore(path).poll() or ()
    found = check_set(history.operations, [row["id"] for row in rows if row["id"] not in GUIDE_IDS])
    assert found.holds, f"{found}\n{history}"
