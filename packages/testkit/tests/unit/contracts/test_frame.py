"""What contracts are made of, on a contract of counters that is as small as one can be."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from testkit.contracts.checking import Verdict, assert_raises, assert_raises_async, check
from testkit.contracts.contract import Contract, needs, since
from testkit.contracts.planted import PlantedBugs
from testkit.virtual_time import VirtualTimeLoop


class Counter:
    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int) -> None:
        self.value += amount

    async def add_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.add(1)


class CounterContract(
    Contract,
    contract="counter",
    capabilities={"negative": "amounts below zero", "later": "adding after a while"},
    virtual_time=True,
):
    def test_begins_at_zero(self, harness: Counter) -> None:
        assert harness.value == 0

    @needs("negative")
    def test_goes_down(self, harness: Counter) -> None:
        harness.add(-1)
        assert harness.value == -1

    @needs("later")
    async def test_adds_after_a_day(self, harness: Counter) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await harness.add_after(86_400)
        assert harness.value == 1
        assert loop.time() == began_s + 86_400

    @since(2)
    def test_holds_much(self, harness: Counter) -> None:
        harness.add(10**100)
        assert harness.value == 10**100


class Small(Counter):
    def add(self, amount: int) -> None:
        self.value = min(self.value + amount, 99)


class TestCounter(CounterContract, level=2):
    """A contract is collected, and its coroutines run, whatever pytest is used with."""

    @pytest.fixture
    def harness(self) -> Counter:
        return Counter()


class TestSmallCounter(CounterContract, lacks={"negative": "there are no counters below zero"}):
    """What it lacks is left out; what it need not do yet fails nobody."""

    @pytest.fixture
    def harness(self) -> Small:
        return Small()


def test_every_test_passes_on_what_holds_the_contract() -> None:
    report = check(CounterContract, Counter, level=2)
    report.require()
    assert len(report.of(Verdict.PASSED)) == 4


def test_failures_are_named_with_their_reason() -> None:
    report = check(CounterContract, Small, level=2)
    assert report.of(Verdict.FAILED) == ["test_holds_much"]
    with pytest.raises(AssertionError, match=r"counter, not held:\n  test_holds_much: AssertionError"):
        report.require()


def test_later_levels_are_advisory() -> None:
    report = check(CounterContract, Small)
    report.require()
    assert report.of(Verdict.ADVISORY) == ["test_holds_much"]


def test_what_is_lacking_is_left_out_with_its_reason() -> None:
    report = check(CounterContract, Counter, lacks={"later": "no clock"})
    assert [(each.test, each.why) for each in report.results if each.verdict is Verdict.LACKS] == [
        ("test_adds_after_a_day", "later: no clock")
    ]


def test_tests_can_be_named_and_stopped_at_the_first_failure() -> None:
    class Stuck(Counter):
        def add(self, amount: int) -> None: ...

    assert len(check(CounterContract, Stuck, only=["test_goes_down"]).results) == 1
    stopped = check(CounterContract, Stuck, stop_early=True)
    assert [each.test for each in stopped.results] == ["test_begins_at_zero", "test_goes_down"]


def test_factories_may_be_context_managers() -> None:
    closed = []

    @contextmanager
    def plain() -> Iterator[Counter]:
        yield Counter()
        closed.append("plain")

    @asynccontextmanager
    async def waiting() -> AsyncIterator[Counter]:
        await asyncio.sleep(1)  # sleeps: in the virtual time of the contract
        yield Counter()
        closed.append("waiting")

    for factory in (plain, waiting):
        check(CounterContract, factory, level=2).require()
    assert closed == ["plain"] * 4 + ["waiting"] * 4


def test_whoever_waits_for_ever_fails_at_once() -> None:
    class NeverAdds(Counter):
        async def add_after(self, seconds: float) -> None:
            await asyncio.Event().wait()

    (result,) = check(CounterContract, NeverAdds, only=["test_adds_after_a_day"]).results
    assert result.verdict is Verdict.FAILED


def goes_down_by_two(self: Contract, harness: Counter) -> None:
    assert harness.value == -2


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"lacks": {"negatives": "why"}}, "lacks what counter does not ask for"),
        ({"lacks": {"negative": ""}}, "must say why"),
        ({"level": 3}, "has levels 1 to 2, not 3"),
        ({"overrides": {"test_goes_down": "why"}}, "say why it is replaced"),
    ],
)
def test_what_an_implementation_says_of_itself_must_make_sense(said: dict[str, object], match: str) -> None:
    with pytest.raises(TypeError, match=match):
        types.new_class("Wrong", (CounterContract,), said)


def test_replaced_test_needs_a_reason() -> None:
    def body(namespace: dict[str, object]) -> None:
        namespace["test_goes_down"] = goes_down_by_two

    with pytest.raises(TypeError, match="say why it is replaced"):
        types.new_class("Replaces", (CounterContract,), {}, body)
    reason = {"overrides": {"test_goes_down": "ours goes down by two"}}
    own = types.new_class("Says", (CounterContract,), reason, body)
    assert check(own, Counter).of(Verdict.FAILED) == ["test_goes_down"]


def test_test_that_needs_what_the_contract_does_not_list_is_an_error() -> None:
    with pytest.raises(TypeError, match="needs what the contract does not list"):

        class Wrong(Contract, contract="wrong"):
            @needs("wings")
            def test_flies(self, harness: object) -> None: ...


BUGS = PlantedBugs(CounterContract, lambda kind: kind())


@BUGS.caught_by(CounterContract.test_begins_at_zero)
class BeginsAtOne(Counter):
    def __init__(self) -> None:
        self.value = 1

    def add(self, amount: int) -> None:
        self.value = amount


@BUGS.caught_by(CounterContract.test_begins_at_zero)
class GoesUpOnly(Counter):
    def add(self, amount: int) -> None:
        self.value += abs(amount)


@BUGS.caught_by(CounterContract.test_begins_at_zero)
class IsNone(Counter):
    def __init__(self) -> None:
        raise OSError("no counter")


def test_bug_is_rejected_when_the_tests_it_names_fail_and_not_all() -> None:
    assert len(BUGS) == 3
    begins_at_one, goes_up_only, is_none = BUGS
    begins_at_one.reject()
    with pytest.raises(AssertionError, match="GoesUpOnly is not caught by"):
        goes_up_only.reject()
    with pytest.raises(AssertionError, match="passes no test at all"):
        is_none.reject()


async def _fails() -> None:
    raise ZeroDivisionError


async def _passes() -> None: ...


async def test_expected_errors_are_returned_and_missing_ones_fail() -> None:
    assert isinstance(assert_raises(ValueError, lambda: int("x")), ValueError)
    assert isinstance(await assert_raises_async(ZeroDivisionError, _fails), ZeroDivisionError)
    with pytest.raises(AssertionError, match="got 1"):
        assert_raises(ValueError, lambda: 1)
    with pytest.raises(AssertionError, match="got None"):
        await assert_raises_async(ValueError, _passes)


def test_virtual_time_passes_in_the_order_of_the_timers() -> None:
    async def story() -> list[float]:
        loop, seen = asyncio.get_running_loop(), []

        async def note(after_s: float) -> None:
            await asyncio.sleep(after_s)
            seen.append(loop.time())

        await asyncio.gather(note(90.0), note(0.5), note(3600.0))
        return seen

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(story()) == [0.5, 90.0, 3600.0]
