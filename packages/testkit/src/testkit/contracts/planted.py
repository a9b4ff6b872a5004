"""Proof that a contract bites: implementations with a known bug, and the tests that must catch it.

::

    BUGS = PlantedBugs(EventBusContract, MemoryHarness)

    @BUGS.caught_by(EventBusContract.test_subscriber_is_told_once)
    class TellsTwice(MemoryBus): ...

A bug is *rejected* when every test named fails on it. One that no test passes on proves nothing: it is not
a bug, it is no implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from testkit.contracts.checking import Factory, Report, Verdict, check
from testkit.contracts.contract import Contract
from testkit.virtual_time import VirtualTimeLoop

Kind = TypeVar("Kind", bound=type)


@dataclass(frozen=True, slots=True)
class Bug:
    """One implementation that must be rejected."""

    kind: type
    contract: type[Contract]
    factory: Factory
    caught_by: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.kind.__name__

    def judge(self, only: Collection[str] | None = None) -> Report:
        """Hold it to the contract, or to those tests of it, at its newest level."""
        return check(
            self.contract, self.factory, level=self.contract.newest, only=only, loop_factory=VirtualTimeLoop
        )

    def reject(self, *, briefly: bool = False) -> None:
        """Assert that the tests named, and not all tests, fail on it.

        Each test has a harness of its own, so what it says does not depend on which others run. ``briefly``:
        those named, then others until one passes.

        Raises:
            AssertionError: a test named passes on it, or none does at all.
        """
        report = self.judge(self.caught_by if briefly else None)
        missed = {*self.caught_by} - {*report.of(Verdict.FAILED)}
        if missed:
            raise AssertionError(f"{self.name} is not caught by {sorted(missed)}")
        others = (test.name for test in self.contract.contract_tests() if test.name not in self.caught_by)
        if not (report.of(Verdict.PASSED) or any(self.judge({name}).of(Verdict.PASSED) for name in others)):
            raise AssertionError(f"{self.name} passes no test at all")


class PlantedBugs:
    """The bugs of one contract, in the order in which they are declared."""

    def __init__(self, contract: type[Contract], harness: Callable[[Any], Any]) -> None:
        """``harness`` makes what :class:`~testkit.contracts.checking.Factory` gives from a class of bug."""
        self.contract = contract
        self._harness = harness
        self._bugs: list[Bug] = []

    def caught_by(self, *tests: Callable[..., Any]) -> Callable[[Kind], Kind]:
        """Declare the class below to be a bug that these tests of the contract catch."""

        def declare(kind: Kind) -> Kind:
            names = tuple(test.__name__ for test in tests)
            self._bugs.append(Bug(kind, self.contract, lambda: self._harness(kind), names))
            return kind

        return declare

    def __iter__(self) -> Iterator[Bug]:
        return iter(self._bugs)

    def __len__(self) -> int:
        return len(self._bugs)


@dataclass(frozen=True, slots=True)
class Suite:
    """A contract with what shows that it can be held and that it bites."""

    contract: type[Contract]
    reference: str
    """``module:callable`` that makes the harness of the reference; looked up anew at each call, so that it
    gives a mutant where the module has become one."""
    bugs: PlantedBugs
    mutate: Sequence[str] = ()
    """Names in the module of the reference whose insides mutants are made of; by default all."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """What the reference lacks."""

    @property
    def name(self) -> str:
        return self.contract.contract

    @property
    def module(self) -> str:
        return self.reference.partition(":")[0]

    def check_reference(self, *, stop_early: bool = False) -> Report:
        """Hold the reference to the contract, at its newest level."""

        def make() -> Any:
            module, _, name = self.reference.partition(":")
            return getattr(import_module(module), name)()

        return check(
            self.contract,
            make,
            lacks=self.lacks,
            level=self.contract.newest,
            stop_early=stop_early,
            loop_factory=VirtualTimeLoop,
        )
