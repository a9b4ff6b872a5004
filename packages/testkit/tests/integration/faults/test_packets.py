"""Packets through a link in userspace; the device is a socket here. Hosts have a real one."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest

from testkit.faults import packets
from testkit.faults.packets import Interface, PacketLink, interface_to, open_device, open_sender, parse_way
from testkit.faults.vocabulary import Latency, Loss
from testkit.virtual_time import virtual_time


def packet(target: str, payload: bytes = b"") -> bytes:
    return b"\x45" + bytes(15) + socket.inet_aton(target) + payload


@pytest.fixture
def device() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end and the link's."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, its:
        its.setblocking(False)
        yield ours, its


def test_ways_are_read() -> None:
    far = parse_way("10.50.2.0/24=40,5,0.01")
    assert far.network == IPv4Network("10.50.2.0/24")
    assert far.faults == (Latency(0.04, 0.005), Loss(0.01))
    assert parse_way("10.50.2.0/24=40").faults == (Latency(0.04),)
    for wrong in ("10.50.2.0/24", "10.50.2.0/24=a", "far=40"):
        with pytest.raises(ValueError, match=r"."):
            parse_way(wrong)


def test_packets_take_their_way_in_its_time(device: tuple[socket.socket, socket.socket]) -> None:
    ours, its = device

    @virtual_time
    async def story() -> None:
        loop = asyncio.get_running_loop()
        sent: list[tuple[float, str]] = []
        ways = [
            (parse_way(text), lambda _, target: sent.append((round(loop.time(), 3), target)))
            for text in ("10.50.2.0/24=40", "10.50.4.0/24=80", "10.50.1.0/24=1,0,1")
        ]
        link = PacketLink(its.fileno(), ways, seed=1)
        for target in ("10.50.4.9", "10.50.2.9", "10.50.1.9", "192.0.2.1"):
            ours.send(packet(target))
        ours.send(b"\x60 of another version")
        await asyncio.sleep(1)
        assert sent == [(0.04, "10.50.2.9"), (0.08, "10.50.4.9")]
        link.close()
        ours.send(packet("10.50.2.9"))
        await asyncio.sleep(1)
        assert len(sent) == 2

    story()


def test_the_interface_to_a_network_is_the_one_with_an_address_in_it() -> None:
    assert interface_to(IPv4Network("127.0.0.0/8")) == Interface("lo", "127.0.0.1")
    with pytest.raises(LookupError, match=r"203\.0\.113\.0/24"):
        interface_to(IPv4Network("203.0.113.0/24"))


def test_both_halves_of_a_network_lead_to_the_device(
    monkeypatch: pytest.MonkeyPatch, device: tuple[socket.socket, socket.socket]
) -> None:
    commands: list[str] = []
    requests: list[bytes] = []
    _, its = device
    monkeypatch.setattr(packets, "_ip", lambda *words: commands.append(" ".join(words)))
    monkeypatch.setattr("testkit.faults.packets.os.open", lambda *_: os.dup(its.fileno()))
    monkeypatch.setattr("testkit.faults.packets.fcntl.ioctl", lambda *told: requests.append(told[-1]))
    os.close(open_device([(parse_way("10.50.2.0/24=40"), Interface("eth1", "10.50.2.12"))]))
    assert commands == [
        "link set testkit0 up",
        "route add 10.50.2.0/25 dev testkit0 src 10.50.2.12",
        "route add 10.50.2.128/25 dev testkit0 src 10.50.2.12",
    ]
    name, flags = struct.unpack("16sH22x", requests[0])
    assert (name.rstrip(b"\0"), flags) == (b"testkit0", 0x1001)


def test_what_is_sent_is_the_packet_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeSocket] = []

    class FakeSocket:
        def __init__(self, *kind: int) -> None:
            self.kind = kind
            self.sent: list[tuple[bytes, tuple[str, int]]] = []
            self.options: list[tuple[object, ...]] = []
            made.append(self)

        def setsockopt(self, *option: object) -> None:
            self.options.append(option)

        def setblocking(self, is_blocking: bool) -> None:
            assert not is_blocking

        def sendto(self, data: bytes, address: tuple[str, int]) -> None:
            self.sent.append((data, address))
            raise BlockingIOError

    monkeypatch.setattr("testkit.faults.packets.socket.socket", FakeSocket)
    open_sender(Interface("eth1", "10.50.2.12"))(b"packet", "10.50.2.9")
    (sock,) = made
    assert sock.kind == (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    assert sock.options == [(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth1")]
    assert sock.sent == [(b"packet", ("10.50.2.9", 0))]


def test_the_program_says_when_it_is_ready_and_undoes_all_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: tuple[socket.socket, socket.socket],
) -> None:
    _, its = device
    descriptor = os.dup(its.fileno())
    monkeypatch.setattr(packets, "interface_to", lambda _: Interface("lo", "127.0.0.1"))
    monkeypatch.setattr(packets, "open_device", lambda _: descriptor)
    monkeypatch.setattr(packets, "open_sender", lambda _: lambda *_: None)

    class Waiting(asyncio.Event):
        async def wait(self) -> bool:  # type: ignore[override]
            raise asyncio.CancelledError

    monkeypatch.setattr("testkit.faults.packets.asyncio.Event", Waiting)
    with pytest.raises(asyncio.CancelledError):
        packets.main(["--way", "10.50.2.0/24=40", "--seed", "3"])
    assert capsys.readouterr().out == "ready\n"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_without_a_way_it_ends() -> None:
    with pytest.raises(SystemExit):
        packets.main([])
