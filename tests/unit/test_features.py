"""What the product claims: every name that its code has belongs to a feature, every mark means one.

Whether the claims are proven is what ``testkit coverage features`` tells once the tests have run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.coverage.features_claims import (
    Feature,
    ask_inventory,
    load_feature_settings,
    load_features,
    ownership_problems,
)
from testkit.coverage.features_marks import Mark, find_marks

# What reads features and marks has tests of its own.
pytestmark = [pytest.mark.untraced, pytest.mark.usefixtures("unmeasured")]

ROOT = Path(__file__).parents[2]
KINDS = ("unit", "integration", "e2e", "simulation")


@pytest.fixture(scope="module")
def features() -> tuple[Feature, ...]:
    settings = load_feature_settings(ROOT)
    assert settings is not None
    return load_features(settings.file, KINDS)


def markers(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield where a test is marked, and with which feature."""
    for file in folder.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        # Most have none, and to parse all takes seconds.
        for node in ast.walk(ast.parse(text)) if "mark.feature" in text else ():
            match node:
                case ast.Call(func=ast.Attribute(attr="feature", value=ast.Attribute(attr="mark"))):
                    for argument in node.args:
                        yield f"{file}:{argument.lineno}", ast.literal_eval(argument)


@pytest.fixture(scope="module")
def lines() -> list[Mark]:
    """The marks of the source files."""
    return find_marks(
        ROOT, [file.relative_to(ROOT).as_posix() for file in ROOT.glob("packages/*/src/**/*.py")]
    )


@pytest.fixture(scope="module")
def tests() -> list[tuple[str, str]]:
    """Where tests are marked, and with which feature."""
    folders = (*ROOT.glob("packages/*/tests"), ROOT / "e2e", ROOT / "tests")
    return [each for folder in folders for each in markers(folder)]


def test_every_setting_command_route_metric_and_dns_name_belongs_to_a_feature(
    features: tuple[Feature, ...],
) -> None:
    settings = load_feature_settings(ROOT)
    assert settings is not None
    problems = ownership_problems(features, ask_inventory(ROOT, settings.inventory))
    assert not problems, "\n".join([*problems, "features.toml says which names belong to which feature"])


def test_every_marked_test_and_line_is_of_a_feature_that_exists(
    features: tuple[Feature, ...], lines: list[Mark], tests: list[tuple[str, str]]
) -> None:
    known = {feature.id for feature in features}
    marked = [*((mark.place, mark.feature) for mark in lines), *tests]
    assert len(marked) > 100
    unknown = [f"{place}: {feature!r} is no feature" for place, feature in marked if feature not in known]
    assert not unknown, "\n".join(unknown)


def test_every_feature_has_a_test_and_a_line_that_are_marked_with_it(
    features: tuple[Feature, ...], lines: list[Mark], tests: list[tuple[str, str]]
) -> None:
    marked = {mark.feature for mark in lines} & {feature for _, feature in tests}
    assert {feature.id for feature in features if feature.proof} <= marked
