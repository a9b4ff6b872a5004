"""Verdicts go out at once, but never too many at a time, and trials are granted before they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from edgeproxy.core.controlplane.events import Event
from edgeproxy.core.controlplane.health import HealthSettings
from edgeproxy.core.controlplane.outlier import CircuitSettings
from edgeproxy.core.controlplane.routing_table import RoutingTable
from edgeproxy.core.controlplane.verdicts import Verdicts, VerdictSettings
from edgeproxy.core.geography import Geography
from edgeproxy.core.model import GOOD, Verdict
from edgeproxy.core.wire.frames import Report, TableChanged
from edgeproxy.runtime.verdict_feed import AT_A_TIME, VerdictFeed
from testkit.wait import wait_until_async


class Pop:
    """A feed with a table of rows ``b0``, ``b1`` …, and what it did, in its order."""

    def __init__(
        self, rows: int, timeout_s: float = 0.01, slow_start_s: float = 0.0, failure_threshold: int = 1
    ) -> None:
        self.table = RoutingTable(Geography.built_in())
        self.done: list[TableChanged | tuple[str, int, int]] = []
        self.events: list[Event] = []
        self.checks = HealthSettings(healthy_threshold=1, unhealthy_threshold=1)
        self.circuits = CircuitSettings(failure_threshold, success_threshold=2, timeout_s=timeout_s)
        settings = VerdictSettings(self.checks, self.circuits, slow_start_s)
        self.feed = VerdictFeed(
            Verdicts(settings),
            self.table,
            lambda slot, connections: self.done.append(("grant", slot, connections)),
            self.events.append,
        )
        self.feed.follow(
            self.table.replace(
                [
                    {"id": f"b{number}", "app": "shop", "region": "eu", "wg_ip": "192.0.2.1", "port": 80}
                    | {"healthy": 1, "weight": 1, "soft_limit": 1, "hard_limit": 0}
                    for number in range(rows)
                ]
            )
        )

    def publish(self, news: TableChanged) -> None:
        self.done.append(news)

    @property
    def published(self) -> list[TableChanged]:
        return [each for each in self.done if isinstance(each, TableChanged)]

    @property
    def verdicts(self) -> list[Verdict]:
        return [placed.verdict for change in self.published for placed in change.upserts]

    def fail(self, backend_id: str) -> None:
        report = Report(
            traffic=(),
            closes={},
            connect_errors={backend_id: 1},
            sessions=(),
            sessions_dropped=0,
            outcomes={backend_id: "f"},
        )
        self.feed.reported(report)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.feed.run(self))
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def wait_published(self, count: int) -> None:
        await wait_until_async(
            lambda: len(self.published) >= count, reason=f"{count} publications", interval_s=0.001
        )


async def test_a_failure_is_published_and_told_at_once() -> None:
    pop = Pop(rows=1, timeout_s=300)
    async with pop.running():
        pop.fail("b0")
        assert pop.events[0].name == "a backend is ejected"
        await pop.wait_published(1)
    assert pop.done[0] == ("grant", 0, 0)
    (change,) = pop.published
    assert (change.version, change.whole, change.removed_slots) == (2, False, ())
    assert change.upserts == pop.table.snapshot()
    assert pop.verdicts == [Verdict(is_good=False)]


async def test_failures_that_several_workers_report_add_up() -> None:
    pop = Pop(rows=3, failure_threshold=4)
    for _ in range(3):
        pop.fail("b0")  # whichever worker: what they report is taken in one after the other
    assert not pop.feed.verdicts.has_changes
    pop.fail("b1")
    assert not pop.feed.verdicts.has_changes, "another backend's failures are its own"
    pop.fail("b0")
    assert list(pop.feed.verdicts.take_changed(10)) == ["b0"]


async def test_a_trial_is_granted_before_the_workers_hear_of_it() -> None:
    pop = Pop(rows=1)
    async with pop.running():
        pop.fail("b0")
        trial = Verdict(is_good=False, trial=1)
        await wait_until_async(lambda: trial in pop.verdicts, reason="a trial", interval_s=0.001)
    told = pop.done.index(next(change for change in pop.published if change.upserts[0].verdict == trial))
    assert pop.done[told - 1] == ("grant", 0, 2)


async def test_a_check_is_published_too() -> None:
    pop = Pop(rows=3)
    async with pop.running():
        pop.feed.checked("b1", "connection refused", monotonic(), monotonic())
        await pop.wait_published(1)
        pop.feed.checked("b1", None, monotonic(), monotonic())
        await pop.wait_published(2)
    assert pop.verdicts == [Verdict(is_good=False), GOOD]


async def test_time_alone_is_enough_for_the_steps_of_a_warm_up() -> None:
    pop = Pop(rows=3, slow_start_s=0.2)
    async with pop.running():
        pop.feed.checked("b1", "connection refused", monotonic(), monotonic())
        await pop.wait_published(1)
        pop.feed.checked("b1", None, monotonic(), monotonic())
        await wait_until_async(lambda: pop.verdicts[-1] == GOOD, reason="full weight", interval_s=0.001)
    factors = [verdict.weight_factor for verdict in pop.verdicts[1:]]
    assert factors == sorted(factors)
    assert len(factors) > 2


async def test_many_changes_go_out_in_pieces_and_others_have_their_turn() -> None:
    rows = 2 * AT_A_TIME + 1
    pop = Pop(rows)
    for number in range(rows):
        pop.feed.checked(f"b{number}", "connection refused", 0.0, 0.0)
    async with pop.running():
        await pop.wait_published(3)
    assert [len(change.upserts) for change in pop.published] == [AT_A_TIME, AT_A_TIME, 1]


async def test_a_verdict_that_is_taken_back_in_time_is_not_published() -> None:
    pop = Pop(rows=3)
    pop.feed.checked("b1", "connection refused", 0.0, 0.0)
    pop.feed.checked("b1", None, 0.0, 0.0)
    async with pop.running():
        await wait_until_async(lambda: not pop.feed.verdicts.has_changes, reason="a turn", interval_s=0.001)
        assert pop.done == []
        pop.feed.checked("b2", "connection refused", 0.0, 0.0)
        await pop.wait_published(1)
    assert [placed.backend.id for change in pop.published for placed in change.upserts] == ["b2"]


async def test_other_settings_are_published_at_once() -> None:
    pop = Pop(rows=3, slow_start_s=600)
    async with pop.running():
        pop.feed.checked("b1", "connection refused", monotonic(), monotonic())
        pop.feed.checked("b1", None, monotonic(), monotonic())
        await pop.wait_published(1)
        assert pop.verdicts[-1].weight_factor < 1
        pop.feed.change_settings(VerdictSettings(pop.checks, pop.circuits, slow_start_s=0))
        await pop.wait_published(2)
    assert pop.verdicts[-1] == GOOD


async def test_nothing_is_published_while_nothing_changes() -> None:
    pop = Pop(rows=3)
    async with pop.running():
        pop.feed.checked("b1", None, 0.0, 0.0)
        for _ in range(10):
            await asyncio.sleep(0)
    assert pop.done == []
