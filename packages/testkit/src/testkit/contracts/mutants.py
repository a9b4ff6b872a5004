"""Mutants of a contract's reference: drawn by a seed, each run through the contract in a process of its own.

The operators are those of :mod:`testkit.coverage.mutation_operators`. A mutant that no test fails on is
either the same program in other words or a fact that the contract does not tell; the diff says which.

A process forks for each mutant, rewrites the module of the reference inside the child and runs the
contract there, within limits of time and memory. So it must have no threads:
``python -m testkit contracts`` is such a process, a test run is not.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random

from testkit.contracts.checking import Verdict
from testkit.contracts.planted import Suite
from testkit.coverage.mutation_operators import Mutant, find_mutants

_CPU_S = 3
_WALL_S = 30
_MEMORY_BYTES = 1 << 30
_KILLED, _SURVIVED = 0, 1


@dataclass(frozen=True, slots=True)
class MutantsReport:
    """What became of the mutants tried."""

    seed: int
    tried: int
    survivors: tuple[str, ...]
    """Each as a diff."""

    @property
    def killed(self) -> int:
        return self.tried - len(self.survivors)


def draw_mutants(suite: Suite, number: int, seed: int) -> list[Mutant]:
    """At most ``number`` mutants of the reference, in the order of its text, always the same for a seed."""
    path = source_of(suite)
    everything = [
        mutant
        for mutant in find_mutants(path.name, path.read_text(encoding="utf-8"))
        if not suite.mutate or mutant.function.partition(".")[0] in suite.mutate
    ]
    drawn = Random(seed).sample(everything, min(number, len(everything)))
    return sorted(drawn, key=lambda mutant: mutant.start)


def try_mutants(suite: Suite, number: int, seed: int) -> MutantsReport:
    """Run the contract on each mutant drawn; only for a process without threads.

    Raises:
        AssertionError: the reference itself does not hold the contract.
    """
    source = source_of(suite).read_text(encoding="utf-8")
    suite.check_reference().require()
    assert not _is_killed(suite, source), f"{suite.name}: fails in a child process without a defect"
    drawn = draw_mutants(suite, number, seed)
    survivors = [mutant.diff(source) for mutant in drawn if not _is_killed(suite, mutant.apply(source))]
    return MutantsReport(seed, len(drawn), tuple(survivors))


def source_of(suite: Suite) -> Path:
    """The file of the reference."""
    file = import_module(suite.module).__file__
    assert file is not None
    return Path(file)


def _is_killed(suite: Suite, text: str) -> bool:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os._exit(_verdict_of(suite, text))
    _, status = os.waitpid(child, 0)
    # A signal is that of a limit: it ran in circles.
    return not os.WIFEXITED(status) or os.WEXITSTATUS(status) != _SURVIVED


def _verdict_of(suite: Suite, text: str) -> int:
    """In the child: become the mutant and run the contract."""
    gc.disable()
    signal.alarm(_WALL_S)
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    module = import_module(suite.module)
    try:
        exec(compile(text, str(module.__file__), "exec"), vars(module))  # noqa: S102  that is what a mutant is
        report = suite.check_reference(stop_early=True)
    except BaseException:  # noqa: BLE001  it does not even begin
        return _KILLED
    return _KILLED if report.of(Verdict.FAILED) else _SURVIVED
