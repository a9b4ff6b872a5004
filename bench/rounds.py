"""All rows, round by round: the targets take turns, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Final

from bench import own
from bench.goals import GOALS, Verdict
from bench.loads import HANDSHAKES, IDLE, MACHINE_CPU, WRK_ROWS, Effort, Row, quiet
from bench.peers import DIRECT, HAPROXY, OURS, TARGETS, Missing, Stage, Target
from bench.profile import profile
from bench.samples import Outcome, Sample, added_ratio, ratio
from bench.wrk import WrkError

_CHANGES_ROWS: Final = 10_000
_OWN: Final = {
    "choosing": ("choosing among 10 / 1,000 / 10,000", "µs"),
    "changes": ("p99 while 10,000 rows change", "times usual"),
    "start": ("start to first served connection", "s"),
}
COMPARED: Final = {row.name: row for row in (*WRK_ROWS, HANDSHAKES, IDLE)}
ROWS: Final = tuple(GOALS)
"""Names of all rows, in the order of the report."""

Tell = Callable[[str], None]


def measure(
    stage: Stage, names: Sequence[str], rounds: int, effort: Effort, tell: Tell, *, profiles: bool = True
) -> list[Outcome]:
    """Measure the rows of these names; ``tell`` hears of the progress."""
    outcomes = []
    with _running(stage, tell) as (targets, missing):
        for name in names:
            if name in COMPARED and COMPARED[name].in_kernel:
                outcome = _compare_kernel(stage, COMPARED[name], targets, rounds, effort, tell)
                outcome.notes += missing
            elif name in COMPARED:
                outcome = _compare(stage, COMPARED[name], targets, rounds, effort, tell)
                outcome.notes += missing
            else:
                outcome = _own(stage, name, rounds, effort, tell)
            outcomes.append(outcome)
    if profiles:
        for outcome in outcomes:
            row = COMPARED.get(outcome.row)
            verdict = GOALS[outcome.row].judge(outcome.figure)
            if row is None or row is IDLE or row.in_kernel:
                continue  # what such a row asks of our processes is little, or nothing
            if verdict in (Verdict.BELOW_GOAL, Verdict.BELOW_FLOOR):
                tell(f"{outcome.row}: {verdict}, taking a profile")
                try:
                    outcome.profile = profile(stage, row, effort)
                except WrkError as error:
                    outcome.notes.append(f"no profile: {error}")
    return outcomes


@contextmanager
def _running(stage: Stage, tell: Tell) -> Iterator[tuple[list[Target], list[str]]]:
    """Every target whose program there is, and what must be said of the others."""
    targets, missing = [], []
    for name in TARGETS:
        try:
            targets.append(stage.start(name))
        except Missing as error:
            tell(str(error))
            missing.append(str(error))
    yield targets, missing
    for target in targets:
        if target.name != DIRECT:
            stage.stop(target)


def _compare(
    stage: Stage, row: Row, targets: Sequence[Target], rounds: int, effort: Effort, tell: Tell
) -> Outcome:
    outcome = Outcome(row.name, row.what, row.unit, notes=[row.note] if row.note else [])
    if row.is_fresh:
        targets = [target for target in targets if target.name != DIRECT]
    for number in range(1, rounds + 1):
        for target in targets:
            quiet()
            try:
                sample = (
                    _measure_fresh(stage, row, target, effort)
                    if row.is_fresh
                    else row.measure(target, effort)
                )
            except (Missing, WrkError) as error:
                outcome.notes.append(f"{target.name}: {error}")
                continue
            outcome.rounds.setdefault(target.name, []).append(sample)
        tell(f"{row.name} {number}/{rounds}: {_told(outcome)}")
    if row.is_added:
        outcome.figure = added_ratio(outcome.rounds, OURS, HAPROXY, DIRECT)
    else:
        outcome.figure = ratio(outcome.rounds, OURS, HAPROXY)
    return outcome


def _compare_kernel(
    stage: Stage, row: Row, targets: Sequence[Target], rounds: int, effort: Effort, tell: Tell
) -> Outcome:
    """The same with a proxy of ours in the place of the other that has the kernel relay."""
    others = [target for target in targets if target.name != OURS]
    try:
        ours = stage.start_kernel()
    except Missing as error:
        tell(str(error))
        return Outcome(row.name, row.what, row.unit, notes=[str(error)])
    try:
        outcome = _compare(stage, row, [*others, ours], rounds, effort, tell)
    finally:
        stage.stop(ours)
    machine = {
        target: median(sample.details[MACHINE_CPU] for sample in samples)
        for target, samples in outcome.rounds.items()
    }
    told = ", ".join(f"{target} {seconds:.3g}" for target, seconds in machine.items())
    outcome.notes.append(f"processor time of the whole machine for 100,000: {told}")
    return outcome


def _measure_fresh(stage: Stage, row: Row, target: Target, effort: Effort) -> Sample:
    fresh = stage.start(target.name)
    try:
        return row.measure(fresh, effort)
    finally:
        stage.stop(fresh)


def _own(stage: Stage, name: str, rounds: int, effort: Effort, tell: Tell) -> Outcome:
    what, unit = _OWN[name]
    outcome = Outcome(name, what, unit, is_ratio=False)
    samples = outcome.rounds.setdefault(OURS, [])
    if name == "changes":
        target = stage.start_ours(rows=_CHANGES_ROWS)
        try:
            samples += [
                own.changes(target, stage.database(_CHANGES_ROWS, stage.origin.port), effort)
                for _ in range(rounds)
            ]
        finally:
            stage.stop(target)
    elif name == "start":
        samples += [own.start(stage) for _ in range(rounds)]
    else:
        samples += [own.choosing(effort) for _ in range(rounds)]
    outcome.figure = median(sample.figure for sample in samples)
    details = {key: median(sample.details[key] for sample in samples) for key in samples[0].details}
    if details:
        outcome.notes.append(", ".join(f"{key} {value:.4g}" for key, value in details.items()))
    tell(f"{name}: {outcome.figure:.3g} {unit}")
    return outcome


def _told(outcome: Outcome) -> str:
    return ", ".join(f"{target} {samples[-1].figure:,.4g}" for target, samples in outcome.rounds.items())
