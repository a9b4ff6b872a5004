"""What a contract is made of: tests that take an implementation, what an implementation may lack, levels.

A contract is a class of tests. Each takes a *harness*, made anew for it, which knows how to get the
implementation and how to ask it for what the test needs::

    class EventBusContract(Contract, contract="event_bus", capabilities={"priorities": "…"}):
        async def test_subscriber_is_told(self, harness: EventBusHarness) -> None: ...

        @needs("priorities")
        async def test_most_urgent_event_is_told_first(self, harness: EventBusHarness) -> None: ...

        @since(2)
        async def test_a_flood_lets_others_have_their_turn(self, harness: EventBusHarness) -> None: ...

Whoever has an implementation subclasses it, defines the pytest fixture ``harness``, and says what the
implementation cannot do, and why::

    class TestOurBus(EventBusContract, lacks={"priorities": "events are told in the order of publishing"}):
        @pytest.fixture
        def harness(self) -> OurHarness: ...

or calls :func:`testkit.contracts.checking.check`, without pytest.

Tests are plain functions and coroutines with plain assertions. In a contract with ``virtual_time=True``
coroutines run in a loop of their own whose clock jumps ahead when all wait; to pytest they are plain
functions. All others run in the loop of whoever calls them.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from testkit.virtual_time import VirtualTimeLoop

Test = TypeVar("Test", bound=Callable[..., Any])

_NEEDS = "__contract_needs__"
_SINCE = "__contract_since__"
_NOTHING: Mapping[str, str] = MappingProxyType({})


def needs(*capabilities: str) -> Callable[[Test], Test]:
    """Leave the test out for implementations that lack one of ``capabilities``."""

    def mark(test: Test) -> Test:
        setattr(test, _NEEDS, capabilities)
        return test

    return mark


def since(level: int) -> Callable[[Test], Test]:
    """The test came with this level of the contract; below it, it is advisory: it runs and fails nobody."""

    def mark(test: Test) -> Test:
        setattr(test, _SINCE, level)
        return test

    return mark


@dataclass(frozen=True, slots=True)
class ContractTest:
    """One test of a contract, as it concerns one implementation."""

    name: str
    lacks: str
    """Why the implementation cannot take it: the capability and the reason. Empty when it can."""
    advisory: bool
    """Whether it belongs to a later level than the one that the implementation promises."""


class Contract:
    """Base of all contracts, and of the classes that hold an implementation to one."""

    contract: ClassVar[str]
    """Name of the contract, the same for all implementations."""
    capabilities: ClassVar[Mapping[str, str]] = _NOTHING
    """What an implementation may lack: name, and what it means."""
    newest: ClassVar[int] = 1
    """The latest level that has a test."""
    virtual_time: ClassVar[bool] = False

    level: ClassVar[int] = 1
    """What this implementation promises; tests of later levels are advisory."""
    lacks: ClassVar[Mapping[str, str]] = _NOTHING
    """Capabilities that this implementation does not have, each with the reason."""
    overrides: ClassVar[Mapping[str, str]] = _NOTHING
    """Tests of the contract that this implementation replaces with its own, each with the reason."""

    def __init_subclass__(
        cls,
        *,
        contract: str | None = None,
        capabilities: Mapping[str, str] = _NOTHING,
        virtual_time: bool = False,
        level: int | None = None,
        lacks: Mapping[str, str] | None = None,
        overrides: Mapping[str, str] | None = None,
        **others: Any,
    ) -> None:
        """With ``contract`` this is a contract of that name, else an implementation of one.

        A contract has ``capabilities`` and ``virtual_time``, an implementation the others; each is the class
        attribute of its name.

        Raises:
            TypeError: it lacks what the contract does not know of, promises a level that there is not yet,
                or replaces a test, and says no reason.
        """
        super().__init_subclass__(**others)
        if contract is None:
            cls.level = cls.level if level is None else level
            cls.lacks = cls.lacks if lacks is None else lacks
            cls.overrides = cls.overrides if overrides is None else overrides
            cls._check_implementation()
            return
        cls.contract, cls.capabilities, cls.virtual_time = contract, capabilities, virtual_time
        for name, test in list(_tests(cls)):
            unknown = {*getattr(test, _NEEDS, ())} - {*capabilities}
            if unknown:
                raise TypeError(f"{cls.__name__}.{name} needs what the contract does not list: {unknown}")
            cls.newest = max(cls.newest, getattr(test, _SINCE, 1))
            if virtual_time and inspect.iscoroutinefunction(test):
                setattr(cls, name, _in_virtual_time(test))

    @classmethod
    def _check_implementation(cls) -> None:
        unknown = {*cls.lacks} - {*cls.capabilities}
        if unknown:
            raise TypeError(f"{cls.__name__} lacks what {cls.contract} does not ask for: {sorted(unknown)}")
        if not 1 <= cls.level <= cls.newest:
            raise TypeError(f"{cls.__name__}: {cls.contract} has levels 1 to {cls.newest}, not {cls.level}")
        replaced = {name for name, test in _tests(cls._promised()) if getattr(cls, name) is not test}
        for name in replaced | {*cls.overrides}:
            if name not in replaced or not cls.overrides.get(name):
                raise TypeError(f"{cls.__name__}: overrides must name {name} and say why it is replaced")
        if not all(cls.lacks.values()):
            raise TypeError(f"{cls.__name__} must say why it lacks what it lacks")

    @classmethod
    def _promised(cls) -> type[Contract]:
        """The contract itself."""
        return next(each for each in cls.__mro__ if "contract" in vars(each))

    @classmethod
    def contract_tests(cls) -> list[ContractTest]:
        """The contract's tests, in the order in which they are written, and how each concerns this class."""
        found = []
        for name, _ in _tests(cls._promised()):
            test = getattr(cls, name)
            wanted = getattr(test, _NEEDS, ())
            missing = [f"{each}: {cls.lacks[each]}" for each in wanted if each in cls.lacks]
            found.append(ContractTest(name, "; ".join(missing), getattr(test, _SINCE, 1) > cls.level))
        return found


def _tests(cls: type[Contract]) -> Iterator[tuple[str, Callable[..., Any]]]:
    names = (name for each in reversed(cls.__mro__) for name in vars(each) if name.startswith("test_"))
    for name in dict.fromkeys(names):
        yield name, getattr(cls, name)


def _in_virtual_time(test: Callable[..., Any]) -> Callable[..., None]:
    """A plain function that runs the coroutine; :func:`inspect.unwrap` gives the coroutine function back."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*arguments, **named))

    return run
