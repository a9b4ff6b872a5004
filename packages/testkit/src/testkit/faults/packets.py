"""Faults of packets, inside a network namespace: a link in userspace, for kernels without netem and with it.

``python -m testkit.faults.packets --way 10.50.2.0/24=40,5,0.01 --seed 7`` sends what leaves for that network
through a TUN device and on by the interface that it would have taken: 40 ms later, give or take 5, and
without 1 % of it. Several ways are several options. What comes back is left alone, so the delay is that of a
round trip.

Needs ``ip``, /dev/net/tun and the capabilities NET_ADMIN and NET_RAW: give those to a container of its own
that shares the network of the one concerned, which keeps none. Its end undoes everything. IPv4 only.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import random
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from testkit.faults.lanes import DatagramLane
from testkit.faults.vocabulary import Latency, LinkFault, Loss

DEVICE = "testkit0"

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_PACKET_BYTES = 65535
_BURST = 64
"""Packets taken at a time, so that timers have their turn."""

Send = Callable[[bytes, str], None]
"""Takes a packet and the address that it goes to."""


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to packets to a network."""

    network: IPv4Network
    faults: tuple[LinkFault, ...]

    def strike(self, _: int) -> tuple[LinkFault, ...]:
        """All faults strike every packet; what becomes of it is drawn."""
        return self.faults


def parse_way(text: str) -> Way:
    """Read ``NETWORK=DELAY_MS[,JITTER_MS[,LOST_SHARE]]``.

    Raises:
        ValueError: it is something else.
    """
    network, _, numbers = text.partition("=")
    delay_ms, jitter_ms, share = [*map(float, numbers.split(",")), 0.0, 0.0][:3]
    faults = (Latency(delay_ms / 1000, jitter_ms / 1000), Loss(share))
    return Way(IPv4Network(network), faults if share else faults[:1])


class PacketLink:
    """Takes packets from a descriptor, one each time it is read, and sends them on as its ways say."""

    def __init__(self, descriptor: int, ways: Sequence[tuple[Way, Send]], seed: int) -> None:
        self._descriptor = descriptor
        self._lanes = [
            (way.network, DatagramLane(way.strike, random.Random(f"{seed}/{way}")), send)
            for way, send in ways
        ]
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)

    def _read(self) -> None:
        for _ in range(_BURST):
            try:
                packet = os.read(self._descriptor, _PACKET_BYTES)
            except BlockingIOError:
                return
            if packet and packet[0] >> 4 == 4:
                self._relay(packet)

    def _relay(self, packet: bytes) -> None:
        target = IPv4Address(packet[16:20])
        for network, lane, send in self._lanes:
            if target in network:
                planned = lane.push(packet, self._loop.time())
                if planned is not None:
                    self._loop.call_at(planned[0], send, planned[1], str(target))
                return


class Interface(NamedTuple):
    """Where a network is next to us."""

    name: str
    address: str


def interface_to(network: IPv4Network) -> Interface:
    """The interface with an address in a network.

    Raises:
        LookupError: there is none.
    """
    told = _ip("-oneline", "-4", "address", "show", "to", str(network)).split()
    if not told:
        raise LookupError(f"no interface has an address in {network}")
    return Interface(told[1], told[3].partition("/")[0])


def open_device(ways: Sequence[tuple[Way, Interface]]) -> int:
    """Make the TUN device, and lead there what the ways are about; return its descriptor."""
    descriptor = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN_NO_PI))
    _ip("link", "set", DEVICE, "up")
    for way, interface in ways:
        # Halves win over the network itself, whose route stays for what is sent on.
        for half in way.network.subnets():
            _ip("route", "add", str(half), "dev", DEVICE, "src", interface.address)
    return descriptor


def open_sender(interface: Interface) -> Send:
    """Send packets as they are, by an interface."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode())
    raw.setblocking(False)

    def send(packet: bytes, target: str) -> None:
        # A full queue loses packets, as queues of links do; so does a network that is unplugged.
        with suppress(OSError):
            raw.sendto(packet, (target, 0))

    return send


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


async def serve(ways: Sequence[Way], seed: int) -> None:
    """Delay and lose packets until cancelled."""
    placed = [(way, interface_to(way.network)) for way in ways]
    descriptor = open_device(placed)
    link = PacketLink(descriptor, [(way, open_sender(interface)) for way, interface in placed], seed)
    try:
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        link.close()
        os.close(descriptor)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m testkit.faults.packets",
        description="Delay and lose packets that leave for a network.",
    )
    parser.add_argument(
        "--way", action="append", required=True, type=parse_way, metavar="NETWORK=MS[,MS[,SHARE]]"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    asyncio.run(serve(arguments.way, arguments.seed))


if __name__ == "__main__":
    main()
