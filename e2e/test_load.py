"""What the proxy must carry, in a small version; ``./dev e2e e2e/test_load.py --full -n0 -s`` runs all of it.

The full version prints what it measured. Coverage is off in the processes either way.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from e2e.processes import LocalPop, LocalProxy
from e2e.world import address_in
from testkit.wait import wait_until

pytestmark = [
    pytest.mark.usefixtures("unmeasured"),
    pytest.mark.timeout(900),
    pytest.mark.blank(containers="measures the machine at hand, which hosts would only share"),
]
_NEEDS_WRK = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk"
)

_SMALL_S = 2
_MIB = 1 << 20


# ---- requests ------------------------------------------------------------------------------------


def _wrk(proxy: LocalProxy, duration_s: int, *options: str) -> int:
    """Load the proxy for so long; return the number of requests, all of which were answered in order."""
    said = subprocess.run(
        ["wrk", "-t2", "-c64", f"-d{duration_s}s", *options, f"http://{proxy.host}:{proxy.port}/api/latency"],
        capture_output=True,
        text=True,
        timeout=duration_s + 30,
        check=True,
    ).stdout
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    requests = re.search(r"(\d+) requests in", said)
    assert requests is not None, said
    return int(requests[1])


def _cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _assert_all_worked(proxy: LocalProxy, before: dict[int, float]) -> None:
    """All workers that there were have had a part of the work, none less than a quarter of its share."""
    used = {pid: _cpu_s(pid) - cpu_s for pid, cpu_s in before.items()}
    fair_share = sum(used.values()) / len(used)
    assert min(used.values()) > fair_share / 4, used
    assert proxy.events("a worker died, starting another") == []


@pytest.fixture
def proxy(local_pop: LocalPop) -> LocalProxy:
    """Return a proxy with two workers and two mock backends."""
    local_pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "FR"})
    local_pop.configure(workers="2")
    return local_pop.start_proxy()


@_NEEDS_WRK
def test_no_request_on_open_connections_fails(proxy: LocalProxy, full: bool) -> None:
    before = {pid: _cpu_s(pid) for pid in proxy.workers}
    wanted, duration_s = (200_000, 20) if full else (500, _SMALL_S)
    requests, began_s = 0, time.monotonic()
    while requests < wanted:
        requests += _wrk(proxy, duration_s)
    print(f"{requests:,} requests in {time.monotonic() - began_s:.0f} s, none failed")
    _assert_all_worked(proxy, before)


@_NEEDS_WRK
def test_no_request_on_a_connection_of_its_own_fails(proxy: LocalProxy, full: bool) -> None:
    before = {pid: _cpu_s(pid) for pid in proxy.workers}
    duration_s = 30 if full else _SMALL_S
    requests = _wrk(proxy, duration_s, "-H", "Connection: close")
    assert requests > 100
    print(f"{requests:,} connections in {duration_s} s, none failed")
    _assert_all_worked(proxy, before)


# ---- bulk ----------------------------------------------------------------------------------------


def _send(listener: socket.socket, size_bytes: int) -> str:
    """Serve one connection that many random bytes, as fast as they are taken; return their checksum."""
    block, checksum = Random(size_bytes).randbytes(_MIB), hashlib.sha256()
    sock, _ = listener.accept()
    with sock:
        for number in range(size_bytes // _MIB):
            # No two alike, so that one lost, doubled or out of order changes the checksum.
            numbered = number.to_bytes(8, "big") + block[8:]
            checksum.update(numbered)
            sock.sendall(numbered)
    return checksum.hexdigest()


def _receive_slowly(sock: socket.socket, rate_bytes_per_s: float) -> tuple[str, int]:
    """Take what comes at that rate; return its checksum and its size in bytes."""
    checksum, size_bytes, began_s = hashlib.sha256(), 0, time.monotonic()
    while data := sock.recv(64 << 10):
        checksum.update(data)
        size_bytes += len(data)
        ahead_s = size_bytes / rate_bytes_per_s - (time.monotonic() - began_s)
        if ahead_s > 0:
            time.sleep(ahead_s)
    return checksum.hexdigest(), size_bytes


def _pss_mib(pid: int) -> float:
    """Memory of a process, what it shares with others counted in proportion."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    pss = re.search(r"^Pss: +(\d+) kB$", rollup, re.MULTILINE)
    assert pss is not None
    return int(pss[1]) / 1024


@pytest.mark.feature("relay.copy", "relay.splice")
def test_a_slow_reader_gets_every_byte_and_costs_no_memory(local_pop: LocalPop, full: bool) -> None:
    size_bytes = 1024 * _MIB if full else 96 * _MIB
    rate_bytes_per_s = 64 * _MIB
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(2) as pool:
        local_pop.add_address("bulk", "eu", "DE", *listener.getsockname())
        local_pop.configure(workers="2")
        proxy = local_pop.start_proxy()
        address = (proxy.host, proxy.port)
        with closing(socket.create_connection(address, source_address=(address_in("DE", 1), 0))) as sock:
            sent = pool.submit(_send, listener, size_bytes)
            received = pool.submit(_receive_slowly, sock, rate_bytes_per_s)
            peak_mib = _highest_pss_mib(proxy, received)
            checksum, received_bytes = received.result()
    assert received_bytes == size_bytes
    assert checksum == sent.result()
    assert peak_mib < 150
    print(
        f"{size_bytes // _MIB} MiB arrived whole; control process and workers held {peak_mib:.0f} MiB (PSS)"
    )


def _highest_pss_mib(proxy: LocalProxy, until: Future[tuple[str, int]]) -> float:
    """What control process and workers take together at most until then."""
    highest_mib = 0.0

    def look() -> bool:
        nonlocal highest_mib
        highest_mib = max(highest_mib, sum(_pss_mib(pid) for pid in proxy.process.group()))
        return until.done()

    wait_until(look, reason="everything to arrive", timeout_s=600, interval_s=0.2)
    return highest_mib
