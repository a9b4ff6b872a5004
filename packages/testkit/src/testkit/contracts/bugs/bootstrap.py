"""Programs that boot or stop with a known bug."""

from __future__ import annotations

import asyncio

from testkit.contracts.bootstrap import BootstrapContract, Configuration
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.bootstrap import ConfigurationError, MemoryBootstrap, MemoryProgram

Contract = BootstrapContract
BUGS = PlantedBugs(Contract, MemoryBootstrap)


@BUGS.caught_by(Contract.test_becomes_ready_and_serves)
class IsReadyBeforeItIsConnected(MemoryProgram):
    async def boot(self) -> None:
        self.listening = True
        await super().boot()


@BUGS.caught_by(Contract.test_becomes_ready_and_serves)
class NeverGetsReady(MemoryProgram):
    async def ready(self) -> bool:
        return False


@BUGS.caught_by(Contract.test_becomes_ready_and_serves)
class IsReadyOnce(MemoryProgram):
    asked = False

    async def ready(self) -> bool:
        first, self.asked = self.listening and not self.asked, self.asked or self.listening
        return first


@BUGS.caught_by(Contract.test_sigterm_ends_it_in_order)
class DiesOfTheSignal(MemoryProgram):
    def terminate(self) -> None:
        self._task.cancel()
        self.listening = self.connected = False
        self._taken.clear()
        self.exit_code = -15


@BUGS.caught_by(
    Contract.test_sigterm_ends_it_in_order, Contract.test_stopped_program_is_gone_and_leaves_room_for_the_next
)
class IgnoresSigterm(MemoryProgram):
    def terminate(self) -> None:
        return


@BUGS.caught_by(Contract.test_sigint_ends_it_in_order)
class KnowsOnlySigterm(MemoryProgram):
    def interrupt(self) -> None:
        self._task.cancel()
        self.exit_code = 130


@BUGS.caught_by(Contract.test_stopped_program_is_gone_and_leaves_room_for_the_next)
class LeavesTheListenerBehind(MemoryProgram):
    async def ready(self) -> bool:
        return self.listening or self.exit_code is not None


@BUGS.caught_by(Contract.test_stopped_program_is_gone_and_leaves_room_for_the_next)
class LeavesTheAddressTaken(MemoryProgram):
    async def stop(self) -> None:
        await super().stop()
        self._taken.add("address")


@BUGS.caught_by(Contract.test_sigterm_ends_it_in_order)
class StumblesWhenItStops(MemoryProgram):
    async def stop(self) -> None:
        await super().stop()
        self.print("Traceback (most recent call last):")


@BUGS.caught_by(
    Contract.test_missing_configuration_ends_it_at_once, Contract.test_malformed_configuration_ends_it_at_once
)
class LooksAtItsConfigurationWhenItIsReady(MemoryProgram):
    def check(self) -> None:
        return

    async def run(self) -> None:
        await self.boot()
        await asyncio.sleep(self.boot_s)
        super().check()
        await self._stopping.wait()
        await self.stop()


@BUGS.caught_by(Contract.test_malformed_configuration_ends_it_at_once)
class TakesTheDefaultForWhatItCannotRead(MemoryProgram):
    def check(self) -> None:
        if self.configuration is not Configuration.MALFORMED:
            super().check()


@BUGS.caught_by(Contract.test_missing_configuration_ends_it_at_once)
class ExitsWith0WhateverHappened(MemoryProgram):
    async def main(self) -> None:
        await super().main()
        self.exit_code = 0


@BUGS.caught_by(Contract.test_conflicting_configuration_ends_it_at_once)
class TriesAgainForEver(MemoryProgram):
    async def boot(self) -> None:
        while True:
            try:
                await super().boot()
            except ConfigurationError as error:
                self.print(f"error: {error}, trying again")
            else:
                return


@BUGS.caught_by(Contract.test_missing_configuration_ends_it_at_once)
class DoesNotSayWhatIsWrong(MemoryProgram):
    def print(self, line: str) -> None:
        super().print("error" if line.startswith("error") else line)


SUITE = Suite(
    Contract, "testkit.contracts.references.bootstrap:MemoryBootstrap", BUGS, mutate=["MemoryProgram"]
)
