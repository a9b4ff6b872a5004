"""The program as people start it: three nodes and who asks them, as processes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.forked import started_as_ever
from testkit.process import Process, ProcessFactory
from testkit.wait import wait_until

COMMAND = [sys.executable, "-m", "examples.log"]


class Nodes:
    """Three, not started; and clients of them."""

    def __init__(self, processes: ProcessFactory, folder: Path, ports: list[int]) -> None:
        self.environment: dict[str, str | None] = {
            "LOG_NODES": ",".join(
                f"{name}=127.0.0.1:{port}" for name, port in zip("abc", ports, strict=True)
            ),
            "LOG_FOLDER": str(folder),
            "LOG_HEARTBEAT_S": "0.1",
        }
        self._processes = processes

    def start(self, name: str) -> Process:
        node = self._processes([*COMMAND, "serve", name], env=self.environment, ready=f"{name} listening")
        node.wait_ready()
        return node

    def add(self, line: str) -> None:
        """Ask until it is acknowledged; where nobody knew whether it is there, it may be there twice."""
        wait_until(lambda: self._ask("add", line).exit_code == 0, reason=f"{line} to be acknowledged")

    def read(self) -> list[str]:
        """All lines, each once."""

        def answer() -> Process | None:
            asked = self._ask("read")
            return asked if asked.exit_code == 0 else None

        told = wait_until(answer, reason="whoever leads to answer")
        assert told is not None
        return list(dict.fromkeys(told.log.splitlines()))

    def _ask(self, *words: str) -> Process:
        client = self._processes([*COMMAND, *words], env=self.environment)
        client.wait_exit()
        return client


@pytest.fixture
def nodes(process_factory: ProcessFactory, tmp_path: Path, port_factory: Callable[[], int]) -> Nodes:
    return Nodes(process_factory, tmp_path, [port_factory() for _ in "abc"])


def test_nothing_acknowledged_is_lost_whoever_is_killed(nodes: Nodes) -> None:
    running = {name: nodes.start(name) for name in "abc"}
    nodes.add("first")
    assert nodes.read() == ["first"]
    # One of three is not missed, whether it leads or not; when all are gone, there is what they wrote down.
    running["a"].kill()
    nodes.add("second")
    for name in "bc":
        running[name].kill()
    for name in "ab":
        nodes.start(name)
    assert nodes.read() == ["first", "second"]


def test_node_ends_in_order_and_begins_anew(nodes: Nodes) -> None:
    with started_as_ever():
        for _ in range(2):
            nodes.start("a").terminate(expect_exit=0)


@pytest.mark.parametrize(("words", "says"), [(["add", "x"], "read it"), (["read"], "fell silent")])
def test_client_says_that_nobody_answered(
    process_factory: ProcessFactory, words: list[str], says: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nodes = f"a=127.0.0.1:{listener.getsockname()[1]}"
        client = process_factory([*COMMAND, *words], env={"LOG_NODES": nodes})
        listener.accept()[0].close()
        assert client.wait_exit() == 1
    assert says in client.log
    assert "Traceback" not in client.log


@pytest.mark.parametrize(
    ("change", "words", "names"),
    [
        ({"LOG_NODES": None}, ["read"], "LOG_NODES"),
        ({"LOG_NODES": "a=127.0.0.1:1,a=127.0.0.1:2"}, ["read"], "LOG_NODES"),
        ({"LOG_NODES": "a=127.0.0.1:many"}, ["add", "x"], "LOG_NODES"),
        ({}, ["serve", "d"], "there is no d"),
        ({"LOG_NODES": "a=192.0.2.1:7001"}, ["serve", "a"], "a=192.0.2.1:7001"),
        ({"LOG_FOLDER": None}, ["serve", "a"], "LOG_FOLDER"),
        ({"LOG_FOLDER": "/nowhere"}, ["serve", "a"], "/nowhere"),
        ({"LOG_HEARTBEAT_S": "soon"}, ["serve", "a"], "LOG_HEARTBEAT_S"),
        ({"LOG_HEARTBEAT_S": "0"}, ["serve", "a"], "LOG_HEARTBEAT_S"),
    ],
)
def test_bad_configuration_is_named_and_ends_it(
    process_factory: ProcessFactory, nodes: Nodes, change: dict[str, str | None], words: list[str], names: str
) -> None:
    program = process_factory([*COMMAND, *words], env=nodes.environment | change)
    assert program.wait_exit() == 2
    assert names in program.log
    assert "Traceback" not in program.log
