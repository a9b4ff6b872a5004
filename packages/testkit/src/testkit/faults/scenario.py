"""What goes wrong and what is seen, in order: told once, run on every substrate.

::

    scenario = Scenario(
        "a partition heals",
        (
            Look("client>server"),
            Inject("client>server", Partition()),
            Look("client>server", patience_s=0.2),
            Recover("client>server"),
            Look("client>server"),
        ),
    )
    journal = await run(scenario, cluster)
    assert journal.observations == [...]

A substrate is anything with links and nodes by name: see `testkit.cluster`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from testkit.faults.exchange import Outcome
from testkit.faults.journal import Journal
from testkit.faults.vocabulary import Fault, UnavailableError


@dataclass(frozen=True, slots=True)
class Inject:
    """Put a fault in force on a link or a node."""

    on: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class Recover:
    """End all faults of a link or a node, the last first, and wait until that has taken effect."""

    on: str


@dataclass(frozen=True, slots=True)
class Look:
    """Ask the node at the end of a link, and write down the outcome."""

    link: str
    patience_s: float = 10.0
    """After so long there is no answer. Make it short only where none is expected."""


Step = Inject | Recover | Look


@dataclass(frozen=True, slots=True)
class Scenario:
    """Steps, and a name to tell them by."""

    name: str
    steps: tuple[Step, ...]


class Substrate(Protocol):
    """Where a scenario can run."""

    journal: Journal

    def unavailable(self, on: str, fault: Fault) -> str | None:
        """Why there is no such fault on that link or node; None when there is.

        Raises:
            KeyError: nothing has that name.
        """
        ...

    async def inject(self, on: str, fault: Fault) -> int:
        """Put a fault in force; return its number there."""
        ...

    async def recover(self, on: str, number: int) -> None:
        """End a fault; return when that has taken effect."""
        ...

    async def look(self, link: str, patience_s: float) -> Outcome:
        """Ask the node at the end of a link."""
        ...


def missing(scenario: Scenario, substrate: Substrate) -> list[str]:
    """What a scenario needs and the substrate does not have, each with the reason."""
    reasons = [
        f"{step.fault} on {step.on}: {why}"
        for step in scenario.steps
        if isinstance(step, Inject) and (why := substrate.unavailable(step.on, step.fault)) is not None
    ]
    return list(dict.fromkeys(reasons))


async def run(scenario: Scenario, substrate: Substrate) -> Journal:
    """Do the steps in order; at the end, whatever happened, nothing is in force any more.

    Raises:
        UnavailableError: the substrate lacks a fault; nothing was done.
    """
    if lacks := missing(scenario, substrate):
        raise UnavailableError(f"{scenario.name}: {'; '.join(lacks)}")
    in_force: list[tuple[str, int]] = []
    try:
        for step in scenario.steps:
            match step:
                case Inject(on, fault):
                    in_force.append((on, await substrate.inject(on, fault)))
                case Recover(on):
                    for each in [each for each in reversed(in_force) if each[0] == on]:
                        in_force.remove(each)
                        await substrate.recover(*each)
                case Look(link, patience_s):
                    outcome = await substrate.look(link, patience_s)
                    substrate.journal.note("observe", link, outcome.value)
    finally:
        for on, number in reversed(in_force):
            await substrate.recover(on, number)
    return substrate.journal
