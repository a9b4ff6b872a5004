"""A program without a process: a task that boots, serves until it is told to stop, and has an exit code."""

from __future__ import annotations

import asyncio

from testkit.contracts.bootstrap import Configuration


class ConfigurationError(Exception):
    """A setting is missing or wrong; names it."""


class MemoryProgram:
    """Runs in the loop in which it was started."""

    boot_s = 0.02
    drain_s = 0.01

    def __init__(self, configuration: Configuration, taken: set[str]) -> None:
        self.configuration = configuration
        self.output = ""
        self.exit_code: int | None = None
        self.listening = False
        self.connected = False
        self._taken = taken
        self._stopping = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self.main())

    # ---- the program -----------------------------------------------------------------------------------

    async def main(self) -> None:
        try:
            self.check()
            await self.run()
            self.exit_code = 0
        except ConfigurationError as error:
            self.print(f"error: {error}")
            self.exit_code = 2

    def check(self) -> None:
        """Look at the configuration before anything is opened."""
        if self.configuration is Configuration.MISSING:
            raise ConfigurationError("DATABASE_URL is not set")
        if self.configuration is Configuration.MALFORMED:
            raise ConfigurationError("DATABASE_URL is no URL: 'postgres//'")

    async def run(self) -> None:
        await self.boot()
        self.print("ready")
        await self._stopping.wait()
        await self.stop()

    async def boot(self) -> None:
        await asyncio.sleep(self.boot_s)
        if self.configuration is Configuration.CONFLICTING or "address" in self._taken:
            raise ConfigurationError("LISTEN_ADDR is taken")
        self._taken.add("address")
        self.connected = True
        self.listening = True

    async def stop(self) -> None:
        self.listening = self.connected = False
        await asyncio.sleep(self.drain_s)
        self._taken.discard("address")
        self.print("stopped")

    def print(self, line: str) -> None:
        self.output += f"{line}\n"

    # ---- what a supervisor does ------------------------------------------------------------------------

    async def ready(self) -> bool:
        return self.listening

    async def serve(self) -> bool:
        return self.listening and self.connected

    def terminate(self) -> None:
        self._stopping.set()

    def interrupt(self) -> None:
        self._stopping.set()


class MemoryBootstrap:
    """Starts them."""

    deadline_s = 5.0

    def __init__(self, program: type[MemoryProgram] = MemoryProgram) -> None:
        self._program = program
        self._taken: set[str] = set()

    def start(self, configuration: Configuration) -> MemoryProgram:
        return self._program(configuration, self._taken)

    def names(self, configuration: Configuration) -> str:
        return "LISTEN_ADDR" if configuration is Configuration.CONFLICTING else "DATABASE_URL"
