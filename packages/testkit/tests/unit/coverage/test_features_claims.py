from __future__ import annotations

from pathlib import Path

import pytest

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.features_claims import (
    Feature,
    ask_inventory,
    load_feature_settings,
    load_features,
    ownership_problems,
)

pytestmark = pytest.mark.usefixtures("unmeasured")

KINDS = ("unit", "e2e")


def problems_of(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "features.toml"
    file.write_text(text)
    with pytest.raises(CoverageInputError) as refused:
        load_features(file, KINDS)
    return [problem.removeprefix(f"{file}: ") for problem in refused.value.problems]


def test_features_are_read_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "features.toml"
    file.write_text(
        '[[feature]]\nid = "b"\ntitle = "B"\nproof = ["unit"]\nnames = ["setting x"]\n'
        '[[feature]]\nid = "a"\ntitle = "A"\n'
    )
    assert load_features(file, KINDS) == (
        Feature("b", "B", ("unit",), ("setting x",)),
        Feature("a", "A", (), ()),
    )


def test_every_problem_of_the_list_is_named(tmp_path: Path) -> None:
    text = """
feature = [
    { id = "a", title = "A", proof = ["unit", "smoke"], names = ["setting x"], colour = "red" },
    { id = "a", title = "A again", names = ["setting x"] },
    { title = "", names = "setting y" },
    7,
]
"""
    assert problems_of(tmp_path, text) == [
        "a: unknown key 'colour', there are id, title, proof, names",
        "a: unknown kind 'smoke', there are unit, e2e",
        "feature 3: id must be a text",
        "feature 3: title must be a text",
        "feature 3: proof and names must be lists of texts",
        "feature 4 must be a table",
        "id 'a' is there 2 times",
        "id '' is there 2 times",
        "name 'setting x' is there 2 times",
    ]


@pytest.mark.parametrize("text", ["", "feature = 3", "feature = []"])
def test_a_list_without_features_is_refused(tmp_path: Path, text: str) -> None:
    assert problems_of(tmp_path, text) == ["there must be [[feature]] tables"]


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "feature = [")
    assert "Invalid value" in problem


def test_a_repository_need_not_claim_anything(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.testkit]\n")
    assert load_feature_settings(tmp_path) is None


def test_the_settings_name_the_list_and_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.testkit.features]\nfile = "claims.toml"\ninventory = ["python", "names.py"]\n'
    )
    settings = load_feature_settings(tmp_path)
    assert settings is not None
    assert (settings.file, settings.inventory) == (tmp_path / "claims.toml", ("python", "names.py"))


def test_wrong_settings_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.testkit.features]\ninventory = []\nextra = 1\n")
    with pytest.raises(CoverageInputError) as refused:
        load_feature_settings(tmp_path)
    assert [problem.partition("] ")[2] for problem in refused.value.problems] == [
        "unknown key 'extra', there are file, inventory",
        "file must name the list of features",
        "inventory must be a command: a list of words",
    ]


def test_names_that_belong_nowhere_or_do_not_exist_are_told() -> None:
    features = [Feature("a", "A", (), ("setting x", "setting old"))]
    assert ownership_problems(features, ["setting x", "setting new"]) == [
        "setting new: belongs to no feature",
        "a: owns 'setting old', which does not exist",
    ]


def test_the_inventory_is_what_the_command_prints(tmp_path: Path) -> None:
    (tmp_path / "names.py").write_text("print('[\"setting x\"]')")
    assert ask_inventory(tmp_path, ["python", "names.py"]) == ("setting x",)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["python", "-c", "import sys; sys.exit('no names today')"], "no names today"),
        (["python", "-c", "print('no JSON')"], "Expecting value"),
        (["echo", '{"a": 1}'], "something else than a list of texts"),
        (["no-such-program-anywhere"], "No such file"),
    ],
)
def test_an_inventory_that_fails_is_told_with_its_command(
    tmp_path: Path, command: list[str], told: str
) -> None:
    with pytest.raises(CoverageInputError) as refused:
        ask_inventory(tmp_path, command)
    (problem,) = refused.value.problems
    assert problem.startswith(f"inventory: {command[0]}")
    assert told in problem
