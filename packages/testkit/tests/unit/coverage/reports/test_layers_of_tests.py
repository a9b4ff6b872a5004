from __future__ import annotations

import pytest

from testkit.coverage.features_outcomes import TestOutcome
from testkit.coverage.reports.layers_of_tests import ACROSS, count_tests

LAYERS = {
    "core": ["packages/a/src/a/core/part.py", "packages/a/src/a/core/deep/part.py"],
    "shell": ["packages/a/src/a/main.py", "packages/a/src/a/net/part.py"],
    "other": ["packages/b/src/b/part.py"],
    "deep": ["packages/d/src/d/one/two/part.py"],
    "left": ["packages/e/src/e/left/part.py"],
    "right": ["packages/e/src/e/right/part.py"],
}


@pytest.mark.parametrize(
    ("test", "layer"),
    [
        ("packages/a/tests/unit/core/test_part.py::test_it", "core"),
        ("packages/a/tests/unit/core/deep/test_part.py::test_it", "core"),
        ("packages/a/tests/unit/core/unknown/test_part.py::test_it", "core"),
        ("packages/a/tests/unit/net/test_part.py::test_it", "shell"),
        ("packages/a/tests/unit/test_main.py::test_it", "shell"),
        ("packages/b/tests/unit/test_part.py::test_it", "other"),
        ("packages/d/tests/unit/one/test_part.py::test_it", "deep"),
        ("packages/e/tests/unit/test_part.py::test_it", ACROSS),
        ("packages/c/tests/unit/test_part.py::test_it", ACROSS),
        ("e2e/test_story.py::test_it", ACROSS),
    ],
)
def test_a_test_belongs_to_the_layer_whose_folders_it_mirrors(test: str, layer: str) -> None:
    counts = count_tests(LAYERS, {"unit": [TestOutcome(test, "passed", (), 0.0)], "e2e": []})
    assert counts.pop(layer) == {"unit": 1, "e2e": 0}
    assert all(not any(of.values()) for of in counts.values())
