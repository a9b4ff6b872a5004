"""Pages: what each record makes of them, as they were, on branches."""

from __future__ import annotations

from random import Random

import pytest

from examples.log.pages import PAGE_BYTES, Clear, Copy, Record, Timeline, Write, read_record, record_bytes


def timeline_of(*records: Record) -> Timeline:
    timeline = Timeline()
    for record in records:
        timeline.apply(record_bytes(record))
    return timeline


def page_of(data: bytes) -> bytes:
    return data.ljust(PAGE_BYTES, b"\0")


@pytest.mark.parametrize("record", [Write(1, 2, b"data"), Copy(1, 2), Clear(1)])
def test_records_of_every_kind_are_read_as_they_were_written(record: Record) -> None:
    assert read_record(record_bytes(record)) == record


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"\xc1",
        b"\x81\xa4type\xa5Write",
        record_bytes(Clear(1))[:-1],
        record_bytes(Write(1, -1, b"")),
        record_bytes(Write(1, PAGE_BYTES - 1, b"ab")),
    ],
)
def test_what_is_no_record_is_refused_and_changes_nothing(rubbish: bytes) -> None:
    timeline = timeline_of(Write(1, 0, b"kept"))
    with pytest.raises(ValueError, match=r"\w"):
        timeline.apply(rubbish)
    assert (timeline.position, timeline.page(1)) == (1, page_of(b"kept"))


def test_each_kind_of_record_changes_its_page() -> None:
    timeline = timeline_of(Write(1, 0, b"abcdef"), Write(1, 2, b"XY"))
    assert timeline.page(1) == page_of(b"abXYef")
    timeline.apply(record_bytes(Copy(2, 1)))
    timeline.apply(record_bytes(Clear(1)))
    assert timeline.page(1) == page_of(b"")
    assert timeline.page(2) == page_of(b"abXYef")


def test_page_is_what_it_was_at_every_position(rng: Random) -> None:
    timeline, history = Timeline(), [{number: page_of(b"") for number in range(3)}]
    for _ in range(100):
        page = rng.randrange(3)
        choices: list[Record] = [
            Write(page, rng.randrange(60), rng.randbytes(4)),
            Copy(page, rng.randrange(3)),
            Clear(page),
        ]
        timeline.apply(record_bytes(rng.choices(choices, [8, 1, 1])[0]))
        history.append({number: timeline.page(number) for number in range(3)})
    for position, pages in enumerate(history):
        assert {number: timeline.page(number, position) for number in range(3)} == pages


def test_every_change_of_a_page_is_a_version() -> None:
    timeline = timeline_of(Write(1, 0, b"a"), Write(2, 0, b"b"), Write(1, 1, b"c"), Clear(2))
    assert timeline.versions(1) == [1, 3]
    assert timeline.versions(2) == [2, 4]
    assert timeline.versions(3) == []


def test_what_is_still_to_come_cannot_be_read() -> None:
    timeline = timeline_of(Clear(1))
    for ask in (lambda: timeline.page(1, 2), lambda: timeline.branch(2), lambda: timeline.snapshot(2)):
        with pytest.raises(LookupError, match="the log ends at 1"):
            ask()


def test_snapshot_has_all_pages_of_one_moment() -> None:
    timeline = timeline_of(Write(1, 0, b"a"), Write(2, 0, b"b"), Clear(1))
    assert timeline.snapshot() == {2: page_of(b"b")}
    assert timeline.snapshot(2) == {1: page_of(b"a"), 2: page_of(b"b")}
    assert timeline.snapshot(0) == {}


def test_branches_go_their_own_ways() -> None:
    main = timeline_of(Write(1, 0, b"shared"), Write(1, 0, b"later!"))
    branch = main.branch(1)
    assert branch.page(1) == page_of(b"shared")
    branch.apply(record_bytes(Write(2, 0, b"of the branch")))
    main.apply(record_bytes(Write(3, 0, b"of the main line")))
    assert (branch.page(3), main.page(2)) == (page_of(b""), page_of(b""))
    assert (branch.position, main.position) == (2, 3)
    assert branch.snapshot() == {1: page_of(b"shared"), 2: page_of(b"of the branch")}
    assert branch.snapshot(1) == main.snapshot(1)


def test_branch_of_a_branch_has_what_both_had() -> None:
    main = timeline_of(Write(1, 0, b"1"), Write(2, 0, b"2"))
    twig = main.branch().branch()
    twig.apply(record_bytes(Clear(1)))
    assert twig.versions(1) == [1, 3]
    assert twig.snapshot() == {2: page_of(b"2")}
    assert main.branch(1).branch().versions(2) == []
