"""What every program must do that a supervisor starts: get ready, stop when told to, refuse what is wrong.

The tests know a program by what a supervisor knows: whether it answers that it is ready, its exit code, and
what it prints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Protocol

from testkit.contracts.contract import Contract, needs


class Configuration(StrEnum):
    """What a program is started with."""

    GOOD = "good"
    MISSING = "missing"
    """Something that it cannot do without is not there."""
    MALFORMED = "malformed"
    """Something has a value that cannot be read."""
    CONFLICTING = "conflicting"
    """Each value is right, and they cannot hold together: an address that is taken, say."""


class Program(Protocol):
    """One start of the program."""

    async def ready(self) -> bool:
        """Ask it once whether it is ready; whoever cannot be reached is not."""
        ...

    async def serve(self) -> bool:
        """Have it do its work once; whether that succeeded."""
        ...

    def terminate(self) -> None:
        """SIGTERM."""
        ...

    def interrupt(self) -> None:
        """SIGINT, as Ctrl-C sends it."""
        ...

    @property
    def exit_code(self) -> int | None:
        """``None`` while it runs, negative when a signal ended it."""
        ...

    @property
    def output(self) -> str:
        """What it has printed so far, on both outputs."""
        ...


class BootstrapHarness(Protocol):
    """What a test must know of an implementation."""

    @property
    def deadline_s(self) -> float:
        """What should take no time takes no longer than this, on a slow machine."""
        ...

    def start(self, configuration: Configuration) -> Program:
        """Start it, and return at once."""
        ...

    def names(self, configuration: Configuration) -> str:
        """The words by which an error must name what is wrong with a configuration."""
        ...


_POLLS = 500


class BootstrapContract(
    Contract,
    contract="bootstrap",
    capabilities={
        "missing": "there is something without which it cannot start",
        "malformed": "there is a setting of which a value can be unreadable",
        "conflicting": "there are values that cannot hold together, or with what else runs",
        "interrupt": "it can be stopped with SIGINT, too",
    },
):
    """Subclass it, define the fixture ``harness``, and pytest runs it."""

    # ---- a good configuration --------------------------------------------------------------------------

    async def test_becomes_ready_and_serves(self, harness: BootstrapHarness) -> None:
        program = await _ready(harness)
        assert await program.serve(), f"said to be ready, and does not serve: {program.output}"
        assert program.exit_code is None
        assert await program.ready(), "it was ready once"
        await _stop(harness, program, program.terminate)

    async def test_sigterm_ends_it_in_order(self, harness: BootstrapHarness) -> None:
        program = await _ready(harness)
        assert await _stop(harness, program, program.terminate) == 0, program.output
        assert "Traceback" not in program.output

    @needs("interrupt")
    async def test_sigint_ends_it_in_order(self, harness: BootstrapHarness) -> None:
        program = await _ready(harness)
        assert await _stop(harness, program, program.interrupt) == 0, program.output
        assert "Traceback" not in program.output

    async def test_stopped_program_is_gone_and_leaves_room_for_the_next(
        self, harness: BootstrapHarness
    ) -> None:
        first = await _ready(harness)
        await _stop(harness, first, first.terminate)
        assert not await first.ready()
        assert not await first.serve()
        second = await _ready(harness)
        await _stop(harness, second, second.terminate)

    # ---- a bad one -------------------------------------------------------------------------------------

    @needs("missing")
    async def test_missing_configuration_ends_it_at_once(self, harness: BootstrapHarness) -> None:
        await _refused(harness, Configuration.MISSING)

    @needs("malformed")
    async def test_malformed_configuration_ends_it_at_once(self, harness: BootstrapHarness) -> None:
        await _refused(harness, Configuration.MALFORMED)

    @needs("conflicting")
    async def test_conflicting_configuration_ends_it_at_once(self, harness: BootstrapHarness) -> None:
        await _refused(harness, Configuration.CONFLICTING)


async def _ready(harness: BootstrapHarness) -> Program:
    program = harness.start(Configuration.GOOD)
    await _until(harness, program.ready, "to be ready", program)
    return program


async def _stop(harness: BootstrapHarness, program: Program, signal: Callable[[], None]) -> int | None:
    signal()

    async def ended() -> bool:
        return program.exit_code is not None

    await _until(harness, ended, "to end when told to", program)
    return program.exit_code


async def _refused(harness: BootstrapHarness, configuration: Configuration) -> None:
    program = harness.start(configuration)
    was_ready = False

    async def ended() -> bool:
        nonlocal was_ready
        was_ready = was_ready or await program.ready()
        return program.exit_code is not None

    await _until(harness, ended, "to refuse its configuration", program)
    assert program.exit_code not in (0, None), program.output
    assert program.exit_code is not None
    assert program.exit_code > 0, f"ended by signal {-program.exit_code}: {program.output}"
    assert not was_ready, "ready for a moment, so that a supervisor sent clients"
    assert harness.names(configuration) in program.output, program.output
    assert "Traceback" not in program.output, program.output


async def _until(
    harness: BootstrapHarness, condition: Callable[[], Awaitable[bool]], what: str, program: Program
) -> None:
    """Poll by the loop's clock, which in the reference's runs is virtual."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + harness.deadline_s
    while not await condition():
        assert loop.time() < end_s, (
            f"waited {harness.deadline_s:g} s for the program {what}; exit code {program.exit_code}, "
            f"output:\n{program.output}"
        )
        await asyncio.sleep(harness.deadline_s / _POLLS)
