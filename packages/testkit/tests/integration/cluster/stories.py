"""An echo on two nodes, and scenarios that all substrates tell in the same way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from testkit.cluster.cluster import Cluster
from testkit.cluster.simulated import Member
from testkit.cluster.topology import Between, Node, Program, Topology
from testkit.faults.exchange import Outcome, echo
from testkit.faults.scenario import Inject, Look, Recover, Scenario
from testkit.faults.vocabulary import (
    DOWN,
    UP,
    AcceptThenHang,
    Bandwidth,
    Blackhole,
    ClockJump,
    Corruption,
    HalfClose,
    Kill,
    Latency,
    LimitBytes,
    LinkFault,
    Partition,
    Pause,
    Refuse,
    Reset,
    Slicing,
    SlowClose,
)

ECHO_SOURCE = """
import asyncio, sys

async def serve(reader, writer):
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass
    writer.close()

async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


CLOCK_SOURCE = """
import socket, sys, time

with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(str(time.time()).encode())
"""
"""Tells whoever connects what time it is."""


async def simulated_clock(member: Member) -> None:
    async def tell_time(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(member.node.now_s()).encode())
        writer.close()

    await member.serve(tell_time)


async def simulated_echo(member: Member) -> None:
    member.log("ready")
    await member.serve(echo)


def echo_program(image: str = "", source: str = ECHO_SOURCE) -> Program:
    return Program(("{python}", "-c", source, "{host}", "{port}"), image=image, simulated=simulated_echo)


def two_echoes(image: str = "", source: str = ECHO_SOURCE) -> Topology:
    program = echo_program(image, source)
    return Topology(
        nodes=(
            Node("client", "us"),
            Node("near", "us", program),
            Node("far", "eu", program),
        ),
        links=(("client", "near"), ("client", "far"), ("near", "far")),
        latencies=(Between("us", "eu", 0.01, jitter_s=0.005),),
    )


def one_clock(image: str = "", source: str = CLOCK_SOURCE) -> Topology:
    command = ("{python}", "-c", source, "{host}", "{port}")
    program = Program(command, image=image, simulated=simulated_clock, movable_clock=True)
    return Topology((Node("client"), Node("a", program=program)), (("client", "a"),))


_LINK = "client>far"
_SHORT_S = 0.2
ANSWERED, SILENT = Outcome.ANSWERED.value, Outcome.SILENT.value
CUT, ALTERED, AWAY = Outcome.CUT_SHORT.value, Outcome.ALTERED.value, Outcome.TURNED_AWAY.value

LOOKS_LIKE: list[tuple[LinkFault, str]] = [
    (Latency(0.02, jitter_s=0.01), ANSWERED),
    (Bandwidth(5000), ANSWERED),
    (Slicing(20, pause_s=0.001), ANSWERED),
    (SlowClose(0.01), ANSWERED),
    (Refuse(), AWAY),
    (Reset(), AWAY),
    (Partition(), SILENT),
    (Partition(direction=UP), SILENT),
    (Blackhole(direction=DOWN), SILENT),
    (AcceptThenHang(), SILENT),
    (HalfClose(direction=DOWN), AWAY),
    (LimitBytes(10, direction=DOWN), CUT),
    (Corruption(direction=UP), ALTERED),
]
"""Each fault of links with what somebody who asks sees of it."""


def every_fault_of_links() -> tuple[Scenario, list[tuple[str, str]]]:
    """One after the other on one link, while another is not touched; with what must be observed."""
    steps: list[Inject | Look | Recover] = []
    expected = []
    for fault, outcome in LOOKS_LIKE:
        patience_s = _SHORT_S if outcome == SILENT else 10.0
        steps += [
            Inject(_LINK, fault),
            Look(_LINK, patience_s),
            Look("client>near"),
            Recover(_LINK),
            Look(_LINK),
        ]
        expected += [(_LINK, outcome), ("client>near", ANSWERED), (_LINK, ANSWERED)]
    return Scenario("every fault of links", tuple(steps)), expected


PAUSED_NODE = Scenario(
    "a node is paused",
    (
        Look(_LINK),
        Inject("far", Pause()),
        Look(_LINK, _SHORT_S),
        Look("client>near"),
        Recover("far"),
        Look(_LINK),
    ),
)
PAUSED_OBSERVED = [
    (_LINK, ANSWERED),
    (_LINK, SILENT),
    ("client>near", ANSWERED),
    (_LINK, ANSWERED),
]
KILLED_NODE = Scenario(
    "a node is killed",
    (Inject("far", Kill()), Look(_LINK, _SHORT_S), Look("client>near"), Recover("far"), Look(_LINK)),
)


def unanswered_or_away(observed: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Who is killed refuses as a process and is silent as a machine: both are no answer."""
    return [(link, "no answer" if outcome in {SILENT, AWAY} else outcome) for link, outcome in observed]


KILLED_OBSERVED = [(_LINK, "no answer"), ("client>near", ANSWERED), (_LINK, ANSWERED)]


async def tell(cluster: Cluster) -> None:
    """Run all scenarios, and hold what is observed against what must be."""
    scenario, expected = every_fault_of_links()
    async with cluster:
        assert (await cluster.run(scenario)).observations == expected
        cluster.journal.entries.clear()
        assert (await cluster.run(PAUSED_NODE)).observations == PAUSED_OBSERVED
        cluster.journal.entries.clear()
        assert unanswered_or_away((await cluster.run(KILLED_NODE)).observations) == KILLED_OBSERVED


async def tell_of_clocks(cluster: Cluster, clock: Callable[[], float]) -> None:
    """Let the clock of `one_clock` jump; ``clock`` is the one that is right."""

    async def hours_ahead() -> float:
        reader, writer = await cluster.connect("client>a")
        told = float(await reader.read())
        writer.close()
        # Minutes may pass on a machine that is busy.
        return round((told - clock()) / 3600, 1)

    async with cluster:
        assert await hours_ahead() == 0
        ahead = await cluster.inject("a", ClockJump(5 * 3600))
        assert await hours_ahead() == 5
        back = await cluster.inject("a", ClockJump(-7 * 3600))
        assert await hours_ahead() == -2
        killed = await cluster.inject("a", Kill())
        await cluster.recover("a", killed)
        assert await hours_ahead() == -2
        await cluster.recover("a", ahead)
        assert await hours_ahead() == -7
        await cluster.recover("a", back)
        assert await hours_ahead() == 0
