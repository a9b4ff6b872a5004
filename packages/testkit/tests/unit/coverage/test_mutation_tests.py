from __future__ import annotations

from pathlib import Path

import pytest

from testkit.coverage.mutation_tests import TestIndex, module_name

TESTS = {
    "packages/a/tests/unit/core/test_part.py": "",
    "packages/a/tests/integration/core/test_part.py": "",
    "packages/a/tests/unit/core/test_part_large.py": "",
    "packages/a/tests/unit/test_part.py": "",
    "packages/b/tests/unit/core/test_part.py": "",
    "packages/a/tests/unit/core/test_other.py": "from a.core import used\nimport a.core.used_too\n",
    "packages/a/tests/unit/core/test_long.py": "from . import nothing\n",
    "packages/a/tests/e2e/core/test_part.py": "",
    "packages/a/tests/unit/test_main.py": "",
    ".venv/tests/unit/core/test_part.py": "",
}


@pytest.fixture
def index(tmp_path: Path) -> TestIndex:
    for name, text in TESTS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return TestIndex(tmp_path, ("unit", "integration"))


@pytest.mark.parametrize(
    ("module", "tests"),
    [
        ("core/part.py", ["unit/core/test_part", "unit/core/test_part_large", "integration/core/test_part"]),
        ("core/used.py", ["unit/core/test_other"]),
        ("core/used_too.py", ["unit/core/test_other"]),
        ("core/long_name_of_it.py", ["unit/core/test_long"]),
        ("core/unknown_name.py", []),
        ("core/unknown.py", []),
        ("__main__.py", ["unit/test_main"]),
    ],
)
def test_the_tests_of_a_module_mirror_it_or_import_it_or_have_a_shorter_name(
    index: TestIndex, module: str, tests: list[str]
) -> None:
    expected = tuple(f"packages/a/tests/{test}.py" for test in tests)
    assert index.tests_of(f"packages/a/src/a/{module}") == expected


def test_a_suite_answers_besides_for_whatever_the_settings_say(tmp_path: Path, index: TestIndex) -> None:
    suite = "packages/a/tests/unit/core/test_long.py"
    files = ["packages/a/src/a/core/us*.py", "packages/a/src/a/core/long*.py"]
    with_suite = TestIndex(
        tmp_path, ("unit",), {suite: files, "packages/a/tests/e2e/core/test_part.py": files}
    )
    used = "packages/a/src/a/core/used.py"
    assert with_suite.tests_of(used) == (*index.tests_of(used), suite)
    assert with_suite.tests_of("packages/a/src/a/core/long_name_of_it.py") == (suite,)
    assert with_suite.tests_of("packages/a/src/a/__main__.py") == ("packages/a/tests/unit/test_main.py",)


@pytest.mark.parametrize(
    ("file", "name"),
    [("src/a/b.py", "a.b"), ("x/src/a/__init__.py", "a"), ("a/b.py", "a.b")],
)
def test_a_modules_name_begins_below_src(file: str, name: str) -> None:
    assert module_name(file) == name
