"""Hold an implementation to a contract without pytest: a call that returns what became of each test."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from testkit.contracts.contract import Contract, ContractTest
from testkit.virtual_time import HORIZON_S, VirtualTimeLoop

Factory = Callable[[], Any]
"""Makes a harness, or a context manager, sync or async, that gives one."""

TIMEOUT_S = 30.0
"""How long a coroutine may take by the real clock."""


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    LACKS = "lacks"
    """Left out, because the implementation lacks what the test needs."""
    ADVISORY = "advisory"
    """Failed, and belongs to a later level than the one promised."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one test."""

    test: str
    verdict: Verdict
    why: str = ""
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of all tests of one implementation."""

    contract: str
    results: tuple[Result, ...]

    def of(self, verdict: Verdict) -> list[str]:
        """Names of the tests with that verdict."""
        return [each.test for each in self.results if each.verdict is verdict]

    def require(self) -> None:
        """Raise when a test failed.

        Raises:
            AssertionError: names every test that failed; its cause is the first failure.
        """
        failed = [each for each in self.results if each.verdict is Verdict.FAILED]
        if failed:
            listing = "\n".join(f"  {each.test}: {each.why}" for each in failed)
            raise AssertionError(f"{self.contract}, not held:\n{listing}") from failed[0].error


def check(
    contract: type[Contract],
    factory: Factory,
    *,
    lacks: Mapping[str, str] = MappingProxyType({}),
    level: int | None = None,
    only: Collection[str] | None = None,
    stop_early: bool = False,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Report:
    """Run the tests of ``contract``, each on a harness of its own from ``factory``, each in its own loop.

    ``lacks`` and ``level`` are as in :class:`~testkit.contracts.contract.Contract`; by default what
    ``contract`` itself says, which may be such a class. ``only`` names tests; ``stop_early`` ends with the
    first failure. Not to be called where a loop runs.

    Raises:
        TypeError: ``lacks`` or ``level`` is not what the contract knows.
    """
    held = _held(contract, lacks, level)
    results: list[Result] = []
    for test in held.contract_tests():
        if only is not None and test.name not in only:
            continue
        results.append(_judge(held, test, factory, loop_factory))
        if stop_early and results[-1].verdict is Verdict.FAILED:
            break
    return Report(contract.contract, tuple(results))


def assert_raises(
    expected: type[BaseException] | tuple[type[BaseException], ...], act: Callable[[], object]
) -> BaseException:
    """Return what ``act`` raises, which must be ``expected``; contracts need no pytest."""
    try:
        outcome = act()
    except expected as error:
        return error
    raise AssertionError(f"expected {expected}, got {outcome!r}")


async def assert_raises_async(
    expected: type[BaseException] | tuple[type[BaseException], ...], act: Callable[[], Any]
) -> BaseException:
    """Return what awaiting the result of ``act`` raises, which must be ``expected``."""
    try:
        outcome = await act()
    except expected as error:
        return error
    raise AssertionError(f"expected {expected}, got {outcome!r}")


def _held(contract: type[Contract], lacks: Mapping[str, str], level: int | None) -> type[Contract]:
    if not lacks and level is None:
        return contract
    return types.new_class(
        contract.__name__, (contract,), {"lacks": {**contract.lacks, **lacks}, "level": level}
    )


def _judge(
    contract: type[Contract],
    test: ContractTest,
    factory: Factory,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> Result:
    if test.lacks:
        return Result(test.name, Verdict.LACKS, test.lacks)
    function = inspect.unwrap(getattr(contract, test.name))
    if contract.virtual_time:
        loop_factory = VirtualTimeLoop
    try:
        _run(lambda harness: function(contract(), harness), factory, loop_factory)
    except Exception as error:  # noqa: BLE001  whatever it is, the test did not pass
        verdict = Verdict.ADVISORY if test.advisory else Verdict.FAILED
        return Result(test.name, verdict, f"{type(error).__name__}: {error}".rstrip(": "), error)
    return Result(test.name, Verdict.PASSED)


def _run(
    test: Callable[[Any], Any],
    factory: Factory,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> None:
    broken: list[BaseException] = []

    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # How tasks ended that nobody asked is found out whenever the garbage is collected, so in any test.
        if str(context["message"]).startswith("Exception in callback") and "exception" in context:
            broken.append(context["exception"])

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(note)
        timeout_s = HORIZON_S if loop_factory is VirtualTimeLoop else TIMEOUT_S
        async with asyncio.timeout(timeout_s), AsyncExitStack() as stack:
            made = factory()
            if isinstance(made, AbstractAsyncContextManager):
                made = await stack.enter_async_context(made)
            elif isinstance(made, AbstractContextManager):
                made = stack.enter_context(made)
            outcome = test(made)
            if inspect.isawaitable(outcome):
                await outcome

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(story())
    if broken:
        raise AssertionError(f"a callback failed: {broken[0]!r}") from broken[0]
