"""How faults come over a link and end, whatever the link is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod

from testkit.faults.in_force import FaultsInForce
from testkit.faults.journal import Journal
from testkit.faults.vocabulary import Fault, LinkFault, UnavailableError


class FaultyLink(ABC):
    """A link that has faults; what it does about them is for each kind of link to say."""

    name: str
    in_force: FaultsInForce

    @staticmethod
    @abstractmethod
    def unavailable(fault: Fault) -> str | None:
        """Why there is no such fault here; None when there is."""

    @property
    @abstractmethod
    def journal(self) -> Journal:
        """Where it is written down."""

    @abstractmethod
    async def apply(self) -> None:
        """Do what the faults that are in force now ask for, to what is open, too."""

    async def inject(self, fault: Fault) -> int:
        """Put a fault in force, on what is open, too; return its number, for `recover`.

        Raises:
            UnavailableError: the link cannot do that.
        """
        if (why := self.unavailable(fault)) is not None:
            raise UnavailableError(f"{fault} on {self.name}: {why}")
        assert isinstance(fault, LinkFault)
        number = self.in_force.add(fault)
        self.journal.note("inject", self.name, fault)
        await self.apply()
        return number

    async def recover(self, number: int) -> None:
        """End a fault; when this returns, what it held is on its way and the rest gets through.

        Raises:
            KeyError: no fault of that number is in force.
        """
        self.in_force.remove(number)
        self.journal.note("recover", self.name, number)
        await self.apply()
