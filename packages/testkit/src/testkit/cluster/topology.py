"""What a cluster consists of. Nothing here does anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from testkit.faults.vocabulary import Latency

if TYPE_CHECKING:
    from testkit.cluster.simulated import Member

Command = tuple[str, ...]
"""Words in which ``{python}``, ``{name}``, ``{host}`` and ``{port}`` are filled in."""


@dataclass(frozen=True, slots=True)
class Program:
    """What runs on a node, in the forms that the substrates need.

    As a process or in a container it listens where the command says, and finds the peers that it may connect
    to in ``TESTKIT_PEERS``: JSON, from the peer's name to ``HOST:PORT``.
    """

    command: Command = ()
    image: str = ""
    """Of the container; its ``{python}`` is python3."""
    environment: Mapping[str, str] = field(default_factory=dict)
    movable_clock: bool = False
    """Have `ClockJump` on its nodes, by a library that is loaded before the program (glibc's): see
    `testkit.faults.program_clock`. Simulated programs have it without."""
    simulated: Callable[[Member], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A machine. Without a program it is where the test itself connects from."""

    name: str
    region: str = ""
    program: Program | None = None


@dataclass(frozen=True, slots=True)
class Between:
    """How long everything takes from one region to the other, each way."""

    one: str
    other: str
    delay_s: float
    jitter_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Topology:
    """Nodes by name, and links from who connects to who listens.

    Raises:
        ValueError: two nodes of one name, a link from or to none, or one to a node without a program.
    """

    nodes: tuple[Node, ...]
    links: tuple[tuple[str, str], ...] = ()
    latencies: tuple[Between, ...] = ()

    def __post_init__(self) -> None:
        names = [node.name for node in self.nodes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"several nodes are called {', '.join(twice)}")
        for source, target in self.links:
            if unknown := {source, target} - set(names):
                raise ValueError(f"the link {source}>{target} is about {', '.join(sorted(unknown))}: no node")
            if self.node(target).program is None:
                raise ValueError(f"the link {source}>{target} leads to a node without a program")

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def peers(self, name: str) -> list[str]:
        """Whom a node may connect to."""
        return [target for source, target in self.links if source == name]

    def latency(self, source: str, target: str) -> Latency | None:
        """What the distance of their regions makes of a link, always in force; None for none."""
        regions = {self.node(source).region, self.node(target).region}
        for between in self.latencies:
            if regions == {between.one, between.other}:
                return Latency(between.delay_s, between.jitter_s)
        return None


def link_name(source: str, target: str) -> str:
    return f"{source}>{target}"
