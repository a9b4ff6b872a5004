"""Data planes to test: one in a thread of this process, and real worker processes.

Both are led as in production: the plane by its loop, the process through its channel, as the control
process does it.
"""

from __future__ import annotations

import os
import queue
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.model import Backend
from edgeproxy.core.wire.frames import (
    FrameReader,
    FromWorker,
    Notice,
    Report,
    SessionRecord,
    Start,
    TableChanged,
    ToWorker,
    Traffic,
    encode,
)
from edgeproxy.worker.kernel_maps import KernelMaps
from edgeproxy.worker.kernel_probe import KernelRefusedError, probe
from edgeproxy.worker.loop import LEVEL_READ, Loop
from edgeproxy.worker.plane import Plane
from edgeproxy.worker.shared_state import SharedState, create_segment
from testkit.wait import wait_until

TIMEOUT_S = 10.0
"""Longest wait of a test for one thing to happen."""

_PAIRS = 256

T = TypeVar("T")
F = TypeVar("F")


def start_frame(
    *,
    worker: int = 0,
    geoip_path: Path | None = None,
    binding_ttl_s: float = 600.0,
    connect_timeout_s: float = 5.0,
    shutdown_timeout_s: float = 30.0,
    access_log_every: int = 1,
    listening: Listening | None = None,
    app_by_server_name: dict[str, str] | None = None,
    proxy_protocol_trusted: tuple[str, ...] = (),
    opening_timeout_s: float = 10.0,
) -> Start:
    return Start(
        worker=worker,
        pop_region="eu",
        region_by_country={"DE": "eu", "FR": "eu", "US": "us"},
        geoip_path=None if geoip_path is None else str(geoip_path),
        binding_ttl_s=binding_ttl_s,
        connect_timeout_s=connect_timeout_s,
        shutdown_timeout_s=shutdown_timeout_s,
        access_log_every=access_log_every,
        listeners=(listening or Listening(),),
        app_by_server_name=app_by_server_name or {},
        proxy_protocol_trusted=proxy_protocol_trusted,
        opening_timeout_s=opening_timeout_s,
    )


def row(
    name: str,
    port: int,
    *,
    host: str = "127.0.0.1",
    country: str = "DE",
    healthy: bool = True,
    hard_limit: int = 0,
    app: str = "web",
) -> Backend:
    return Backend(name, app, "eu", country, host, port, healthy, 1, 1, hard_limit)


def whole_table(*rows: Backend, version: int = 1) -> TableChanged:
    """Rows in slots 0, 1, 2 …"""
    placed = tuple(PlacedBackend(slot, backend) for slot, backend in enumerate(rows))
    return TableChanged(version, whole=True, upserts=placed, removed_slots=())


def bound_listener(host: str = "127.0.0.1", backlog: int = 1024) -> socket.socket:
    """A listening socket on a port of its own; ``::`` also takes IPv4."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, 0))
    sock.listen(backlog)
    sock.settimeout(TIMEOUT_S)
    return sock


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_to_end(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    received = bytearray()
    while data := sock.recv(1 << 16):
        received += data
    return bytes(received)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = sock.recv(size - len(received))
        assert data, f"the stream ended after {len(received)} of {size} bytes"
        received += data
    return bytes(received)


def is_reset(sock: socket.socket) -> bool:
    """Read until the connection ends; tell whether it was reset, not ended in order."""
    try:
        read_to_end(sock)
    except ConnectionResetError:
        return True
    return False


def wait_for_reset(sock: socket.socket) -> None:
    """Wait until ``sock`` hears of a reset, without reading from it."""
    poll = select.poll()
    poll.register(sock, 0)
    events = poll.poll(TIMEOUT_S * 1000)
    assert events, "no reset"
    assert events[0][1] & select.POLLERR, events


@contextmanager
def in_background(work: Callable[[], object]) -> Iterator[None]:
    """Run ``work`` in a thread while the block runs; wait for it at the end, and raise what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


@cache
def kernel_refusal() -> str:
    """Why this kernel relays nothing for this process; empty if it does."""
    try:
        with closing(KernelMaps(pairs=1)) as maps:
            probe(maps)
    except (OSError, KernelRefusedError) as error:
        return str(error)
    return ""


def need_kernel_relay() -> None:
    """Skip the test where there is no relaying in the kernel."""
    if why := kernel_refusal():
        pytest.skip(f"the kernel relays no connections here: {why}")


class Backends:
    """A listening backend whose connections the test serves by hand."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.listener = bound_listener(host)
        self.port = port_of(self.listener)

    def accept(self) -> socket.socket:
        """The next connection that reaches it."""
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(TIMEOUT_S)
        return sock

    def close(self) -> None:
        self.listener.close()


class Countries:
    """A country look-up with a few answers; everybody else is unknown."""

    def __init__(self, **by_address: str) -> None:
        self.by_address = by_address
        self.asked: list[str] = []

    def country(self, address: str) -> str:
        self.asked.append(address)
        return self.by_address.get(address, "")


class ThreadedPlane:
    """A data plane whose loop runs in a thread. Its clients are in Germany unless ``countries`` differ."""

    def __init__(
        self,
        *rows: Backend,
        settings: Start | None = None,
        countries: Countries | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.countries = countries or Countries(**{"127.0.0.1": "DE"})
        self._segment_fd = create_segment(workers=1, affinity_capacity=64, clients_capacity=64)
        self.state = SharedState(self._segment_fd, worker=0)
        self.reports_wanted = 0
        self.notices: list[Notice] = []
        self.loop = Loop(self._contain)
        settings = settings or start_frame()
        self._maps = KernelMaps(_PAIRS) if settings.promote_after_turns else None
        self.plane = Plane(
            self.loop,
            settings,
            self.countries,
            self.state,
            notify=self.notices.append,
            report_soon=self._want_report,
            maps=self._maps,
        )
        self.plane.change_table(whole_table(*rows))
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._woken, self._waker = socket.socketpair()
        self.loop.register(self._woken, self, LEVEL_READ)
        self.listener = bound_listener(host)
        self.address = self.listener.getsockname()[:2]
        self.plane.listen([self.listener])
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.loop.run()
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def _contain(self, culprit: object, error: Exception) -> None:
        self.plane.contain(culprit, error)

    def _want_report(self) -> None:
        self.reports_wanted += 1

    def ready(self, events: int) -> None:
        """A call waits (:class:`~edgeproxy.worker.loop.Handler`)."""
        self._woken.recv(1)
        self._calls.get()()

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread of the loop and return what it returns."""
        answers: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._calls.put(lambda: answers.put(work()))
        self._waker.send(b"!")
        return answers.get(timeout=TIMEOUT_S)

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """A client."""
        return connected(self.address, receive_bytes=receive_bytes)

    def sessions(self, count: int) -> list[SessionRecord]:
        """The records of the next ``count`` ended sessions."""
        return list(self.report(count).sessions)

    def report(self, ended: int) -> Report:
        """Everything counted up to the end of so many sessions."""
        ledger = self.plane.ledger
        wait_until(
            lambda: self.call(lambda: sum(ledger._closes.values())) >= ended, reason=f"{ended} ended sessions"
        )
        return self.call(ledger.report)

    def wait_for_loop_end(self) -> None:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def _end(self) -> None:
        self.plane.drain(self.loop.stop)
        self.plane.reset_all()

    def close(self) -> None:
        """End everything; raise what ended the loop before, and check that no place is left behind."""
        if self._thread.is_alive():
            self.call(self._end)
            self.wait_for_loop_end()
        for sock in (self._woken, self._waker, self.listener):
            sock.close()
        leases = [self.state.connections(slot) for slot in range(16)]
        os.close(self._segment_fd)
        self.loop._epoll.close()
        if self._maps is not None:
            self._maps.close()
        if self.error is not None:
            raise self.error
        assert leases == [0] * 16


def connected(
    address: tuple[str, int], source: str | None = None, receive_bytes: int | None = None
) -> socket.socket:
    """A client of the proxy at ``address``, with a receive buffer of ``receive_bytes``.

    A reset that comes as quickly as the connection is left for the first read to find.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_bytes is not None:
        # Not later: a sender that has seen a larger window waits for half of that one to open, which it
        # never will, and goes on by the persist timer, with 32 KiB in 200 ms.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    if source is not None:
        sock.bind((source, 0))
    sock.setblocking(False)
    sock.connect_ex(address)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    assert poll.poll(TIMEOUT_S * 1000), f"{address} does not answer"
    sock.settimeout(TIMEOUT_S)
    return sock


def is_turned_away(address: tuple[str, int], source: str | None = None) -> bool:
    """Connect; tell whether that was answered with a reset."""
    with connected(address, source) as client:
        return is_reset(client)


class RealWorker:
    """A worker process, and the control process's end of its channel."""

    def __init__(self, *, listener: socket.socket, segment_fd: int, descriptors: int | None = None) -> None:
        self.listener = listener
        self.address = listener.getsockname()[:2]
        self.state = SharedState(segment_fd)
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(TIMEOUT_S)
        fds = [theirs.fileno(), segment_fd, listener.fileno()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgeproxy.worker", *map(str, fds)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        if descriptors is not None:
            resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))
        self._reader: FrameReader[FromWorker] = FrameReader(FromWorker)
        self.frames: list[FromWorker] = []
        """Everything it said and nobody has taken yet."""
        self.stderr = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, *frames: ToWorker) -> None:
        self._channel.sendall(b"".join(map(encode, frames)))

    def send_bytes(self, data: bytes) -> None:
        self._channel.sendall(data)

    def take(self, kind: type[F], matches: Callable[[F], bool] = lambda _: True) -> F:
        """Wait for a frame of this kind; frames before it stay to be taken."""
        while True:
            for at, frame in enumerate(self.frames):
                if isinstance(frame, kind) and matches(frame):
                    del self.frames[at]
                    return frame
            self.frames += self._receive()

    def _receive(self) -> Sequence[FromWorker]:
        data = self._channel.recv(1 << 18)
        assert data, f"the worker closed its channel; it said {self.frames}"
        return list(self._reader.feed(data))

    def reports(self, ended: int) -> list[Report]:
        """Reports up to the end of so many sessions."""
        reports: list[Report] = []
        while sum(sum(report.closes.values()) for report in reports) < ended:
            reports.append(self.take(Report))
        return reports

    def lose_control(self) -> None:
        """Close the channel, as the death of the control process does."""
        self._channel.close()

    def descriptors(self) -> set[int]:
        """Numbers of its open descriptors."""
        return {int(entry.name) for entry in Path(f"/proc/{self.pid}/fd").iterdir()}

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def cpu_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_exit(self) -> int:
        """Wait for its end; return the exit code."""
        _, stderr = self.process.communicate(timeout=TIMEOUT_S)
        self.stderr = stderr.decode()
        return self.process.returncode

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Let it drain, which saves what was measured; kill it if it does not."""
        self._channel.close()
        self.terminate()
        try:
            self.process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise


def totals(reports: Sequence[Report]) -> Traffic:
    """All traffic of ``reports`` added up, for clients of one country and one backend."""
    rows = [traffic for report in reports for traffic in report.traffic]
    assert len({(traffic.country, traffic.backend) for traffic in rows}) == 1
    return Traffic(
        rows[0].country,
        rows[0].backend,
        opened=sum(traffic.opened for traffic in rows),
        closed=sum(traffic.closed for traffic in rows),
        score_sum=sum(traffic.score_sum for traffic in rows),
        bytes_received=sum(traffic.bytes_received for traffic in rows),
        bytes_sent=sum(traffic.bytes_sent for traffic in rows),
    )
