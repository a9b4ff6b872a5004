"""What clusters keep, search and refuse; containers by an engine that runs them as processes."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from packages.testkit.tests.integration.cluster.stories import (
    PAUSED_NODE,
    PAUSED_OBSERVED,
    echo_program,
    one_clock,
    tell_of_clocks,
    two_echoes,
)
from testkit.cluster.cluster import Cluster
from testkit.cluster.containers import ContainerCluster
from testkit.cluster.processes import ProcessCluster
from testkit.cluster.simulated import Member, SimulatedCluster
from testkit.cluster.topology import Node, Program, Topology
from testkit.faults.exchange import Outcome
from testkit.faults.vocabulary import ClockJump, Kill, Latency, Partition, Pause, UnavailableError
from testkit.process import Process
from testkit.virtual_time import run as run_in_virtual_time


def one_node(program: Program) -> Topology:
    return Topology((Node("client"), Node("a", program=program)), (("client", "a"),))


# ---- what is kept ------------------------------------------------------------------------------------


async def test_a_block_that_fails_leaves_logs_journal_and_topology(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    cluster = ProcessCluster(two_echoes(), tmp_path, seed=9, artefacts=kept)

    async def story() -> None:
        async with cluster:
            await cluster.inject("client>far", Partition())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await story()
    assert "ready" in (kept / "far.log").read_text()
    assert "Node(name='near'" in (kept / "topology.txt").read_text()
    first, *rest = [json.loads(line) for line in (kept / "journal.jsonl").read_text().splitlines()]
    assert first == {"seed": 9}
    assert rest[-1]["what"] == "inject"
    assert "Partition" in rest[-1]["detail"]


async def test_a_start_that_fails_leaves_them_too_and_no_process(tmp_path: Path) -> None:
    program = Program(("{python}", "-c", "print('not today'); raise SystemExit(3)"))
    kept = tmp_path / "kept"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("testkit.cluster.addressed.READY_TIMEOUT_S", 0.2)
        with pytest.raises(TimeoutError, match="a to listen"):
            async with ProcessCluster(one_node(program), tmp_path, artefacts=kept):
                raise AssertionError("it cannot have started")
    assert (kept / "topology.txt").exists()


def test_without_artefacts_nothing_is_written(tmp_path: Path) -> None:
    async def story() -> None:
        async with ProcessCluster(one_node(echo_program()), tmp_path):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(story())
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]


def complaining(*allowed: str) -> None:
    async def complain(member: Member) -> None:
        member.log("INFO all is well")
        member.log("ERROR the disk is full")

    async def story() -> None:
        async with SimulatedCluster(one_node(Program(simulated=complain)), allowed_errors=allowed):
            pass

    run_in_virtual_time(story())


def test_errors_in_a_log_fail_the_test_that_did_not_allow_them() -> None:
    with pytest.raises(AssertionError, match=r"nobody allowed:\na: 0\.000 ERROR the disk is full$"):
        complaining()
    complaining("disk is full")


# ---- groups ------------------------------------------------------------------------------------------


def test_groups_are_parted_and_mended() -> None:
    async def story() -> None:
        async with SimulatedCluster(two_echoes()) as cluster:
            parted = await cluster.part(["client", "near"], ["far"], Partition())
            assert [link for link, _ in parted] == ["client>far", "near>far"]
            assert await cluster.look("client>far") is Outcome.SILENT
            assert await cluster.look("client>near") is Outcome.ANSWERED
            await cluster.mend(parted)
            assert await cluster.look("client>far") is Outcome.ANSWERED

    run_in_virtual_time(story())


def test_members_reach_their_peers_over_links() -> None:
    answers: list[bytes] = []

    async def asker(member: Member) -> None:
        async def ask() -> None:
            reader, writer = await member.connect("far")
            writer.write(b"hello")
            answers.append(await reader.readexactly(5))
            writer.close()

        with pytest.raises(AssertionError, match="no link to client"):
            await member.connect("client")
        member.node.run(ask())

    async def story() -> None:
        far, near = Node("far", program=echo_program()), Node("a", program=Program(simulated=asker))
        async with SimulatedCluster(Topology((far, near), (("a", "far"),))) as cluster:
            await cluster.inject("a>far", Latency(0.5))
            await asyncio.sleep(10)

    run_in_virtual_time(story())
    assert answers == [b"hello"]


# ---- processes ---------------------------------------------------------------------------------------


async def test_a_program_is_told_its_peers(tmp_path: Path) -> None:
    source = (
        "import os, socket, sys; print(os.environ['TESTKIT_PEERS'], os.environ['MINE'], flush=True);"
        " s = socket.create_server((sys.argv[1], int(sys.argv[2])))\nwhile True: s.accept()"
    )
    asker = Program(("{python}", "-c", source, "{host}", "{port}", "{name}"), environment={"MINE": "yes"})
    topology = Topology((Node("a", program=asker), Node("b", program=echo_program())), (("a", "b"),))
    async with ProcessCluster(topology, tmp_path) as cluster:
        log = cluster.logs()["a"]
        peers, _, mine = log.strip().partition("} ")
        assert mine == "yes"
        host, _, port = json.loads(peers + "}")["b"].partition(":")
        assert (host, port.isdigit()) == ("127.0.0.1", True)


async def test_what_was_injected_twice_is_recovered_twice(tmp_path: Path) -> None:
    async with ProcessCluster(one_node(echo_program()), tmp_path) as cluster:
        first = await cluster.inject("a", Pause())
        second = await cluster.inject("a", Pause())
        await cluster.recover("a", first)
        assert await cluster.look("client>a", 0.1) is Outcome.SILENT
        await cluster.recover("a", second)
        assert await cluster.look("client>a") is Outcome.ANSWERED


async def test_a_paused_process_that_is_killed_starts_anew(tmp_path: Path) -> None:
    async with ProcessCluster(one_node(echo_program()), tmp_path) as cluster:
        paused = await cluster.inject("a", Pause())
        killed = await cluster.inject("a", Kill())
        await cluster.recover("a", paused)
        assert await cluster.look("client>a") is Outcome.TURNED_AWAY
        await cluster.recover("a", killed)
        assert await cluster.look("client>a") is Outcome.ANSWERED


# ---- containers, by an engine of processes -----------------------------------------------------------


class FakeContainer:
    """What `ContainerCluster` uses of a container of the ``docker`` package, as a process."""

    def __init__(self, folder: Path, address: str, command: list[str], options: dict[str, Any]) -> None:
        self._log_path = folder / f"{options['name']}.log"
        self._command = [sys.executable if word == "python3" else word for word in command]
        self._command = [address if word == "0.0.0.0" else word for word in self._command]
        self._environment = dict(options["environment"])
        for outside, inside in options["volumes"].items():
            for name, value in self._environment.items():
                self._environment[name] = value.replace(inside["bind"], outside)
        self._process: Process | None = None
        self._state = "created"
        self.status = "created"
        self.attrs = {"NetworkSettings": {"Networks": {options["network"]: {"IPAddress": address}}}}

    def start(self) -> None:
        self._process = Process(self._command, env=self._environment, log_path=self._log_path)
        self._state = "running"

    def reload(self) -> None:
        self.status = self._state

    def _signal(self, sig: signal.Signals, state: str) -> None:
        assert self._process is not None
        self._process.kill(sig)
        self._state = state

    def kill(self) -> None:
        self._signal(signal.SIGKILL, "exited")
        assert self._process is not None
        self._process.wait_exit()

    def top(self) -> dict[str, Any]:
        assert self._process is not None
        return {"Titles": ["UID", "PID", "CMD"], "Processes": [["root", str(self._process.pid), "python3"]]}

    def pause(self) -> None:
        self._signal(signal.SIGSTOP, "paused")

    def unpause(self) -> None:
        self._signal(signal.SIGCONT, "running")

    def logs(self) -> bytes:
        return self._log_path.read_bytes()

    def remove(self, *, force: bool, v: bool) -> None:
        assert force
        assert v
        if self._process is not None:
            self._process.stop()


_PORT = 7000
"""On which the programs of a cluster of containers listen."""


def claimed() -> socket.socket:
    """The gateway of a part of the loopback interface that no other test has; until it is closed."""
    for third in range(256):
        claim = socket.socket()
        try:
            # Without a listener and without leave to share, nobody else gets it either.
            claim.bind((f"127.77.{third}.1", _PORT))
        except OSError:
            claim.close()
        else:
            return claim
    raise AssertionError("there are as many tests as networks")


class FakeEngine:
    """An engine with one network, on the loopback interface, where each container has an address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.networks = self
        self.labels: list[dict[str, str]] = []
        """Of all that was made."""
        self._claim = claimed()
        network = self._claim.getsockname()[0].rpartition(".")[0]
        self.containers = FakeContainers(folder, network, self.labels)
        self.is_removed = False
        self.attrs = {"IPAM": {"Config": [{"Gateway": "127.0.0.1"}]}}
        self.name = ""

    def create(self, name: str, **options: Any) -> FakeEngine:
        assert options["internal"]
        self.labels.append(options["labels"])
        self.name = name
        return self

    def reload(self) -> None:
        """Nothing to be learnt."""

    def remove(self) -> None:
        self.is_removed = True
        self._claim.close()


class FakeContainers:
    def __init__(self, folder: Path, network: str, labels: list[dict[str, str]]) -> None:
        self._folder = folder
        self._network = network
        self._labels = labels
        self._count = 1

    def create(self, image: str, command: list[str], **options: Any) -> FakeContainer:
        assert image == "an image"
        self._labels.append(options["labels"])
        self._count += 1
        return FakeContainer(self._folder, f"{self._network}.{self._count}", command, options)


async def test_containers_are_driven_as_processes_are(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path)
    cluster: Cluster = ContainerCluster(two_echoes("an image"), engine, labels={"world": "7"})
    async with cluster:
        assert (await cluster.run(PAUSED_NODE)).observations == PAUSED_OBSERVED
        killed = await cluster.inject("far", Kill())
        assert await cluster.look("client>far") is Outcome.TURNED_AWAY
        await cluster.recover("far", killed)
        assert await cluster.look("client>far") is Outcome.ANSWERED
        with pytest.raises(UnavailableError, match="does not say movable_clock"):
            await cluster.inject("far", ClockJump(1))
        paused, killed = await cluster.inject("near", Pause()), await cluster.inject("near", Kill())
        await cluster.recover("near", killed)
        await cluster.recover("near", paused)
        assert await cluster.look("client>near") is Outcome.ANSWERED
        assert "ready" in cluster.logs()["near"]
    assert engine.is_removed
    (run,) = {each["testkit.cluster"] for each in engine.labels}
    assert engine.labels == [{"world": "7", "testkit.cluster": run}] * 3


@pytest.mark.usefixtures("program_clock")  # or it is skipped
async def test_clocks_of_containers_jump_as_those_of_processes_do(tmp_path: Path) -> None:
    await tell_of_clocks(ContainerCluster(one_clock("an image"), FakeEngine(tmp_path)), time.time)


@pytest.mark.usefixtures("program_clock")
async def test_clock_of_a_container_that_stands_still_can_be_set(tmp_path: Path) -> None:
    cluster = ContainerCluster(one_clock("an image"), FakeEngine(tmp_path))
    async with cluster:
        paused = await cluster.inject("a", Pause())
        assert cluster.unavailable("a", ClockJump(1)) is None
        await cluster.recover("a", paused)
