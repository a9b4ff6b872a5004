"""The rows of the report: what is asked of a target, and what counts.

Every row measures one target at a time. Whoever compares targets calls them in turn (:mod:`bench.rounds`).
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from bench import wrk
from bench.machine import busy_s, cpu_s, pss_bytes, raise_descriptor_limit
from bench.peers import Missing, Target
from bench.samples import Sample

MACHINE_CPU: Final = "machine_cpu_s_per_1e5"
"""What the whole machine took for 100,000 requests: the kernel's work for a connection is in no process."""

_GIB: Final = 1 << 30
_S_TIME_PROCESSES: Final = 8
_IDLE_CLIENTS_PER_ADDRESS: Final = 100


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is spent on one sample."""

    seconds: float
    idle_connections: int = 5000


@dataclass(frozen=True, slots=True)
class Row:
    """One load that all targets are put under."""

    name: str
    what: str
    unit: str
    measure: Callable[[Target, Effort], Sample]
    note: str = ""
    is_fresh: bool = False
    """Needs processes that have served nobody yet."""
    is_added: bool = False
    """What counts is how much more it is than without a proxy."""
    in_kernel: bool = False
    """Our proxy has the kernel relay."""


def keep_alive(target: Target, effort: Effort) -> Sample:
    """Requests/s on 64 connections."""
    return _requests(target, target.url("s"), effort.seconds, threads=2, connections=64)


def one_connection(target: Target, effort: Effort) -> Sample:
    """Median time of a request, in µs, on a single connection."""
    load, cpu, machine = _wrk(target, target.url("s"), effort.seconds, threads=1, connections=1)
    details = {"p99_us": load.p99_s * 1e6, "requests_per_s": load.requests_per_s}
    details[MACHINE_CPU] = machine / max(load.requests, 1) * 1e5
    return Sample(load.p50_s * 1e6, cpu / max(load.requests, 1) * 1e5, details, load.errors)


def new_connections(target: Target, effort: Effort) -> Sample:
    """Requests/s when each has a connection of its own."""
    return _requests(
        target, target.url("s"), effort.seconds, threads=2, connections=64, headers=("Connection: close",)
    )


def bulk(target: Target, effort: Effort) -> Sample:
    """GiB/s in objects of 64 MiB, four at a time."""
    return _bulk(target, target.url("64m"), effort.seconds)


def tls_keep_alive(target: Target, effort: Effort) -> Sample:
    """Requests/s on 64 connections with TLS."""
    return _requests(target, target.url("s", tls=True), effort.seconds, threads=2, connections=64)


def tls_bulk(target: Target, effort: Effort) -> Sample:
    """GiB/s of 64 MiB objects with TLS, four at a time."""
    return _bulk(target, target.url("64m", tls=True), effort.seconds)


def tls_handshakes(target: Target, effort: Effort) -> Sample:
    """New TLS connections/s, each with a full handshake and one request.

    wrk offers the session of its last connection again, which would measure resumption. ``openssl s_time
    -new`` makes a session anew for every connection and never offers one; what it resumes nevertheless it
    would print as ``r``, and that is checked.
    """
    program = shutil.which("openssl")
    if program is None:
        raise Missing("openssl is not installed: apt-get install openssl")
    argv = [program, "s_time", "-new", "-connect", f"127.0.0.1:{target.tls_port}", "-www", "/s"]
    argv += ["-time", str(max(1, round(effort.seconds)))]
    before_s = cpu_s(target.pids)
    clients = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(_S_TIME_PROCESSES)
    ]
    said = [client.communicate(timeout=effort.seconds + 60)[0] for client in clients]
    used_s = cpu_s(target.pids) - before_s
    rates = [handshakes(each) for each in said]
    connections = sum(count for count, _ in rates)
    if not connections:
        raise wrk.WrkError(f"no handshake with {target.name}: {said[0]}")
    return Sample(sum(count / taken_s for count, taken_s in rates), used_s / connections * 1e5)


def handshakes(said: str) -> tuple[int, float]:
    """How many connections ``openssl s_time`` made, and in how many seconds.

    Raises:
        WrkError: some were resumed, or this is something else.
    """
    found = re.search(r"^(\d+) connections in (\d+) real seconds", said, re.MULTILINE)
    if found is None:
        raise wrk.WrkError(f"openssl s_time measured nothing: {said}")
    marks = next(
        (line for line in said.splitlines() if re.match(r"[*rt]+\d* connections in|[*rt]+$", line)), ""
    )
    if "r" in marks.partition(" ")[0]:
        raise wrk.WrkError("openssl s_time resumed sessions")
    return int(found[1]), max(1, int(found[2]))


def idle_memory(target: Target, effort: Effort) -> Sample:
    """KiB by which the memory of a target's processes grows with each idle connection.

    Each connection carries one request, so that it is known to stand from end to end; clients have several
    addresses, as there are several of a real crowd.
    """
    raise_descriptor_limit()
    before_bytes = pss_bytes(target.pids)
    with ExitStack() as opened:
        for number in range(effort.idle_connections):
            high, low = divmod(number // _IDLE_CLIENTS_PER_ADDRESS, 250)
            address = f"127.0.{1 + high}.{1 + low}"
            sock = opened.enter_context(
                socket.create_connection(("127.0.0.1", target.port), 30, source_address=(address, 0))
            )
            sock.sendall(b"GET /s HTTP/1.1\r\nHost: bench\r\n\r\n")
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                raise wrk.WrkError(f"{target.name} did not answer the {number}th connection")
        growth_bytes = pss_bytes(target.pids) - before_bytes
    return Sample(growth_bytes / effort.idle_connections / 1024)


WRK_ROWS: Final = (
    Row("k64", "keep-alive, 64 connections", "requests/s", keep_alive),
    Row(
        "c1",
        "added median latency, one connection",
        "µs",
        one_connection,
        "the ratio is of what each adds to direct",
        is_added=True,
    ),
    Row(
        "kernel-c1",
        "the same, relayed by the kernel",
        "µs",
        one_connection,
        "the ratio is of what each adds to direct",
        is_added=True,
        in_kernel=True,
    ),
    Row(
        "kernel-k64",
        "keep-alive, 64 connections, relayed by the kernel",
        "requests/s",
        keep_alive,
        in_kernel=True,
    ),
    Row(
        "conn",
        "new connections",
        "connections/s",
        new_connections,
        "all from one address, whose country a worker looks up once",
    ),
    Row("bulk", "bulk, 64 MiB objects", "GiB/s", bulk, "CPU per 100 GiB"),
    Row("tls-k64", "TLS keep-alive, 64 connections", "requests/s", tls_keep_alive),
    Row("tls-bulk", "TLS bulk, 64 MiB objects", "GiB/s", tls_bulk, "CPU per 100 GiB"),
)
HANDSHAKES: Final = Row(
    "tls-conn",
    "TLS handshakes",
    "connections/s",
    tls_handshakes,
    f"{_S_TIME_PROCESSES} times openssl s_time -new, which never offers a session: none is resumed",
)
IDLE: Final = Row("idle", "memory per idle connection", "KiB", idle_memory, "growth of PSS", is_fresh=True)


def quiet(seconds: float = 0.25) -> None:
    """A moment for what the last load left behind to come to its end."""
    time.sleep(seconds)


def _requests(
    target: Target, url: str, seconds: float, *, threads: int, connections: int, headers: tuple[str, ...] = ()
) -> Sample:
    load, cpu, machine = _wrk(target, url, seconds, threads=threads, connections=connections, headers=headers)
    details = {"p50_us": load.p50_s * 1e6, "p99_us": load.p99_s * 1e6}
    details[MACHINE_CPU] = machine / max(load.requests, 1) * 1e5
    return Sample(load.requests_per_s, cpu / max(load.requests, 1) * 1e5, details, load.errors)


def _bulk(target: Target, url: str, seconds: float) -> Sample:
    load, cpu, _ = _wrk(target, url, seconds, threads=2, connections=4)
    gib = load.received_bytes / _GIB
    return Sample(gib / load.seconds, cpu / gib * 100, errors=load.errors)


def _wrk(
    target: Target, url: str, seconds: float, *, threads: int, connections: int, headers: tuple[str, ...] = ()
) -> tuple[wrk.Load, float, float]:
    """The load, and the processor time that the target took for it, and the whole machine."""
    machine_before_s, before_s = busy_s(), cpu_s(target.pids)
    load = wrk.run(url, threads=threads, connections=connections, seconds=seconds, headers=headers)
    return load, cpu_s(target.pids) - before_s, busy_s() - machine_before_s
