"""A cluster of containers in a network of their own; each link is a fault link on our address in it.

Needs an engine on this machine, and a client of it from the package ``docker`` (extra ``containers``). The
links are in this process; containers reach them at the gateway of their network, which leads nowhere else.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

from testkit.cluster.addressed import AddressedCluster, command_of, wait_listening
from testkit.cluster.machine import Machine
from testkit.cluster.topology import Node, Program, Topology
from testkit.faults.journal import Journal
from testkit.faults.program_clock import ProgramClock
from testkit.wait import wait_until_async

LABEL = "testkit.cluster"
"""On every container and network, so that what an aborted run left is found."""

_PORT = 7000
_EVERYWHERE = "0.0.0.0"
_CLOCK = "/testkit-clock"


def remove_network(network: Any) -> None:
    """Remove a network, or leave it where only the engine's own mistake is in the way.

    An engine under load may count a container of a network for ever (moby/moby#42119): it shows none in it,
    lets others in, and removes it no sooner than the engine itself is started anew.

    Raises:
        docker.errors.APIError: it cannot be removed for another reason, such as a container that is in it.
    """
    from docker.errors import APIError, NotFound

    with suppress(NotFound):
        try:
            network.remove()
        except APIError as error:
            network.reload()
            if error.status_code != HTTPStatus.FORBIDDEN or network.attrs["Containers"]:
                raise


class ContainerNode(Machine):
    """A container that can be paused, killed and started again."""

    def __init__(
        self,
        name: str,
        container: Any,
        journal: Journal,
        clock: ProgramClock | str,
        moved: Callable[[tuple[str, int]], None],
    ) -> None:
        """``container``: of the ``docker`` package, created, not started; ``moved`` hears of its address."""
        super().__init__(name, journal, clock)
        self.container = container
        self._moved = moved

    @property
    def log(self) -> str:
        written: bytes = self.container.logs()
        return written.decode(errors="replace")

    async def start(self) -> None:
        await asyncio.to_thread(self.container.start)
        await self._wait_state("running")
        (network,) = self.container.attrs["NetworkSettings"]["Networks"].values()
        # Another one, perhaps, than before.
        address = (network["IPAddress"], _PORT)
        await wait_listening(self.name, *address)
        self._moved(address)

    async def kill(self) -> None:
        await asyncio.to_thread(self.container.kill)
        await self._wait_state("exited")

    async def pause(self) -> None:
        await asyncio.to_thread(self.container.pause)
        await self._wait_state("paused")

    async def resume(self) -> None:
        # A paused container that was killed has been started anew since.
        await asyncio.to_thread(self.container.reload)
        if self.container.status == "paused":
            await asyncio.to_thread(self.container.unpause)
            await self._wait_state("running")

    def pids(self) -> list[int]:
        # A paused one cannot be asked by every engine; it has loaded what it had loaded before.
        self.container.reload()
        if self.container.status != "running":
            return []
        top = self.container.top()
        return [int(row[top["Titles"].index("PID")]) for row in top["Processes"]]

    async def _wait_state(self, state: str) -> None:
        def is_there() -> bool:
            self.container.reload()
            return bool(self.container.status == state)

        await wait_until_async(lambda: asyncio.to_thread(is_there), reason=f"{self.name} to be {state}")


class ContainerCluster(AddressedCluster):
    """See the module."""

    def __init__(
        self, topology: Topology, engine: Any, *, labels: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        """``engine``: a ``docker.DockerClient``, as ``docker.from_env()`` gives; ``options`` of `Cluster`.

        Containers and network carry ``labels`` besides :data:`LABEL`, for whoever sweeps by some of his own.
        """
        super().__init__(topology, **options)
        self._engine = engine
        self._labels = labels or {}
        self.nodes: dict[str, ContainerNode] = {}

    async def start(self) -> None:
        run = secrets.token_hex(4)
        network = await asyncio.to_thread(
            self._engine.networks.create,
            f"testkit-{run}",
            driver="bridge",
            internal=True,
            labels={**self._labels, LABEL: run},
        )
        self._ending.push_async_callback(asyncio.to_thread, remove_network, network)
        await asyncio.to_thread(network.reload)
        gateway: str = network.attrs["IPAM"]["Config"][0]["Gateway"]
        programs = [node for node in self.topology.nodes if node.program is not None]
        # Programs are told of their links before they run, and links of their programs when those do.
        await self.open_links(gateway, {node.name: (gateway, _PORT) for node in programs})
        for node in programs:
            assert node.program is not None
            clock = self.clock_of(node.program, seen_at=_CLOCK)
            container = await self._create(node, node.program, network.name, run, clock)
            self._ending.push_async_callback(asyncio.to_thread, container.remove, force=True, v=True)
            machine = ContainerNode(node.name, container, self.journal, clock, partial(self.point, node.name))
            self.members[node.name] = self.nodes[node.name] = machine
            await machine.start()

    async def _create(
        self, node: Node, program: Program, network: str, run: str, clock: ProgramClock | str
    ) -> Any:
        folders = {str(clock.folder): {"bind": _CLOCK, "mode": "ro"}} if not isinstance(clock, str) else {}
        return await asyncio.to_thread(
            self._engine.containers.create,
            program.image,
            command_of(program, python="python3", name=node.name, host=_EVERYWHERE, port=_PORT),
            name=f"testkit-{run}-{node.name}",
            hostname=node.name,
            network=network,
            environment=self.environment(node, program, clock),
            volumes=folders,
            labels={**self._labels, LABEL: run},
            init=True,
        )

    def logs(self) -> dict[str, str]:
        return {name: node.log for name, node in self.nodes.items()}
