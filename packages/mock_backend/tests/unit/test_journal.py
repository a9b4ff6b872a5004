from __future__ import annotations

import pytest

from mock_backend.journal import Entry, Journal, select


def journal_of(*paths: str, capacity: int = 100) -> Journal:
    journal = Journal(capacity)
    for path in paths:
        journal.note(1.5, "request", path=path)
    return journal


def test_entries_are_numbered_from_one() -> None:
    assert [(entry.number, entry.path) for entry in journal_of("/a", "/b").entries()] == [
        (1, "/a"),
        (2, "/b"),
    ]


def test_oldest_entries_are_dropped_and_counted() -> None:
    journal = journal_of("/a", "/b", "/c", capacity=2)
    assert [entry.number for entry in journal.entries()] == [2, 3]
    assert (journal.dropped, journal.last_number) == (1, 3)
    assert [entry.number for entry in journal.entries(after=2)] == [3]
    assert journal.entries(after=3) == journal.entries(after=99) == []


def test_numbers_go_on_after_clearing() -> None:
    journal = journal_of("/a", "/b")
    journal.clear()
    journal.note(2.0, "open")
    assert [entry.number for entry in journal.entries()] == [3]


def test_entry_survives_json_without_its_empty_fields() -> None:
    (entry,) = journal_of("/a").entries()
    assert entry.as_json() == {"number": 1, "at_s": 1.5, "event": "request", "path": "/a"}
    assert Entry.from_json(entry.as_json()) == entry


def test_selection_wants_every_field_named() -> None:
    entries = journal_of("/a", "/b", "/a").entries()
    assert [entry.number for entry in select(entries, event="request", path="/a")] == [1, 3]
    with pytest.raises(ValueError, match="an entry has no colour; it has number, "):
        select(entries, colour="red")
