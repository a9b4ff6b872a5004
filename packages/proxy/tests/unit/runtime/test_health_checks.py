"""When backends are asked, how many at a time, and what becomes of answers that come too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from edgeproxy.core.controlplane.routing_table import PlacedBackend, TableChange
from edgeproxy.core.model import Backend
from edgeproxy.runtime import health_checks
from edgeproxy.runtime.health_checks import HealthChecks
from testkit.wait import wait_until_async


def placed(backend_id: str, host: str = "192.0.2.1", port: int = 80, weight: int = 1) -> PlacedBackend:
    return PlacedBackend(0, Backend(backend_id, "shop", "eu", "DE", host, port, True, weight, 1, 0))


def change(*upserts: PlacedBackend, removed: tuple[PlacedBackend, ...] = ()) -> TableChange:
    return TableChange(1, upserts, removed, issues=(), resolved=())


class FakeProbe:
    """Answers when the test says so, or at once with what stands in ``answers``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.answers: dict[str, str | OSError | None] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = self.most_at_once = 0

    async def check(self, host: str, address: str, port: int) -> str | None:
        self.asked.append((host, address, port))
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        answer = self.answers.get(address)
        if isinstance(answer, OSError):
            raise answer
        return answer


class Checked:
    """Health checks with everything they call on, in this test's hands."""

    def __init__(self, *, timeout_s: float = 10.0, interval_s: float = 0.0) -> None:
        self.probe = FakeProbe()
        self.results: list[tuple[str, str | None]] = []
        self.times: list[tuple[float, float]] = []
        self.unable: list[str] = []
        self.intervals: dict[str, float | None] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self.checks = HealthChecks(
            lambda _backend: self.probe,
            interval_s=interval_s,
            timeout_s=timeout_s,
            addresses=lambda host: self.names.get(host, (host,)),
            next_check_s=lambda backend_id, _draw: self.intervals.get(backend_id),
            on_result=self._take,
            on_unable=self.unable.append,
            draw=lambda: 0.5,
        )

    def _take(self, backend_id: str, why: str | None, began_s: float, ended_s: float) -> None:
        self.results.append((backend_id, why))
        self.times.append((began_s, ended_s))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.checks.run())
        await asyncio.sleep(0)
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def until(self, condition: Callable[[], object], reason: str) -> None:
        await wait_until_async(condition, reason=reason, interval_s=0.001)


async def test_every_backend_is_asked_at_its_address() -> None:
    checked = Checked()
    checked.checks.follow(change(placed("a"), placed("b", "::1", 81)))
    checked.probe.answers["::1"] = "connection refused"
    async with checked.running():
        await checked.until(lambda: len(checked.results) == 2, "both results")
    assert sorted(checked.probe.asked) == [("192.0.2.1", "192.0.2.1", 80), ("::1", "::1", 81)]
    assert dict(checked.results) == {"a": None, "b": "connection refused"}
    assert all(began_s <= ended_s for began_s, ended_s in checked.times)


async def test_nothing_is_asked_before_it_runs_or_after() -> None:
    checked = Checked()
    checked.checks.follow(change(placed("a"), placed("b")))
    checked.checks.follow(change(removed=(placed("b"),)))
    await asyncio.sleep(0)
    assert checked.probe.asked == []
    checked.intervals["a"] = 0.0
    async with checked.running():
        await checked.until(lambda: checked.results, "a result")
    asked = len(checked.probe.asked)
    checked.checks.follow(change(placed("b")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(checked.probe.asked) == asked


async def test_the_first_check_comes_at_a_random_moment_of_the_interval() -> None:
    checked = Checked(interval_s=60.0)
    checked.checks.follow(change(placed("a")))
    async with checked.running():
        loop = asyncio.get_running_loop()
        timer = checked.checks._targets["a"].timer
        assert timer is not None
        assert timer.when() - loop.time() == pytest.approx(30.0, abs=1.0)


async def test_a_backend_is_asked_again_after_its_interval() -> None:
    checked = Checked()
    checked.intervals["a"] = 0.01
    checked.checks.follow(change(placed("a")))
    async with checked.running():
        await checked.until(lambda: len(checked.results) >= 3, "three results")
    begun = [began_s for began_s, _ in checked.times]
    assert all(later - earlier >= 0.009 for earlier, later in pairwise(begun))


async def test_a_backend_that_is_checked_no_more_is_left_alone() -> None:
    checked = Checked()
    checked.intervals["a"] = None
    checked.checks.follow(change(placed("a")))
    async with checked.running():
        await checked.until(lambda: checked.results, "the result")
        await asyncio.sleep(0)
        assert checked.checks._targets["a"].timer is None


async def test_rows_that_come_while_it_runs_are_checked_too() -> None:
    checked = Checked()
    async with checked.running():
        checked.checks.follow(change(placed("a")))
        await checked.until(lambda: checked.results == [("a", None)], "the result")


async def test_the_first_check_of_a_row_that_comes_while_it_runs_is_at_a_random_moment_too() -> None:
    checked = Checked(interval_s=60.0)
    async with checked.running():
        checked.checks.follow(change(placed("a")))
        timer = checked.checks._targets["a"].timer
        assert timer is not None
        assert timer.when() - asyncio.get_running_loop().time() == pytest.approx(30.0, abs=1.0)


async def test_another_weight_begins_nothing_anew() -> None:
    checked = Checked(interval_s=60.0)
    checked.checks.follow(change(placed("a")))
    async with checked.running():
        timer = checked.checks._targets["a"].timer
        checked.checks.follow(change(placed("a", weight=9)))
        assert checked.checks._targets["a"].timer is timer


async def test_another_address_is_asked_from_now_on_and_the_old_answer_dropped() -> None:
    checked = Checked()
    checked.probe.gate.clear()
    checked.checks.follow(change(placed("a")))
    async with checked.running():
        await checked.until(lambda: checked.probe.asked, "the first question")
        checked.checks.follow(change(placed("a", "192.0.2.9")))
        await checked.until(lambda: len(checked.probe.asked) == 2, "the second question")
        checked.probe.answers["192.0.2.1"] = "of the old one"
        checked.probe.gate.set()
        await checked.until(lambda: checked.results, "the result")
        await checked.until(lambda: not checked.probe.under_way, "both to end")
    assert checked.results == [("a", None)]


async def test_a_removed_backend_is_not_asked_and_not_reported() -> None:
    checked = Checked()
    checked.probe.gate.clear()
    checked.checks.follow(change(placed("a"), placed("b")))
    async with checked.running():
        await checked.until(lambda: len(checked.probe.asked) == 2, "both questions")
        checked.checks.follow(change(removed=(placed("a"), placed("unknown"))))
        checked.probe.gate.set()
        await checked.until(lambda: checked.results, "the result")
    assert checked.results == [("b", None)]


async def test_no_answer_in_time_is_an_answer() -> None:
    checked = Checked(timeout_s=0.01)
    checked.probe.gate.clear()
    checked.checks.follow(change(placed("a")))
    async with checked.running():
        await checked.until(lambda: checked.results, "the result")
    assert checked.results == [("a", "no answer within 0.01 s")]
    assert checked.probe.under_way == 0


async def test_addresses_of_a_name_are_asked_in_turn() -> None:
    checked = Checked()
    checked.names["web.test"] = ("192.0.2.1", "192.0.2.2")
    checked.intervals["a"] = 0.0
    checked.checks.follow(change(placed("a", "web.test")))
    async with checked.running():
        await checked.until(lambda: len(checked.results) >= 4, "four results")
    addresses = [address for _, address, _ in checked.probe.asked[:4]]
    assert addresses in (["192.0.2.1", "192.0.2.2"] * 2, ["192.0.2.2", "192.0.2.1"] * 2)


async def test_a_name_without_addresses_fails_without_a_question() -> None:
    checked = Checked()
    checked.names["web.test"] = ()
    checked.checks.follow(change(placed("a", "web.test")))
    async with checked.running():
        await checked.until(lambda: checked.results, "the result")
    assert checked.results == [("a", "its host name does not resolve")]
    assert checked.probe.asked == []


async def test_another_way_of_asking_holds_for_all_that_are_not_under_check() -> None:
    checked = Checked()
    checked.intervals = {"a": 3600.0, "b": None}
    checked.checks.follow(change(placed("a"), placed("b", "192.0.2.2")))
    other = FakeProbe()
    other.gate.clear()
    async with checked.running():
        await checked.until(lambda: len(checked.results) == 2, "both results")
        await checked.until(lambda: checked.checks._targets["a"].timer, "the next check to be planned")
        checked.checks.change_settings(lambda _backend: other, interval_s=0.0, timeout_s=0.02)
        await checked.until(lambda: len(checked.results) == 3, "a result of the other kind")
    assert checked.results[-1] == ("a", "no answer within 0.02 s")
    assert [host for host, *_ in other.asked] == ["192.0.2.1"]


async def test_what_this_machine_cannot_ask_says_nothing_of_the_backend() -> None:
    checked = Checked()
    checked.intervals["a"] = 0.0
    checked.probe.answers["192.0.2.1"] = OSError(24, "Too many open files")
    checked.checks.follow(change(placed("a")))
    async with checked.running():
        await checked.until(lambda: len(checked.probe.asked) >= 3, "further questions")
        assert checked.results == []
        assert checked.unable == ["Too many open files"]
        checked.probe.answers.clear()
        await checked.until(lambda: checked.results, "a result")
        checked.probe.answers["192.0.2.1"] = OSError(24, "Too many open files")
        await checked.until(lambda: len(checked.unable) == 2, "being told again")


async def test_never_too_many_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_checks, "MAX_CONCURRENT", 3)
    checked = Checked()
    checked.probe.gate.clear()
    checked.checks.follow(change(*(placed(f"b{number}") for number in range(10))))
    async with checked.running():
        await checked.until(lambda: len(checked.checks._waiting) == 7, "seven to wait")
        checked.checks.follow(change(removed=(placed("b9"),)))
        checked.probe.gate.set()
        await checked.until(lambda: len(checked.results) == 9, "all results")
    assert checked.probe.most_at_once == 3
    assert "b9" not in dict(checked.results)
