"""How figures read, and that tables print what they are given."""

from __future__ import annotations

import time

import pytest

from edgeproxy.cli import screen


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 << 40, "5.0 TiB"),
        (3 << 50, "3.0 PiB"),
        (3 << 70, "3145728.0 PiB"),
    ],
)
def test_sizes_are_written_in_their_unit(size_bytes: int, text: str) -> None:
    assert screen.size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (3_600 + 125, "1 h 2 min"),
        (3 * 86_400 + 4 * 3_600 + 59, "3 d 4 h"),
    ],
)
def test_durations_are_written_in_two_units(seconds: float, text: str) -> None:
    assert screen.duration_text(seconds) == text


def test_a_table_keeps_ids_that_look_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    made = screen.table(("id", ">count"), [("[bold]one", 5), (":smile:", 12)], dim=[True])
    screen.console().print(made)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "id         count",
        "[bold]one      5",
        ":smile:       12",
    ]


def test_a_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "77")
    assert screen.console().width == 77


def test_json_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_json({"a": [1]})
    assert capsys.readouterr().out == '{\n  "a": [\n    1\n  ]\n}\n'


def test_an_event_is_a_line_in_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    event = {
        "topic": "health",
        "name": "it broke",
        "fields": {"backend": "a", "tries": 3},
        "at_s": 1769860800.5,
    }
    try:
        assert screen.event_line(event) == "2026-01-31 14:00:00  health  it broke  backend=a tries=3"
        assert screen.event_line({**event, "fields": {}}).endswith("  it broke")
    finally:
        monkeypatch.undo()
        time.tzset()
