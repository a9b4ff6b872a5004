from __future__ import annotations

from pathlib import Path

from testkit.coverage.features_marks import Mark, find_marks

SOURCE = '''\
"""A text with # feature: a.text is no comment."""


def serve(
    client,  # feature: a.signature
):
    if client:  # feature: a.branch, b.branch
        return call(
            client,  # feature: a.argument
        )
    # feature: a.alone

    # something else
    return None


# feature: a.nothing
'''


def test_a_comment_marks_its_statement_and_one_that_stands_alone_the_next(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(SOURCE)
    (tmp_path / "other.py").write_text("x = 1\n")
    assert find_marks(tmp_path, ["part.py", "other.py"]) == [
        Mark("a.signature", "part.py", 4),
        Mark("a.branch", "part.py", 7),
        Mark("b.branch", "part.py", 7),
        Mark("a.argument", "part.py", 8),
        Mark("a.alone", "part.py", 14),
        Mark("a.nothing", "part.py", 17),
    ]


def test_a_mark_knows_its_place() -> None:
    assert Mark("a", "src/part.py", 7).place == "src/part.py:7"
