from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.policy import Layer, Policy, RatchetPolicy, Requirement
from testkit.coverage.sources import assign_sources

ANY = Requirement(("unit",))


def policy(layers: Mapping[str, tuple[str, ...]], sources: tuple[str, ...] = ("src/**/*.py",)) -> Policy:
    return Policy(("unit",), sources, tuple(Layer(name, paths, ANY) for name, paths in layers.items()), ANY)


def make(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def problems_of(root: Path, wrong: Policy) -> tuple[str, ...]:
    with pytest.raises(CoverageInputError) as info:
        assign_sources(root, wrong)
    return info.value.problems


def test_every_file_goes_to_its_layer_sorted(tmp_path: Path) -> None:
    make(
        tmp_path,
        "src/app.py",
        "src/core/b.py",
        "src/core/a/c.py",
        "src/core/notes.txt",
        "src/core/dir.py/x.py",
    )
    layers = {"app": ("src/*.py",), "core": ("src/core/**/*.py",)}
    assert assign_sources(tmp_path, policy(layers)).layers == {
        "app": ["src/app.py"],
        "core": ["src/core/a/c.py", "src/core/b.py", "src/core/dir.py/x.py"],
    }


def test_a_layer_that_matches_nothing_is_named(tmp_path: Path) -> None:
    make(tmp_path, "src/app.py")
    assert problems_of(tmp_path, policy({"app": ("src/*.py",), "core": ("src/core/*.py",)})) == (
        "layer core: 'src/core/*.py' matches no file",
    )


def test_sources_that_match_nothing_are_named(tmp_path: Path) -> None:
    make(tmp_path, "src/app.py")
    assert problems_of(tmp_path, policy({"app": ("src/*.py",)}, sources=("lib/*.py",))) == (
        "sources: 'lib/*.py' matches no file",
    )


def test_a_file_without_a_layer_is_named(tmp_path: Path) -> None:
    make(tmp_path, "src/app.py", "src/new/part.py")
    assert problems_of(tmp_path, policy({"app": ("src/*.py",)})) == ("src/new/part.py belongs to no layer",)


def test_a_file_in_two_layers_is_named(tmp_path: Path) -> None:
    make(tmp_path, "src/app.py")
    assert problems_of(tmp_path, policy({"app": ("src/*.py",), "all": ("src/**/*.py",)})) == (
        "src/app.py belongs to more than one layer: app, all",
    )


def test_a_file_that_two_patterns_of_one_layer_match_is_counted_once(tmp_path: Path) -> None:
    make(tmp_path, "src/app.py")
    assert assign_sources(tmp_path, policy({"app": ("src/*.py", "src/**/*.py")})).files == ["src/app.py"]


def test_groups_and_critical_files_are_sources_in_any_number_of_sets(tmp_path: Path) -> None:
    make(tmp_path, "src/app.py", "src/core/a.py", "src/core/b.py", "notes.py")
    layers = policy({"app": ("src/*.py",), "core": ("src/core/*.py",)})
    groups = (Layer("letters", ("src/core/*.py",), ANY), Layer("first", ("**/a*.py",), ANY))
    sources = assign_sources(
        tmp_path, replace(layers, groups=groups, ratchet=RatchetPolicy(critical=("**/core/b.py", "notes.py")))
    )
    assert sources.groups == {
        "letters": ["src/core/a.py", "src/core/b.py"],
        "first": ["src/app.py", "src/core/a.py"],
    }
    assert sources.critical == {"src/core/b.py"}


def test_groups_and_critical_patterns_that_match_nothing_are_named(tmp_path: Path) -> None:
    make(tmp_path, "src/app.py")
    wrong = replace(
        policy({"app": ("src/*.py",)}),
        groups=(Layer("wire", ("wire/*.py",), ANY),),
        ratchet=RatchetPolicy(critical=("core/*.py",)),
    )
    assert problems_of(tmp_path, wrong) == (
        "group wire: 'wire/*.py' matches no file",
        "ratchet.critical: 'core/*.py' matches no file",
    )
