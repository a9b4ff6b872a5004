"""The network between two regions, as their POPs see it, and how it breaks."""

from __future__ import annotations

from e2e.hosts.world import World
from testkit.faults.packets import DEVICE
from testkit.faults.vocabulary import Fault, Partition, UnavailableError


class Between:
    """What leads from the POP of either region to the other region, its POP and its backends, and back."""

    def __init__(self, world: World, some: str, other: str) -> None:
        self._ends = [
            (world.distances[near], str(world.atlas.regions[far]))
            for near, far in ((some, other), (other, some))
        ]
        self._name = f"{some} and {other}"

    def inject(self, fault: Fault) -> None:
        """Let something go wrong between the two, until the world heals.

        Raises:
            UnavailableError: this cannot be done to packets between regions.
        """
        if fault != Partition():
            raise UnavailableError(
                f"{fault} between {self._name}: regions are cut from each other as a whole"
            )
        for distance, far in self._ends:
            for rule in (
                ("INPUT", "--source", far),
                # On the far side of the distance: to whom sends, a network that loses packets says nothing.
                ("OUTPUT", "--destination", far, "!", "--out-interface", DEVICE),
            ):
                distance.run("iptables", "--append", *rule, "--jump", "DROP")
                distance.undo(distance.run, "iptables", "--delete", *rule, "--jump", "DROP")
