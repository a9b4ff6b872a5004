"""Items that fall due a fixed time after they were added, by a clock that the test holds."""

from __future__ import annotations

import pytest

from edgeproxy.worker.loop import Deadlines, Loop


def test_items_fall_due_in_the_order_they_were_added() -> None:
    due: list[str] = []
    deadlines = Deadlines(10.0, due.append)
    assert deadlines.next_at() is None
    deadlines.add("a", 0.0)
    deadlines.add("b", 1.0)
    assert deadlines.next_at() == 10.0
    deadlines.expire(9.9)
    assert due == []
    deadlines.expire(10.0)
    assert due == ["a"]
    assert deadlines.next_at() == 11.0
    deadlines.expire(99.0)
    assert due == ["a", "b"]
    assert deadlines.next_at() is None


def test_adding_again_begins_anew() -> None:
    due: list[str] = []
    deadlines = Deadlines(10.0, due.append)
    deadlines.add("a", 0.0)
    deadlines.add("b", 1.0)
    deadlines.add("a", 2.0)
    assert deadlines.next_at() == 11.0
    deadlines.expire(11.5)
    assert due == ["b"]


def test_another_duration_counts_for_items_that_wait() -> None:
    due: list[str] = []
    deadlines = Deadlines(10.0, due.append)
    deadlines.add("a", 0.0)
    deadlines.add("b", 3.0)
    deadlines.duration_s = 4.0
    assert deadlines.next_at() == 4.0
    deadlines.expire(5.0)
    assert due == ["a"]
    deadlines.duration_s = 20.0
    deadlines.expire(22.0)
    assert due == ["a"]
    deadlines.expire(23.0)
    assert due == ["a", "b"]


def test_a_discarded_item_never_falls_due() -> None:
    due: list[str] = []
    deadlines = Deadlines(10.0, due.append)
    deadlines.add("a", 0.0)
    deadlines.discard("a")
    deadlines.discard("unknown")
    deadlines.expire(10.0)
    assert due == []


def test_an_item_may_discard_another_that_is_due_too() -> None:
    due: list[str] = []

    def on_due(item: str) -> None:
        due.append(item)
        deadlines.discard("b")

    deadlines = Deadlines(10.0, on_due)
    deadlines.add("a", 0.0)
    deadlines.add("b", 0.0)
    deadlines.expire(10.0)
    assert due == ["a"]


def test_an_item_may_add_itself_again() -> None:
    due: list[str] = []

    def on_due(item: str) -> None:
        due.append(item)
        deadlines.add(item, 10.0)

    deadlines = Deadlines(10.0, on_due)
    deadlines.add("a", 0.0)
    deadlines.expire(10.0)
    assert due == ["a"]
    assert deadlines.next_at() == 20.0


def test_what_an_item_raises_does_not_hold_up_the_next() -> None:
    defects: list[tuple[object, str]] = []
    due: list[str] = []

    def on_due(item: str) -> None:
        if item == "bad":
            raise RuntimeError("a defect")
        due.append(item)

    deadlines = Deadlines(10.0, on_due, lambda item, error: defects.append((item, str(error))))
    deadlines.add("bad", 0.0)
    deadlines.add("good", 0.0)
    deadlines.expire(10.0)
    assert due == ["good"]
    assert defects == [("bad", "a defect")]


def test_without_anybody_to_take_it_a_defect_is_raised() -> None:
    def fail(item: str) -> None:
        raise KeyError(item)

    deadlines = Deadlines(10.0, fail)
    deadlines.add("a", 0.0)
    with pytest.raises(KeyError):
        deadlines.expire(10.0)


def test_a_loop_looks_at_deadlines_when_the_first_of_any_class_is_due() -> None:
    due: list[str] = []
    loop = Loop()
    slow, quick = loop.deadlines(50.0, due.append), loop.deadlines(2.0, due.append)
    slow.add("slow", 100.0)
    assert loop._look_at_s == 150.0
    quick.add("quick", 149.5)
    assert loop._look_at_s == 150.0
    loop.now_s = 150.0
    loop._look_at_deadlines()
    assert due == ["slow"]
    loop.now_s = 151.5
    loop._look_at_deadlines()
    assert due == ["slow", "quick"]


def test_a_loop_looks_again_after_a_second_at_what_is_due_later() -> None:
    """Its duration may have been shortened since."""
    loop = Loop()
    deadlines: Deadlines[str] = loop.deadlines(50.0, lambda _item: None)
    deadlines.add("a", 100.0)
    loop.now_s = 120.0
    loop._look_at_deadlines()
    assert loop._look_at_s == 121.0
    loop.now_s = 149.75
    loop._look_at_deadlines()
    assert loop._look_at_s == 150.0
    loop.now_s = 150.0
    loop._look_at_deadlines()
    assert loop._look_at_s == float("inf")
