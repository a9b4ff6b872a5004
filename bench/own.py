"""Rows that have no peer: what only this proxy does, or promises in seconds."""

from __future__ import annotations

import gc
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Final

from bench import wrk
from bench.loads import Effort
from bench.peers import EDGEPROXY, ROWS, Stage, Target
from bench.samples import Sample
from edgeproxy.core.dataplane.selection import ANY_APP, Selection
from edgeproxy.core.model import Backend
from testkit.ports import reserved_port
from testkit.wait import wait_until

CHOOSING_AMONG: Final = (10, 1_000, 10_000)
_COUNTRIES: Final = ("DE", "FR", "US", "BR", "JP", "")
_REGIONS: Final = ("eu", "eu", "us", "sa", "ap", "")
_OPEN_CONNECTIONS: Final = 500
_CHANGED_ROWS: Final = 10_000
_CHANGE_INTERVAL_S: Final = 1.0


def choosing(effort: Effort) -> Sample:
    """µs to choose a backend and count its connection up and, later, one down; the slowest of three pools.

    So many connections are always open that loads differ and change with every choice. The best of the turns
    that fit is taken, in processor time: others' use of the core only ever adds.
    """
    taken = {f"{size} backends": 1e6 * _choose_among(size, effort.seconds / 3) for size in CHOOSING_AMONG}
    return Sample(max(taken.values()), details=taken)


def _choose_among(size: int, seconds: float) -> float:
    selection = Selection("eu")
    for slot in range(size):
        place = slot % len(_COUNTRIES)
        selection.put(
            slot,
            Backend(f"b{slot}", "app", _REGIONS[place], _COUNTRIES[place], "127.0.0.1", 1, True, 1, 100, 0),
            0,
        )
    draws = Random(size)
    clients = [(place := draws.randrange(len(_COUNTRIES)), draws.random()) for _ in range(512)]
    counts = [0] * size
    opened: list[int] = []
    turn_s: list[float] = []
    gc.disable()  # as in a worker
    try:
        ends_s = time.perf_counter() + seconds
        while time.perf_counter() < ends_s or len(turn_s) < 2:
            began_s = time.thread_time()
            for place, draw in clients:
                chosen = selection.choose(ANY_APP, _COUNTRIES[place], _REGIONS[place], draw)
                assert chosen is not None
                slot = chosen.slot
                counts[slot] += 1
                selection.set_connections(slot, counts[slot])
                opened.append(slot)
                if len(opened) > _OPEN_CONNECTIONS:
                    slot = opened[len(opened) - _OPEN_CONNECTIONS]
                    opened[len(opened) - _OPEN_CONNECTIONS] = opened[-1]
                    opened.pop()
                    counts[slot] -= 1
                    selection.set_connections(slot, counts[slot])
            turn_s.append((time.thread_time() - began_s) / len(clients))
    finally:
        gc.enable()
    return min(turn_s[1:])


def start(stage: Stage) -> Sample:
    """Seconds from the start of ``edgeproxy run`` to the first byte that a client gets through it."""
    with reserved_port() as port:
        environment = stage.environment(
            stage.database(ROWS, stage.origin.port), settings={"listen_addr": f"127.0.0.1:{port}"}
        )
        began_s = time.perf_counter()
        process = stage.spawn([EDGEPROXY, "run"], environment, "edgeproxy")

        def is_served() -> bool:
            with socket.create_connection(("127.0.0.1", port), 30) as sock:
                sock.sendall(b"GET /s HTTP/1.0\r\n\r\n")
                return sock.recv(64).startswith(b"HTTP/")

        wait_until(
            is_served,
            reason="the first client to be served",
            timeout_s=60,
            interval_s=0.002,
            swallow=(OSError,),
        )
        taken_s = time.perf_counter() - began_s
        process.stop(timeout_s=60)
    return Sample(taken_s)


def changes(target: Target, database: Path, effort: Effort) -> Sample:
    """p99 of running traffic while 10,000 rows change each second, as a multiple of its usual p99."""

    def load() -> wrk.Load:
        return wrk.run(target.url("s"), threads=2, connections=64, seconds=effort.seconds)

    usual = load()
    transactions, changing = while_running(lambda: change_rows(database, effort.seconds), load)
    details = {
        "usual_p99_us": usual.p99_s * 1e6,
        "changing_p99_us": changing.p99_s * 1e6,
        "transactions": float(transactions),
    }
    return Sample(changing.p99_s / usual.p99_s, details=details, errors=usual.errors + changing.errors)


def change_rows(database: Path, seconds: float) -> int:
    """Change every row once a second, for so long; return how often that was."""
    ends_s, transactions = time.monotonic() + seconds, 0
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        while (began_s := time.monotonic()) < ends_s:
            with connection:
                connection.execute("UPDATE backends SET weight = 1 + weight % 3")
            transactions += 1
            time.sleep(max(0.0, min(began_s + _CHANGE_INTERVAL_S, ends_s) - time.monotonic()))
    return transactions


def while_running(beside: Callable[[], int], work: Callable[[], wrk.Load]) -> tuple[int, wrk.Load]:
    """Do ``work`` with ``beside`` in a thread of its own; return what both gave."""
    gave: list[int] = []
    thread = threading.Thread(target=lambda: gave.append(beside()))
    thread.start()
    done = work()
    thread.join()
    if not gave:
        raise wrk.WrkError("what should have run beside the load failed")
    return gave[0], done
