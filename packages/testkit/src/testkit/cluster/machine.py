"""A node that really runs: what can go wrong with it, whatever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from testkit.faults.journal import Journal
from testkit.faults.program_clock import ProgramClock
from testkit.faults.vocabulary import ClockJump, Fault, Kill, NodeFault, UnavailableError


class Machine(ABC):
    """Keeps account of faults. What is injected twice has to be recovered twice."""

    def __init__(self, name: str, journal: Journal, clock: ProgramClock | str) -> None:
        """``clock``: of its program, or why there is none that can be moved."""
        self.name = name
        self._clock = clock
        self._journal = journal
        self._faults: dict[int, NodeFault] = {}
        self._last = 0

    @abstractmethod
    async def start(self) -> None:
        """Run its program, and wait until that listens."""

    @abstractmethod
    async def kill(self) -> None:
        """End it without a word, and wait until it is gone."""

    @abstractmethod
    async def pause(self) -> None:
        """Stop all of it, and wait until it stands still."""

    @abstractmethod
    async def resume(self) -> None:
        """Let it go on, and wait until it does."""

    @abstractmethod
    def pids(self) -> list[int]:
        """The processes of its program, as this machine knows them; none while it does not run."""

    def unavailable(self, fault: Fault) -> str | None:
        """Why there is no such fault here; None when there is."""
        if isinstance(fault, ClockJump):
            return self._why_no_jump()
        return None if isinstance(fault, NodeFault) else "it is about a link, and this is a node"

    async def inject(self, fault: Fault) -> int:
        """Put a fault in force; return its number when it is.

        Raises:
            UnavailableError: this cannot be done to it.
        """
        if (why := self.unavailable(fault)) is not None:
            raise UnavailableError(f"{fault} on {self.name}: {why}")
        assert isinstance(fault, NodeFault)
        is_first = not self._has(fault)
        self._last += 1
        self._faults[self._last] = fault
        self._journal.note("inject", self.name, fault)
        if isinstance(fault, ClockJump):
            self._set_clock()
        elif is_first:
            await (self.kill() if isinstance(fault, Kill) else self.pause())
        return self._last

    async def recover(self, number: int) -> None:
        """End a fault; when this returns it goes on, listens if it was started anew, and knows the time.

        Raises:
            KeyError: no fault of that number is in force.
        """
        fault = self._faults.pop(number)
        self._journal.note("recover", self.name, number)
        if isinstance(fault, ClockJump):
            self._set_clock()
        elif not self._has(fault):
            await (self.start() if isinstance(fault, Kill) else self.resume())

    def _why_no_jump(self) -> str | None:
        if isinstance(self._clock, str):
            return self._clock
        pids = self.pids()
        if pids and not self._clock.moves(pids):
            return "its program has not loaded libfaketime: it is linked statically, or we may not look"
        return None

    def _set_clock(self) -> None:
        """Jumps add up."""
        assert isinstance(self._clock, ProgramClock)
        self._clock.set_ahead(sum(each.by_s for each in self._faults.values() if isinstance(each, ClockJump)))

    def _has(self, fault: NodeFault) -> bool:
        return any(type(each) is type(fault) for each in self._faults.values())
