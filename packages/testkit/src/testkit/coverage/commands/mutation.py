"""``testkit coverage mutation``: plant small defects and see whether the tests notice."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.exit_codes import FAILED, OK
from testkit.coverage.git import Repository
from testkit.coverage.mutation import Campaign, Pool, Trial, to_document, to_text
from testkit.coverage.mutation_policy import MutationPolicy, Promise, load_mutation_policy
from testkit.coverage.mutation_trial import Verdict, copies_of
from testkit.coverage.policy import Policy
from testkit.coverage.policy_reader import load_policy
from testkit.coverage.sources import assign_sources
from testkit.coverage.workspace import Workspace, add_base_argument

NAME = "mutation"
HELP = "plant small defects in copies of the code and fail when too many survive its tests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what bounds the campaign."""
    add_base_argument(parser)
    parser.add_argument(
        "--number", type=int, metavar="N", help="try at most so many mutants of each layer, drawn by the seed"
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbits(32), metavar="S", help="of the draw, fresh by default"
    )
    parser.add_argument(
        "--paths", nargs="+", default=[], metavar="PATH", help="only files and folders named here"
    )
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="begin no further trial after so long (60)"
    )
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="trials at a time (one per core)"
    )


def run(options: argparse.Namespace) -> int:
    """Return OK when every promise is kept, else FAILED; survivors are printed and kept in mutation.json.

    Raises:
        CoverageInputError: the promises cannot be read, or there is nothing to mutate.
    """
    workspace = Workspace.of(options)
    policy = load_policy(workspace.pyproject)
    promises = load_mutation_policy(workspace.pyproject, frozenset(layer.name for layer in policy.layers))
    # Whole layers come last: they take whatever time is left.
    pools = sorted(_pools(workspace, policy, promises, options), key=lambda pool: pool.is_whole_layer)
    if not any(pool.files for pool in pools):
        raise CoverageInputError(["there is nothing to mutate: no path given lies in a layer with a promise"])
    print(f"seed {options.seed}", flush=True)
    deadline_s = time.monotonic() + options.minutes * 60
    with (
        tempfile.TemporaryDirectory(prefix="mutation-") as folder,
        copies_of(workspace.root, Path(folder), options.jobs, promises.pytest_options) as copies,
    ):
        campaign = Campaign(workspace.root, copies, options.seed, deadline_s, promises.suites)
        results = [campaign.run(pool, _announce) for pool in pools]
    workspace.output.mkdir(parents=True, exist_ok=True)
    document = json.dumps(to_document(results, options.seed), indent=2)
    (workspace.output / "mutation.json").write_text(document + "\n", encoding="utf-8")
    print(to_text(results))
    return OK if all(result.kept for result in results) else FAILED


def _pools(
    workspace: Workspace, policy: Policy, promises: MutationPolicy, options: argparse.Namespace
) -> Iterator[Pool]:
    layers = assign_sources(workspace.root, policy).layers
    kinds = {
        file: layer.requirement.kinds
        for layer in policy.layers
        for file in layers[layer.name]
        if _is_named(file, options.paths)
    }
    for name, promise in promises.layers.items():
        files = {file: kinds[file] for file in layers[name] if file in kinds}
        yield Pool(name, _bounded(promise, options.number), files)
    if promises.changed is None:
        return
    repository = Repository(workspace.root)
    base = repository.find_base(policy.base, options.base)
    if isinstance(base, str):
        print(f"note: {base}; what changed is not tried by itself")
        return
    print(f"note: changed is what differs from {base}")
    difference = repository.difference(base.commit)
    changed = {file: lines for file in kinds if (lines := difference.changed_lines(file))}
    files = {file: kinds[file] for file in changed}
    yield Pool("changed", _bounded(promises.changed, options.number), files, changed)


def _is_named(file: str, paths: Sequence[str]) -> bool:
    return not paths or any(Path(file).is_relative_to(os.path.normpath(path)) for path in paths)


def _bounded(promise: Promise, number: int | None) -> Promise:
    if number is None:
        return promise
    return replace(promise, number=number if promise.number is None else min(number, promise.number))


def _announce(trial: Trial) -> None:
    if trial.verdict is Verdict.SURVIVED:
        print(f"survived: {trial.mutant.file}:{trial.mutant.line}", flush=True)
