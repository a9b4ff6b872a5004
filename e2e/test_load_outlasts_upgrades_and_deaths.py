"""Under load the proxy is upgraded twice, a worker is killed, a backend dies and comes back: what fails is
what those two were carrying at that moment.

``./dev e2e e2e/test_load_outlasts_upgrades_and_deaths.py --full -n0 -s`` takes a minute; it prints counts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.processes import LocalPop, LocalProxy
from testkit.faults.vocabulary import Kill
from testkit.wait import wait_until

pytestmark = [
    pytest.mark.usefixtures("unmeasured"),
    pytest.mark.timeout(300),
    pytest.mark.blank(containers="loads the machine at hand, which hosts would only share"),
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk"),
]

_CONNECTIONS = 16


@dataclass(frozen=True)
class _Outcome:
    """What wrk counted. ``cut`` connections ended before their answer did."""

    requests: int
    unconnected: int
    cut: int
    timed_out: int

    @classmethod
    def of(cls, said: str) -> _Outcome:
        assert "Non-2xx" not in said, said
        requests = re.search(r"(\d+) requests in", said)
        assert requests is not None, said
        errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        connect, read, write, timeout = map(int, errors.groups()) if errors is not None else (0, 0, 0, 0)
        return cls(int(requests[1]), connect, read + write, timeout)


@contextmanager
def _load(proxy: LocalProxy) -> Iterator[list[_Outcome]]:
    """A connection for each request, so many at a time; yields what became of them, afterwards."""
    url = f"http://{proxy.host}:{proxy.port}/api/latency"
    options = ["-t1", f"-c{_CONNECTIONS}", "-d600", "--timeout", "30s", "-H", "Connection: close"]
    outcomes: list[_Outcome] = []
    with subprocess.Popen(["wrk", *options, url], stdout=subprocess.PIPE, text=True) as wrk:
        try:
            yield outcomes
            assert wrk.poll() is None
        finally:
            wrk.send_signal(signal.SIGINT)  # upon which it tells its counts
            told, _ = wrk.communicate(timeout=60)
    outcomes.append(_Outcome.of(told))


class _Story:
    """Its steps, each with load before and after it."""

    def __init__(self, pop: LocalPop, pause_s: float) -> None:
        self._pop = pop
        self._pause_s = pause_s
        self._served = 0

    def stats(self) -> Any:
        """Of the proxy that serves now."""
        return json.loads(self._pop.edgeproxy("ctl", "show", "stats", "--json"))

    def next(self, what: str) -> None:
        """Wait for traffic, and until the last step is so long ago."""
        at_s = time.monotonic() + self._pause_s
        self._served = wait_until(
            lambda: time.monotonic() >= at_s and self._more_served(),
            reason=f"traffic before the next step: {what}",
            timeout_s=self._pause_s + 30,
            interval_s=0.1,
        )
        self._pop.step(what)

    def upgrade(self) -> None:
        self._pop.edgeproxy("upgrade")
        self._served = 0  # the successor counts anew

    def _more_served(self) -> int:
        """All connections so far, once each client has had some since the last step."""
        served = sum(row["opened"] for row in self.stats()["traffic"])
        return served if served > self._served + 2 * _CONNECTIONS else 0


@pytest.mark.feature("process.upgrade", "workers.replaced")
def test_what_fails_is_what_the_dead_were_carrying(local_pop: LocalPop, full: bool) -> None:
    pop = local_pop
    backends = pop.start_backends({"mock-eu-1": "DE", "mock-eu-2": "FR"})
    pop.configure(workers="2")
    proxy = pop.start_proxy()
    story = _Story(pop, pause_s=10 if full else 0.5)
    began_s = time.monotonic()

    with _load(proxy) as outcomes:
        story.next("first upgrade")
        story.upgrade()
        story.next("a worker is killed")
        os.kill(story.stats()["workers"][0], signal.SIGKILL)
        story.next("second upgrade")
        story.upgrade()
        story.next("the backend with the clients is killed")
        carried = pop.open_connections()
        busiest = max(carried, key=lambda name: carried[name])
        backends[busiest].inject(Kill())
        story.next("it comes back")
        backends[busiest].recover()
        story.next("the end")
        assert "retry_budget" not in story.stats()["closes"]

    (outcome,) = outcomes
    print(
        f"{outcome.requests:,} connections in {time.monotonic() - began_s:.0f} s: "
        f"{outcome.unconnected} refused, {outcome.timed_out} timed out, "
        f"{outcome.cut} cut off with the worker or the backend that was killed"
    )
    proxy.stop_successor()
    assert len(proxy.events("upgraded")) == 2
    assert len(proxy.events("a worker died, starting another")) == 1
    assert (outcome.unconnected, outcome.timed_out) == (0, 0)
    # Each client has one connection at a time, so no more can have been in flight at either death.
    assert outcome.cut <= 2 * _CONNECTIONS
