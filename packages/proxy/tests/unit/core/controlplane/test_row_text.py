"""Rows as text: what triggers write is read back as it was."""

from __future__ import annotations

import pytest

from edgeproxy.core.controlplane.row_text import row_from_text, row_text_sql


def test_expression_names_each_column_once() -> None:
    assert row_text_sql(("app", "port"), "NEW") == ("'app=' || quote(NEW.app) || ' port=' || quote(NEW.port)")
    assert row_text_sql(("app",), "OLD") == "'app=' || quote(OLD.app)"


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("", {}),
        ("app='test' port=9001", {"app": "test", "port": 9001}),
        ("app=NULL", {"app": None}),
        ("app='' weight=-3", {"app": "", "weight": -3}),
        ("app='it''s a ''day''' port=1", {"app": "it's a 'day'", "port": 1}),
        ("app='a=1 b=''2''' b=3", {"app": "a=1 b='2'", "b": 3}),
        ("app='two\nlines' port=1", {"app": "two\nlines", "port": 1}),
        ("soft_limit=1.5 hard_limit=-2.0e-05", {"soft_limit": 1.5, "hard_limit": -2.0e-05}),
        ("weight=9.0e+999", {"weight": float("inf")}),
        ("weight=-Inf", {"weight": float("-inf")}),
        ("region=X'00fF'", {"region": b"\x00\xff"}),
        ("region=X''", {"region": b""}),
    ],
)
def test_text_is_read_as_the_row_it_was(text: str, row: dict[str, object]) -> None:
    assert row_from_text(text) == row


def test_numbers_keep_their_type() -> None:
    row = row_from_text("port=1 weight=1.0")
    assert (type(row["port"]), type(row["weight"])) == (int, float)


@pytest.mark.parametrize(
    "text", ["nonsense", "app='open", "app=", "app=X'0g'", "app='a'port=1", "1app='a'", "port=many"]
)
def test_text_that_no_trigger_writes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no row of the change log|could not convert"):
        row_from_text(text)
