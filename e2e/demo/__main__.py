"""``./dev demo``: the proxy at work, with a proof that its figures are true.

Three mock backends and ``edgeproxy run`` are started as processes; a few dozen clients from several
countries connect through the proxy; half-way one backend is killed. At the end what the clients counted
is compared with what the proxy reports.

Exit codes: 0 all figures agree and no request was lost, 1 otherwise, 2 wrong arguments, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from e2e.demo.crowd import Crowd
from e2e.demo.figures import Comparison, compare, ended_by_proxy, total
from e2e.demo.screen import Screen, open_screen
from e2e.demo.stage import VICTIM, Stage, stage
from e2e.demo.view import Event, moved, view
from edgeproxy.admin_client import AdminClient
from edgeproxy.errors import EdgeproxyError
from testkit.faults.vocabulary import Kill

_REFRESH_S: Final = 0.2
_SETTLE_S: Final = 3.0
"""How long the proxy may take to report what happened last."""
_SHORTEST_S: Final = 2.0
_LONGEST_S: Final = 3600.0
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Finding = tuple[bool, str]
"""Whether it is as it should be, and what to say about it."""


class Demo:
    """The traffic, from the first connection to the verdict."""

    def __init__(self, scene: Stage, screen: Screen, admin: AdminClient, duration_s: float) -> None:
        self._victim = scene.backends[VICTIM]
        self._screen = screen
        self._admin = admin
        self._duration_s = duration_s
        self._crowd = Crowd(scene.proxy.host, scene.proxy.port, scene.addresses, Random())
        self._events: list[Event] = []
        self._at_kill: dict[str, Any] | None = None
        """What the proxy said when the backend was killed."""
        self._has_moved = False
        self._began_s = time.monotonic()

    async def run(self) -> bool:
        """Return whether everything was as it should be.

        Raises:
            EdgeproxyError: the proxy does not answer.
        """
        traffic = asyncio.create_task(self._crowd.run())
        try:
            await self._watch_until(self._duration_s / 2)
            await self._kill()
            await self._watch_until(self._duration_s)
            self._crowd.stop()
            await traffic
        finally:
            traffic.cancel()
            await asyncio.gather(traffic, return_exceptions=True)
        rows, stats = await self._settle()
        self._show(stats)
        findings = self._findings(rows, stats)
        self._screen.summary(rows, findings)
        return all(is_good for is_good, _ in findings)

    async def _watch_until(self, end_s: float) -> None:
        while (left_s := end_s - self._elapsed_s()) > 0:
            await asyncio.sleep(min(left_s, _REFRESH_S))
            await self._look()

    async def _look(self) -> None:
        stats = await self._stats()
        if self._at_kill is not None and not self._has_moved:
            destinations = moved(self._at_kill, stats, self._victim.id)
            if destinations is not None:
                self._has_moved = True
                countries, backends = map(", ".join, destinations)
                self._tell(f"its clients, in {countries}, are on {backends} now")
        self._show(stats)

    def _show(self, stats: dict[str, Any]) -> None:
        killed = None if self._at_kill is None else self._victim.id
        elapsed_s = min(self._elapsed_s(), self._duration_s)
        self._screen.show(view(stats, elapsed_s, self._duration_s, killed, self._events))

    async def _kill(self) -> None:
        """Kill a backend between two requests, with connections open."""
        victim = self._victim
        async with self._crowd.hold():
            cut = self._crowd.open_on(victim.id)
            stats = await self._stats_when(lambda stats: _opened(stats) == self._crowd.opened)
            victim.inject(Kill())
            await asyncio.wait_for(self._crowd.wait_ended(victim.id), _SETTLE_S)
            self._at_kill = stats
        self._tell(f"{victim.id} is killed (SIGKILL) with {cut} connections open")

    async def _settle(self) -> tuple[list[Comparison], dict[str, Any]]:
        """Return the proxy's last figures, beside the clients'."""
        stats = await self._stats_when(
            lambda stats: all(row.agrees for row in compare(self._crowd.seen, ended_by_proxy(stats)))
        )
        return compare(self._crowd.seen, ended_by_proxy(stats)), stats

    async def _stats_when(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What the proxy says once that meets ``condition``, or when it has had time enough.

        Its workers report five times a second.
        """
        deadline_s = time.monotonic() + _SETTLE_S
        while True:
            stats = await self._stats()
            if condition(stats) or time.monotonic() > deadline_s:
                return stats
            await asyncio.sleep(_REFRESH_S / 4)

    def _findings(self, rows: Sequence[Comparison], stats: dict[str, Any]) -> list[Finding]:
        crowd, connections = self._crowd, total(rows).clients.connections
        differing = sum(not row.agrees for row in rows)
        still_open = sum(row["active"] for row in stats["traffic"])
        failed_connects = sum(stats["connect_errors"].values())
        return [
            (
                not crowd.failures,
                f"{crowd.requests:,} requests on {connections:,} connections: every one was answered"
                if not crowd.failures
                else f"{len(crowd.failures)} requests had no answer, the first: {crowd.failures[0]}",
            ),
            (
                self._has_moved,
                f"the clients of {self._victim.id} moved; {failed_connects} connects to it failed, "
                "and the proxy tried the next best before anybody noticed"
                if self._has_moved
                else f"the clients of {self._victim.id} did not move",
            ),
            (
                stats["closes"] == {"complete": connections} and not still_open,
                "the proxy says that every connection ended in order"
                if stats["closes"] == {"complete": connections} and not still_open
                else f"the proxy says that connections ended thus: {stats['closes']}; {still_open} are open",
            ),
            (
                not differing,
                "every figure of the proxy equals what the clients counted, to the byte"
                if not differing
                else f"{differing} of {len(rows)} rows differ",
            ),
        ]

    def _tell(self, text: str) -> None:
        self._events.append(Event(self._elapsed_s(), text))
        self._screen.happened(self._events[-1])

    async def _stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = await asyncio.to_thread(self._admin.ask, "stats")
        return stats

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s


def _opened(stats: dict[str, Any]) -> int:
    return sum(row["opened"] for row in stats["traffic"])


def _duration_s(text: str) -> float:
    try:
        duration_s = float(text)
    except ValueError:
        duration_s = 0.0
    if not _SHORTEST_S <= duration_s <= _LONGEST_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration; give seconds from {_SHORTEST_S:g} to {_LONGEST_S:g}"
        )
    return duration_s


def _play(duration_s: float) -> bool:
    screen = open_screen()
    with screen, stage(screen.typed) as scene:
        try:
            admin = AdminClient.connect(scene.admin_socket)
            assert admin is not None, f"the proxy does not listen on {scene.admin_socket}"
            with admin:
                return asyncio.run(Demo(scene, screen, admin, duration_s).run())
        finally:
            # The processes are stopped now; another Ctrl-C must not leave some behind.
            for signum in _STOPPING:
                signal.signal(signum, signal.SIG_IGN)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--for", dest="duration_s", metavar="SECONDS", type=_duration_s, default=15.0,
        help="how long clients come and go (default 15)",
    )  # fmt: skip
    duration_s = parser.parse_args(arguments).duration_s
    for signum in _STOPPING:
        signal.signal(signum, signal.default_int_handler)
    try:
        return 0 if _play(duration_s) else 1
    except KeyboardInterrupt:
        print("demo: interrupted; nothing is left running", file=sys.stderr)
        return 130
    except (AssertionError, EdgeproxyError, OSError, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
