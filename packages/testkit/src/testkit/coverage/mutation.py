"""A campaign of mutants: which are tried, what became of them, and whether that keeps the promises.

A *pool* is a set of mutants with one promise: those of a layer, or those on lines that changed. Only lines
that the tests of their module execute are mutated; what no test reaches is the business of the coverage
gates. Pools are drawn in an order that the seed decides, so that what a time limit cuts off is a fair
sample.
"""

from __future__ import annotations

import queue
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from testkit.coverage.errors import CoverageInputError
from testkit.coverage.matrix import Count
from testkit.coverage.mutation_operators import Mutant, find_mutants
from testkit.coverage.mutation_policy import Promise
from testkit.coverage.mutation_tests import TestIndex
from testkit.coverage.mutation_trial import Baseline, Copy, Verdict


@dataclass(frozen=True, slots=True)
class Pool:
    """Files (with the kinds of test that answer for each) whose mutants are held to one promise."""

    name: str
    promise: Promise
    files: Mapping[str, tuple[str, ...]]
    lines: Mapping[str, frozenset[int]] | None = None
    """Where set, only mutants on these lines of each file count."""

    @property
    def is_whole_layer(self) -> bool:
        """Whether every mutant of its files is meant."""
        return self.promise.number is None and self.lines is None


@dataclass(frozen=True, slots=True)
class Trial:
    """One mutant and what the tests said."""

    mutant: Mutant
    verdict: Verdict
    tests: tuple[str, ...]
    diff: str


@dataclass(slots=True)
class PoolResult:
    """What became of the mutants of a pool."""

    name: str
    promise: Promise
    trials: list[Trial] = field(default_factory=list)
    not_tried: int = 0
    """Mutants that time did not suffice for."""
    without_tests: list[str] = field(default_factory=list)
    """Files that no test answers for."""
    broken: dict[str, str] = field(default_factory=dict)
    """Files of which nothing can be said, since their tests fail without a defect, to what these said."""

    @property
    def killed(self) -> Count:
        """So many of those tried were noticed, in time or by running out of it."""
        noticed = sum(trial.verdict is not Verdict.SURVIVED for trial in self.trials)
        return Count(noticed, len(self.trials))

    @property
    def kept(self) -> bool:
        """Whether the promise is kept; a pool of which nothing could be tried keeps it only if empty."""
        if self.broken:
            return False
        if not self.trials:
            return self.not_tried == 0
        return self.killed.percent >= self.promise.killed

    @property
    def survivors(self) -> list[Trial]:
        return sorted(
            (trial for trial in self.trials if trial.verdict is Verdict.SURVIVED),
            key=lambda trial: (trial.mutant.file, trial.mutant.start),
        )


class Campaign:
    """Draws mutants and tries them in several copies of the repository at once."""

    def __init__(
        self,
        root: Path,
        copies: Sequence[Copy],
        seed: int,
        deadline_s: float,
        suites: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """``deadline_s`` is when no further trial begins, by ``time.monotonic()``; ``suites`` as for
        :class:`TestIndex`."""
        self._root = root
        self._suites = suites
        self._seed = seed
        self._deadline_s = deadline_s
        self._copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in copies:
            self._copies.put(copy)
        self._threads = len(copies)
        self._sources: dict[str, str] = {}
        self._baselines: dict[str, Baseline | CoverageInputError] = {}
        self._indexes: dict[tuple[str, ...], TestIndex] = {}
        self._locks: dict[str, Lock] = {}

    def run(self, pool: Pool, report: Callable[[Trial], None] = lambda _: None) -> PoolResult:
        """Try the mutants of ``pool`` and call ``report`` after each, from the thread that tried it."""
        result = PoolResult(pool.name, pool.promise)
        tests = {file: self._index(kinds).tests_of(file) for file, kinds in pool.files.items()}
        waiting = iter(self._draw(pool, tests, result))
        wanted = pool.promise.number
        lock = Lock()

        def work() -> None:
            while True:
                with lock:
                    if wanted is not None and len(result.trials) + under_way[0] >= wanted:
                        return
                    mutant = next(waiting, None)
                    if mutant is None:
                        return
                    if time.monotonic() >= self._deadline_s:
                        result.not_tried += 1 + sum(1 for _ in waiting)
                        return
                    under_way[0] += 1
                try:
                    trial = self._try(mutant, tests[mutant.file])
                except CoverageInputError as error:
                    trial = None
                    with lock:
                        result.broken.setdefault(mutant.file, str(error))
                finally:
                    with lock:
                        under_way[0] -= 1
                if trial is not None:
                    with lock:
                        result.trials.append(trial)
                    report(trial)

        under_way = [0]
        with ThreadPoolExecutor(self._threads) as threads:
            for ended in [threads.submit(work) for _ in range(self._threads)]:
                ended.result()
        return result

    def _draw(self, pool: Pool, tests: Mapping[str, tuple[str, ...]], result: PoolResult) -> list[Mutant]:
        mutants: list[Mutant] = []
        for file in pool.files:
            found = [mutant for mutant in find_mutants(file, self._source(file)) if _is_in(mutant, pool)]
            if found and not tests[file]:
                result.without_tests.append(file)
            else:
                mutants.extend(found)
        # By name and text alone: one seed draws the same wherever and in whatever order files are listed.
        random.Random(f"{self._seed} {pool.name}").shuffle(mutants)
        return mutants

    def _try(self, mutant: Mutant, tests: tuple[str, ...]) -> Trial | None:
        """Return None for a mutant on a line that the tests do not reach."""
        baseline = self._baseline(mutant.file, tests)
        if mutant.statement_line not in baseline.lines:
            return None
        source = self._source(mutant.file)
        with self._copy() as copy:
            verdict = copy.judge(mutant.file, mutant.apply(source), baseline)
        return Trial(mutant, verdict, tests, mutant.diff(source))

    def _baseline(self, file: str, tests: tuple[str, ...]) -> Baseline:
        with self._locks.setdefault(file, Lock()):
            if file not in self._baselines:
                try:
                    with self._copy() as copy:
                        self._baselines[file] = copy.measure(file, tests)
                except CoverageInputError as error:
                    self._baselines[file] = error
            found = self._baselines[file]
            if isinstance(found, CoverageInputError):
                raise found
            return found

    def _source(self, file: str) -> str:
        if file not in self._sources:
            self._sources[file] = (self._root / file).read_text(encoding="utf-8")
        return self._sources[file]

    def _index(self, kinds: tuple[str, ...]) -> TestIndex:
        if kinds not in self._indexes:
            self._indexes[kinds] = TestIndex(self._root, kinds, self._suites)
        return self._indexes[kinds]

    @contextmanager
    def _copy(self) -> Iterator[Copy]:
        copy = self._copies.get()
        try:
            yield copy
        finally:
            self._copies.put(copy)


def _is_in(mutant: Mutant, pool: Pool) -> bool:
    if pool.lines is None:
        return True
    changed = pool.lines.get(mutant.file, frozenset())
    return any(line in changed for line in range(mutant.line, mutant.end_line + 1))


def to_text(results: Iterable[PoolResult]) -> str:
    """Return survivors with their diffs, then one line for each pool."""
    lines: list[str] = []
    for result in results:
        lines += result.broken.values()
        for trial in result.survivors:
            mutant = trial.mutant
            lines += [
                f"SURVIVED {mutant.file}:{mutant.line} {mutant.function or '(module)'}",
                *(f"    {line}" for line in trial.diff.splitlines()[2:]),
                f"    not noticed by {', '.join(trial.tests)}",
            ]
    return "\n".join([*lines, *map(_summary, results)])


def _summary(result: PoolResult) -> str:
    verdicts = Counter(trial.verdict for trial in result.trials)
    parts = [f"{verdicts[verdict]} {verdict}" for verdict in Verdict if verdicts[verdict]]
    if result.not_tried:
        parts.append(f"{result.not_tried} not tried for want of time")
    if result.broken:
        parts.append(f"tests fail without a defect: {', '.join(result.broken)}")
    if result.without_tests:
        parts.append(f"no tests of their own: {', '.join(result.without_tests)}")
    state = "kept" if result.kept else "MISSED"
    return (
        f"{result.name}: {result.killed} % of {len(result.trials)} mutants noticed, "
        f"{float(result.promise.killed):g} % required: {state} ({'; '.join(parts) or 'nothing to mutate'})"
    )


def to_document(results: Iterable[PoolResult], seed: int) -> dict[str, object]:
    """Return the outcome as plain values, for JSON."""
    return {
        "seed": seed,
        "pools": [
            {
                "name": result.name,
                "killed": result.killed.hit,
                "tried": result.killed.total,
                "required_percent": float(result.promise.killed),
                "not_tried": result.not_tried,
                "without_tests": result.without_tests,
                "broken": list(result.broken),
                "kept": result.kept,
                "survivors": [
                    {
                        "file": trial.mutant.file,
                        "line": trial.mutant.line,
                        "function": trial.mutant.function,
                        "diff": trial.diff,
                        "tests": list(trial.tests),
                    }
                    for trial in result.survivors
                ],
            }
            for result in results
        ],
    }
