"""``kill -9`` of a worker costs the connections that it carried, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import pytest

from e2e.clients import Client
from e2e.processes import Pop, Proxy
from testkit.wait import wait_until

_THREADS = 8


@dataclass
class _Load:
    """What clients saw that come again and again, each with one request a connection."""

    answers: list[tuple[float, str, str]] = field(default_factory=list)
    """When, at which address, and from which backend."""
    failures: list[tuple[float, str]] = field(default_factory=list)


@contextmanager
def _clients_that_keep_coming(proxy: Proxy) -> Iterator[_Load]:
    load, stop = _Load(), Event()

    def come_again_and_again(client: Client) -> None:
        while not stop.is_set():
            try:
                backend = client.ask(proxy)
            except OSError as error:
                load.failures.append((time.monotonic(), repr(error)))
            else:
                load.answers.append((time.monotonic(), client.address, backend))

    threads = [
        Thread(target=come_again_and_again, args=[Client.of("PT", number)])
        for number in range(1, _THREADS + 1)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.feature("workers.replaced")
def test_others_serve_on_a_new_one_comes_and_nothing_is_left_behind(pop: Pop) -> None:
    pop.start_backends(("mock-eu-1", "eu", "DE"), ("mock-eu-2", "eu", "FR"))
    proxy = pop.start_proxy()
    before = proxy.workers

    with _clients_that_keep_coming(proxy) as load:
        wait_until(lambda: len(load.answers) > 50, reason="traffic")
        killed_at_s = time.monotonic()
        os.kill(before[0], signal.SIGKILL)
        wait_until(
            lambda: len(proxy.workers) == len(before) and before[0] not in proxy.workers,
            reason="a new worker",
        )
        # As many again after the kill; half of them come to the new worker, so it serves.
        so_far = len(load.answers)
        wait_until(lambda: len(load.answers) > so_far + 200, reason="traffic after the kill", timeout_s=20)

    # Each client had at most one connection in the worker that died.
    assert len(load.failures) <= _THREADS, load.failures
    assert all(at_s >= killed_at_s for at_s, _ in load.failures), load.failures
    # Affinity was kept: nobody ever saw a second backend.
    seen = {(address, backend) for _, address, backend in load.answers}
    assert len(seen) == _THREADS, seen
    # No lease is left behind.
    wait_until(
        lambda: pop.open_connections() == {"mock-eu-1": 0, "mock-eu-2": 0},
        reason="all leases to be given back",
    )
    (death,) = proxy.events("a worker died, starting another")
    assert death["pid"] == before[0]
