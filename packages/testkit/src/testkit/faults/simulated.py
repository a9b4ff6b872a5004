"""A network inside the process: nodes that listen, connect and send datagrams, on asyncio and in its time.

On an event loop of virtual time a scenario of hours takes milliseconds and, with the same seed, happens again
in the same way. Streams are asyncio's own, so code written for real connections runs on it unchanged::

    network = SimulatedNetwork(seed)
    await network.node("store").listen(7000, serve)  # as asyncio.start_server calls it
    reader, writer = await network.node("client").connect("store", 7000)
    cut = await network.link("client", "store").inject(Partition())

Connecting takes the time of a way there and back. Sockets, threads and processes are outside of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from testkit.faults.exchange import Serve
from testkit.faults.in_force import FaultsInForce
from testkit.faults.injection import FaultyLink
from testkit.faults.journal import Journal
from testkit.faults.lanes import DatagramLane, Signal, StreamLane
from testkit.faults.pump import Pump
from testkit.faults.vocabulary import (
    DOWN,
    UP,
    AcceptThenHang,
    ClockJump,
    Direction,
    Fault,
    Kill,
    Latency,
    LinkFault,
    Loss,
    NodeFault,
    Partition,
    Pause,
    Refuse,
    UnavailableError,
)

Receive = Callable[[bytes, str], None]
"""Called with a datagram and the name of the node that sent it."""


class SimulatedLink(FaultyLink):
    """What leads from one node to another: the first connects, or sends."""

    def __init__(self, network: SimulatedNetwork, source: str, target: str, number: int) -> None:
        self.network = network
        self.source, self.target = source, target
        self.name = f"{source}>{target}"
        self.in_force = FaultsInForce(network.seed + number)
        self.changed = asyncio.Event()
        self._last = 0
        # Negative, so that datagrams and connections are struck by draws of their own.
        self.datagrams = DatagramLane(
            lambda number: self.in_force.striking(-number, UP), self.in_force.draws(0, UP)
        )

    @staticmethod
    def unavailable(fault: Fault) -> str | None:
        """Why there is no such fault here; None when there is."""
        if not isinstance(fault, LinkFault):
            return "it is about a node, and this is a link"
        if isinstance(fault, Loss):
            return None if fault.probability == 1 else "the share says already how much is lost"
        return None

    @property
    def journal(self) -> Journal:
        """That of the network."""
        return self.network.journal

    async def apply(self) -> None:
        """See :meth:`FaultyLink.apply`."""
        self.look()

    def look(self) -> None:
        """Faults have changed, of the link or of one of its nodes."""
        self.changed.set()
        self.changed = asyncio.Event()
        for connection in list(self.network.connections):
            if connection.link is self:
                connection.look()

    async def let_through(self, number: int) -> None:
        """The way of a connection's first packet, and of the answer to it."""
        while self.in_force.find(Partition, number) is not None:
            await self.changed.wait()
        delays_s = [
            fault.delay_s
            for way in (UP, DOWN)
            for fault in self.in_force.striking(number, way)
            if isinstance(fault, Latency)
        ]
        if delays_s:
            await asyncio.sleep(sum(delays_s))

    def next_number(self) -> int:
        self._last += 1
        return self._last

    def faults(self, number: int, way: Direction) -> list[LinkFault]:
        """What strikes a connection one way: nothing moves while one of the nodes stands still."""
        held = any(self.network.node(name).is_paused for name in (self.source, self.target))
        return [*self.in_force.striking(number, way), *([Partition()] if held else [])]


class SimulatedNode:
    """A machine of the network; made by `SimulatedNetwork.node`."""

    def __init__(self, network: SimulatedNetwork, name: str) -> None:
        self.name = name
        self.is_paused = False
        self.is_dead = False
        self._network = network
        self._clock_is_off_by_s = 0.0
        self.services: dict[int, Serve] = {}
        self._receivers: dict[int, Receive] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self._main: Callable[[], Awaitable[None]] | None = None
        self._faults: dict[int, NodeFault] = {}
        self._last = 0

    def __repr__(self) -> str:
        return f"<SimulatedNode {self.name}>"

    def now_s(self) -> float:
        """What its wall clock shows, in seconds since the simulation began."""
        return asyncio.get_running_loop().time() + self._clock_is_off_by_s

    async def start(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run the node's program: it sets up services and returns. It runs again when `Kill` is recovered."""
        self._main = main
        await main()

    async def listen(self, port: int, serve: Serve) -> None:
        """Serve connections, as with `asyncio.start_server`.

        Raises:
            OSError: something listens there already.
        """
        if port in self.services:
            raise OSError(f"{self.name} listens on {port} already")
        self.services[port] = serve

    def receive(self, port: int, receive: Receive) -> None:
        """Take datagrams that are sent to ``port``."""
        self._receivers[port] = receive

    def send(self, target: str, port: int, data: bytes) -> None:
        """Send a datagram. Whether it arrives, nobody learns."""
        link = self._network.link(self.name, target)
        planned = link.datagrams.push(data, asyncio.get_running_loop().time())
        if planned is not None and not self.is_paused:
            at_s, piece = planned
            node = self._network.node(target)
            asyncio.get_running_loop().call_at(at_s, node.take, port, piece, self.name)

    def take(self, port: int, data: bytes, sender: str) -> None:
        """A datagram has arrived."""
        receive = self._receivers.get(port)
        if receive is not None and not (self.is_paused or self.is_dead):
            receive(data, sender)

    async def connect(self, target: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a service of another node. Give it a time-out: over a partition it waits for the end.

        Raises:
            ConnectionRefusedError: nobody listens there.
        """
        link, node = self._network.link(self.name, target), self._network.node(target)
        number = link.next_number()
        await link.let_through(number)
        serve = node.services.get(port)
        if serve is None or link.in_force.find(Refuse, number) is not None:
            raise ConnectionRefusedError(f"{self.name} was refused by {target}:{port}")
        return SimulatedConnection(link, number, node).open(serve)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something as a part of this node, until it is killed."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # ---- what goes wrong with it ---------------------------------------------------------------------

    @staticmethod
    def unavailable(fault: Fault) -> str | None:
        """Why there is no such fault here; None when there is."""
        return None if isinstance(fault, NodeFault) else "it is about a link, and this is a node"

    async def inject(self, fault: Fault) -> int:
        """Put a fault in force; return its number, for `recover`.

        `Pause` holds what the node sends and gets; its own timers, which are the loop's, go on.

        Raises:
            UnavailableError: a node cannot do that.
        """
        if (why := self.unavailable(fault)) is not None:
            raise UnavailableError(f"{fault} on {self.name}: {why}")
        assert isinstance(fault, NodeFault)
        self._last += 1
        self._faults[self._last] = fault
        self._network.journal.note("inject", self.name, fault)
        if isinstance(fault, Kill):
            self._die()
        self._apply()
        return self._last

    async def recover(self, number: int) -> None:
        """End a fault; when this returns, a node that was killed has started again.

        Raises:
            KeyError: no fault of that number is in force.
        """
        fault = self._faults.pop(number)
        self._network.journal.note("recover", self.name, number)
        self._apply()
        if isinstance(fault, Kill) and not self.is_dead and self._main is not None:
            await self._main()

    def _apply(self) -> None:
        faults = self._faults.values()
        self.is_paused = any(isinstance(fault, Pause) for fault in faults)
        self.is_dead = any(isinstance(fault, Kill) for fault in faults)
        self._clock_is_off_by_s = sum(fault.by_s for fault in faults if isinstance(fault, ClockJump))
        for link in self._network.links_of(self.name):
            link.look()

    def _die(self) -> None:
        self.services.clear()
        self._receivers.clear()
        for task in list(self.tasks):
            task.cancel()
        for connection in list(self._network.connections):
            if self.name in (connection.link.source, connection.link.target):
                connection.sever(Signal.RESET)


class SimulatedNetwork:
    """Nodes by name, and a link for each pair and direction; both appear when they are first asked for."""

    def __init__(self, seed: int = 0, journal: Journal | None = None) -> None:
        self.seed = seed
        self.journal = journal or Journal(seed, asyncio.get_running_loop().time)
        self.connections: set[SimulatedConnection] = set()
        self._nodes: dict[str, SimulatedNode] = {}
        self._links: dict[tuple[str, str], SimulatedLink] = {}

    def node(self, name: str) -> SimulatedNode:
        if name not in self._nodes:
            self._nodes[name] = SimulatedNode(self, name)
        return self._nodes[name]

    def link(self, source: str, target: str) -> SimulatedLink:
        if (source, target) not in self._links:
            self._links[source, target] = SimulatedLink(self, source, target, len(self._links))
        return self._links[source, target]

    def links_of(self, node: str) -> list[SimulatedLink]:
        return [link for ends, link in self._links.items() if node in ends]

    async def close(self) -> None:
        """End everything that runs on the nodes."""
        tasks = [task for node in self._nodes.values() for task in node.tasks]
        for connection in list(self.connections):
            connection.sever(Signal.CUT)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class SimulatedConnection:
    """Both ends of a connection, and a lane each way."""

    def __init__(self, link: SimulatedLink, number: int, server: SimulatedNode) -> None:
        self.link = link
        self._number = number
        self._server_node = server
        draws = link.in_force.draws
        self._client = _End(self)
        self._server = _End(self)
        self._client.sends = self._up = Pump(
            StreamLane(lambda: link.faults(number, UP), draws(number, UP)), self._server
        )
        self._server.sends = self._down = Pump(
            StreamLane(lambda: link.faults(number, DOWN), draws(number, DOWN)), self._client
        )
        self._ends = 0

    def open(self, serve: Serve) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.link.network.connections.add(self)
        self._server_node.run(self._serve(serve))
        streams = self._client.streams()
        self.look()
        return streams

    async def _serve(self, serve: Serve) -> None:
        while (
            self._server_node.is_paused or self.link.in_force.find(AcceptThenHang, self._number) is not None
        ):
            await self.link.changed.wait()
        await serve(*self._server.streams())

    def look(self) -> None:
        self._up.look()
        self._down.look()
        self.regulate()

    def regulate(self) -> None:
        """Let each side write again when there is room."""
        self._client.resume()
        self._server.resume()

    def end_delivered(self) -> None:
        self._ends += 1
        if self._ends == len((self._up, self._down)):
            self.sever(Signal.CUT)

    def sever(self, signal: Signal, receiver: _End | None = None) -> None:
        """End both halves, as a signal says that arrived at ``receiver``."""
        self._up.stop()
        self._down.stop()
        self.link.network.connections.discard(self)
        for end in (self._client, self._server):
            is_reset = signal is Signal.RESET or (signal is Signal.RESET_RECEIVER and end is receiver)
            end.lose(ConnectionResetError("reset by the simulated peer") if is_reset else None)


class _End(asyncio.Transport):
    """What one side of a simulated connection writes to, and the receiver of what the other side wrote."""

    def __init__(self, connection: SimulatedConnection) -> None:
        super().__init__()
        self.sends: Pump
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.StreamReaderProtocol | None = None
        self._early: list[Callable[[asyncio.StreamReaderProtocol], object]] = []
        self._is_closing = False
        self._is_lost = False
        self._is_full = False

    def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Begin to be used; what arrived before is there."""
        reader = asyncio.StreamReader(loop=self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        protocol.connection_made(self)
        self._protocol = protocol
        for tell in self._early:
            tell(protocol)
        return reader, asyncio.StreamWriter(self, protocol, reader, self._loop)

    # ---- what the lane that leads here brings --------------------------------------------------------

    def deliver(self, data: bytes) -> None:
        if not self._is_lost:
            self._tell(lambda protocol: protocol.data_received(data))
        self._connection.regulate()

    def deliver_end(self) -> None:
        if not self._is_lost:
            self._tell(lambda protocol: protocol.eof_received())
        self._connection.end_delivered()

    def sever(self, signal: Signal) -> None:
        self._connection.sever(signal, self)

    def lose(self, error: Exception | None) -> None:
        if not self._is_lost:
            self._is_lost = self._is_closing = True
            self._tell(lambda protocol: protocol.connection_lost(error))

    def _tell(self, tell: Callable[[asyncio.StreamReaderProtocol], object]) -> None:
        if self._protocol is None:
            self._early.append(tell)
        else:
            tell(self._protocol)

    # ---- what the code that is tested does -----------------------------------------------------------

    def write(self, data: Any) -> None:
        if self._is_lost or self._is_closing:
            return
        self.sends.push(bytes(data))
        if self.sends.is_full and not self._is_full and self._protocol is not None:
            self._is_full = True
            self._protocol.pause_writing()

    def resume(self) -> None:
        """There is room in the lane again."""
        if self._is_full and not self.sends.is_full and self._protocol is not None:
            self._is_full = False
            self._protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._is_closing:
            self.sends.end()

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.sends.end()
            # What it still gets, it will not read.
            self._loop.call_soon(self.lose, None)

    def abort(self) -> None:
        if not self._is_lost:
            self.sends.abort()
            self._loop.call_soon(self.lose, None)

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        """Nothing: what is not read waits in the reader, which is of the same process."""

    def resume_reading(self) -> None:
        """Nothing, as nothing was paused."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        link = self._connection.link
        return {"peername": (link.target, 0), "sockname": (link.source, 0)}.get(name, default)
