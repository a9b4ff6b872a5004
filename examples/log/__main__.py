"""``python -m examples.log serve NAME``, ``add TEXT``, ``read``.

Configured by the environment: LOG_NODES, as ``a=127.0.0.1:7001,b=127.0.0.1:7002,c=127.0.0.1:7003``;
LOG_FOLDER, where a node keeps what it must not forget; LOG_HEARTBEAT_S, half a second by default.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from random import SystemRandom

from examples.log.network import Address, answer, ask, ask_leader
from examples.log.node import HEARTBEAT_S, LogNode
from examples.log.stored import StoredDisk
from examples.log.wire import Answer, Done, Propose, Read, Request

CLIENT_TIMEOUT_S = 30.0


class ConfigurationError(Exception):
    """Something is missing, or cannot be so."""


class NoAnswerError(Exception):
    """Nobody leads, or whoever did fell silent."""


async def serve(name: str, nodes: Mapping[str, Address], disk: StoredDisk, heartbeat_s: float) -> None:
    """Be one of the nodes until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: it cannot listen where the others look for it.
    """

    # Whatever a node says, and by asking, too, it must know when it begins anew.
    async def call(peer: str, request: Request) -> Answer:
        disk.save()
        return await ask(nodes[peer], request)

    async def handle(request: Request) -> Answer:
        said = await node.handle(request)
        disk.save()
        return said

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, handle)

    peers = [peer for peer in nodes if peer != name]
    node = LogNode(name, peers, call, disk, SystemRandom(), heartbeat_s=heartbeat_s)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    host, port = nodes[name]
    try:
        server = await asyncio.start_server(connected, host, port)
    except OSError as error:
        raise ConfigurationError(f"LOG_NODES: {name}={host}:{port}: {error}") from error
    async with server:
        running = asyncio.create_task(node.run())
        stopping = asyncio.create_task(stop.wait())
        print(f"{name} listening on {host}:{port}", flush=True)
        await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        stopping.cancel()
    await asyncio.gather(running, return_exceptions=True)
    if not running.cancelled():
        running.result()


async def add(nodes: Mapping[str, Address], text: str) -> None:
    """Have a line agreed on.

    Raises:
        NoAnswerError: nobody said that it is; it may be all the same.
    """
    if not isinstance(await _ask_leader(nodes, Propose(text.encode())), Done):
        raise NoAnswerError("nobody knows whether it is in the log: read it")


async def read(nodes: Mapping[str, Address]) -> list[str]:
    """All lines that are agreed on.

    Raises:
        NoAnswerError: nobody can say.
    """
    said = await _ask_leader(nodes, Read())
    if not isinstance(said, Done):
        raise NoAnswerError("whoever leads fell silent")
    return [payload.decode() for payload in said.entries]


async def _ask_leader(nodes: Mapping[str, Address], request: Request) -> Answer:
    try:
        async with asyncio.timeout(CLIENT_TIMEOUT_S):
            return await ask_leader(nodes, request)
    except TimeoutError as error:
        raise NoAnswerError("nobody leads") from error


def nodes_of(environment: Mapping[str, str]) -> dict[str, Address]:
    """Names and addresses.

    Raises:
        ConfigurationError: they are missing, or make no sense.
    """
    nodes: dict[str, Address] = {}
    for entry in environment.get("LOG_NODES", "").split(","):
        name, _, address = entry.strip().partition("=")
        host, _, port = address.rpartition(":")
        if not name or not host or not port.isdecimal() or name in nodes:
            raise ConfigurationError(f"LOG_NODES: NAME=HOST:PORT,… is wanted, not {entry!r}")
        nodes[name] = host, int(port)
    return nodes


def heartbeat_of(environment: Mapping[str, str]) -> float:
    """In seconds.

    Raises:
        ConfigurationError: it is no time that can pass.
    """
    text = environment.get("LOG_HEARTBEAT_S", str(HEARTBEAT_S))
    try:
        heartbeat_s = float(text)
    except ValueError:
        heartbeat_s = 0.0
    if not 0.01 <= heartbeat_s <= 60:
        raise ConfigurationError(f"LOG_HEARTBEAT_S: 0.01 to 60 is wanted, not {text!r}")
    return heartbeat_s


def _be_a_node(name: str, nodes: Mapping[str, Address], environment: Mapping[str, str]) -> None:
    if name not in nodes:
        raise ConfigurationError(f"LOG_NODES: there is no {name}")
    if "LOG_FOLDER" not in environment:
        raise ConfigurationError("LOG_FOLDER is not set")
    file = Path(environment["LOG_FOLDER"]) / f"{name}.db"
    try:
        disk = StoredDisk(file)
    except sqlite3.Error as error:
        raise ConfigurationError(f"LOG_FOLDER: {file}: {error}") from error
    try:
        asyncio.run(serve(name, nodes, disk, heartbeat_of(environment)))
    finally:
        disk.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.log")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="be one of the nodes").add_argument("name")
    commands.add_parser("add", help="add a line").add_argument("text")
    commands.add_parser("read", help="print all lines")
    arguments = parser.parse_args()
    try:
        nodes = nodes_of(os.environ)
        match arguments.command:
            case "serve":
                _be_a_node(arguments.name, nodes, os.environ)
            case "add":
                asyncio.run(add(nodes, arguments.text))
            case _:
                for line in asyncio.run(read(nodes)):
                    print(line)
    except ConfigurationError as error:
        print(f"log: {error}", file=sys.stderr)
        return 2
    except NoAnswerError as error:
        print(f"log: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
