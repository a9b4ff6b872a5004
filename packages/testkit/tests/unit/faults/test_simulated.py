from __future__ import annotations

import asyncio

import pytest

from testkit.faults.exchange import Outcome, echo, exchange
from testkit.faults.journal import Entry
from testkit.faults.simulated import SimulatedNetwork
from testkit.faults.vocabulary import (
    DOWN,
    UP,
    AcceptThenHang,
    Bandwidth,
    Blackhole,
    ClockJump,
    Corruption,
    Fault,
    HalfClose,
    Kill,
    Latency,
    LimitBytes,
    Loss,
    Partition,
    Pause,
    Refuse,
    Reset,
    SlowClose,
    UnavailableError,
)
from testkit.virtual_time import run, virtual_time

_PORT = 7


async def network_of_two(seed: int = 1) -> SimulatedNetwork:
    network = SimulatedNetwork(seed)
    server = network.node("server")

    async def main() -> None:
        await server.listen(_PORT, echo)

    await server.start(main)
    return network


async def outcome(network: SimulatedNetwork, patience_s: float = 60.0) -> Outcome:
    return await exchange(lambda: network.node("client").connect("server", _PORT), patience_s=patience_s)


def now_s() -> float:
    return asyncio.get_running_loop().time()


@virtual_time
async def test_streams_are_those_of_asyncio() -> None:
    network = await network_of_two()
    assert await outcome(network) is Outcome.ANSWERED
    await asyncio.sleep(0)
    assert network.connections == set()


@virtual_time
async def test_where_nobody_listens_connecting_is_refused() -> None:
    network = SimulatedNetwork()
    with pytest.raises(ConnectionRefusedError, match="client was refused by server:7"):
        await network.node("client").connect("server", _PORT)


@virtual_time
async def test_a_port_is_listened_on_once() -> None:
    network = await network_of_two()
    with pytest.raises(OSError, match="listens on 7 already"):
        await network.node("server").listen(_PORT, echo)


@virtual_time
async def test_connecting_takes_a_way_there_and_back_and_so_does_asking() -> None:
    network = await network_of_two()
    await network.link("client", "server").inject(Latency(0.1))
    reader, writer = await network.node("client").connect("server", _PORT)
    assert now_s() == pytest.approx(0.2)
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    assert now_s() == pytest.approx(0.4)
    assert writer.get_extra_info("peername") == ("server", 0)
    await network.close()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Refuse(), Outcome.TURNED_AWAY),
        (Reset(), Outcome.TURNED_AWAY),
        (Partition(), Outcome.SILENT),
        (Partition(direction=DOWN), Outcome.SILENT),
        (Blackhole(), Outcome.SILENT),
        (Blackhole(direction=DOWN), Outcome.SILENT),
        (AcceptThenHang(), Outcome.SILENT),
        (HalfClose(direction=DOWN), Outcome.TURNED_AWAY),
        (LimitBytes(10, direction=DOWN), Outcome.CUT_SHORT),
        (LimitBytes(10, reset=True, direction=DOWN), Outcome.CUT_SHORT),
        (Corruption(direction=DOWN), Outcome.ALTERED),
        (SlowClose(30), Outcome.SILENT),
        (Bandwidth(1), Outcome.SILENT),
        (Latency(10), Outcome.ANSWERED),
        (Reset(probability=0.0), Outcome.ANSWERED),
    ],
)
def test_what_each_fault_of_a_link_looks_like_and_that_it_ends(fault: Fault, expected: Outcome) -> None:
    async def story() -> None:
        network = await network_of_two()
        link = network.link("client", "server")
        number = await link.inject(fault)
        assert await outcome(network, patience_s=50) is expected
        await link.recover(number)
        assert await outcome(network) is Outcome.ANSWERED
        await network.close()

    run(story())


@virtual_time
async def test_who_waits_to_connect_does_when_the_partition_heals() -> None:
    network = await network_of_two()
    link = network.link("client", "server")
    number = await link.inject(Partition(direction=UP))
    asking = asyncio.ensure_future(outcome(network))
    await asyncio.sleep(30)
    await link.recover(number)
    assert await asking is Outcome.ANSWERED
    assert now_s() == pytest.approx(30)


@virtual_time
async def test_who_sends_more_than_gets_through_has_to_wait() -> None:
    network = await network_of_two()
    await network.link("client", "server").inject(Bandwidth(100_000, direction=UP))
    reader, writer = await network.node("client").connect("server", _PORT)
    for _ in range(20):
        writer.write(bytes(10_000))
        await writer.drain()
    # All but what the link holds has been let through by then.
    assert now_s() > 1.0
    assert await reader.readexactly(200_000) == bytes(200_000)
    assert now_s() == pytest.approx(2.0, abs=0.1)
    await network.close()


@virtual_time
async def test_an_aborted_connection_is_reset_for_the_other_side() -> None:
    network = await network_of_two()
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
        except ConnectionResetError:
            seen.put_nowait("reset")
        writer.close()

    await network.node("server").listen(8, watch)
    _, writer = await network.node("client").connect("server", 8)
    writer.transport.abort()
    assert await seen.get() == "reset"


@virtual_time
async def test_a_paused_node_accepts_and_answers_when_it_goes_on() -> None:
    network = await network_of_two()
    reader, writer = await network.node("client").connect("server", _PORT)
    number = await network.node("server").inject(Pause())
    writer.write(b"open")
    assert await outcome(network, patience_s=10) is Outcome.SILENT
    new_reader, new_writer = await network.node("client").connect("server", _PORT)
    new_writer.write(b"new")
    await network.node("server").recover(number)
    assert await reader.readexactly(4) == b"open"
    assert await new_reader.readexactly(3) == b"new"
    await network.close()


@virtual_time
async def test_a_killed_node_resets_refuses_and_starts_anew() -> None:
    network = await network_of_two()
    server = network.node("server")
    reader, _ = await network.node("client").connect("server", _PORT)
    number = await server.inject(Kill())
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    assert await outcome(network) is Outcome.TURNED_AWAY
    await server.recover(number)
    assert await outcome(network) is Outcome.ANSWERED


@virtual_time
async def test_what_runs_on_a_node_dies_with_it() -> None:
    network = await network_of_two()
    ticks = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(now_s())

    network.node("server").run(tick())
    await asyncio.sleep(3.5)
    await network.node("server").inject(Kill())
    await asyncio.sleep(10)
    assert ticks == [1, 2, 3]


@virtual_time
async def test_a_clock_jumps_and_is_set_right() -> None:
    node = SimulatedNetwork().node("a")
    await asyncio.sleep(5)
    number = await node.inject(ClockJump(-3600))
    assert node.now_s() == -3595
    await node.recover(number)
    assert node.now_s() == 5


@virtual_time
async def test_datagrams_are_lost_and_delayed_but_never_told_about() -> None:
    network = SimulatedNetwork(5)
    got: list[tuple[float, bytes, str]] = []
    network.node("b").receive(9, lambda data, sender: got.append((now_s(), data, sender)))
    network.node("a").send("b", 9, b"at once")
    network.node("a").send("b", 10, b"to nobody")
    await asyncio.sleep(0)
    link = network.link("a", "b")
    await link.inject(Latency(2))
    network.node("a").send("b", 9, b"late")
    await asyncio.sleep(3)
    await link.inject(Loss(1.0))
    network.node("a").send("b", 9, b"lost")
    await asyncio.sleep(3)
    assert got == [(0, b"at once", "a"), (2, b"late", "a")]


@pytest.mark.parametrize("fault", [Pause(), Kill()])
def test_a_node_that_stands_still_gets_and_sends_no_datagrams(fault: Fault) -> None:
    async def story() -> None:
        network = SimulatedNetwork()
        got: list[bytes] = []
        for name in ("a", "b"):
            network.node(name).receive(9, lambda data, _: got.append(data))
        await network.node("b").inject(fault)
        network.node("a").send("b", 9, b"to it")
        if isinstance(fault, Pause):
            network.node("b").send("a", 9, b"from it")
        await asyncio.sleep(1)
        assert got == []

    run(story())


@virtual_time
async def test_links_and_nodes_tell_what_is_not_theirs() -> None:
    network = SimulatedNetwork()
    with pytest.raises(UnavailableError, match="about a node"):
        await network.link("a", "b").inject(Kill())
    with pytest.raises(UnavailableError, match="about a link"):
        await network.node("a").inject(Partition())
    with pytest.raises(UnavailableError, match="says already"):
        await network.link("a", "b").inject(Loss(0.5, probability=0.5))
    assert network.journal.entries == []


def test_the_same_seed_gives_the_same_run() -> None:
    async def story(seed: int) -> list[Entry]:
        network = await network_of_two(seed)
        link = network.link("client", "server")
        await link.inject(Latency(1, jitter_s=1))
        await link.inject(Reset(probability=0.5))
        for _ in range(10):
            network.journal.note("observe", link.name, await outcome(network))
        await network.close()
        return network.journal.entries

    def told(seed: int) -> list[Entry]:
        return run(story(seed))

    assert told(3) == told(3)
    assert told(3) != told(4)
