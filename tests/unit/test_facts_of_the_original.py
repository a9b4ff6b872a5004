"""The tests that documents name, as those where a fact of the original is tested, exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "packages" / "proxy" / "tests"
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def missing_tests(text: str) -> list[str]:
    """Name each ``file::test`` in ``text`` that is not defined."""
    return [
        f"{file}::{test}"
        for file, test in NAMED.findall(text)
        if not (TESTS / file).is_file()
        or not re.search(rf"^(async )?def {test}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]


@pytest.mark.parametrize(
    ("document", "count"),
    [("administration.md", 11), ("health.md", 27), ("limits.md", 10), ("rate-limiting.md", 11)],
)
def test_every_fact_has_a_test(document: str, count: int) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    assert len(NAMED.findall(text)) == count
    assert missing_tests(text) == []


def test_a_test_that_is_gone_is_noticed() -> None:
    known = "unit/config/test_settings.py::test_every_variable_of_the_original_exists_with_its_default"
    text = f"`{known}` `unit/config/test_settings.py::test_gone` `unit/gone.py::test_it`"
    assert missing_tests(text) == ["unit/config/test_settings.py::test_gone", "unit/gone.py::test_it"]
