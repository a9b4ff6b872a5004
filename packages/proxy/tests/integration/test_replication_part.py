"""What the control process runs of a cluster, in one process: its life from waiting to leaving."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.app import replication as module
from edgeproxy.app.replication import ReplicationPart, lock_path
from edgeproxy.config import Address, Config, load
from edgeproxy.inbound.replication_ports import ReplicationPort
from edgeproxy.outbound.store_sqlite import SqliteStore
from edgeproxy.stores import open_replica
from packages.proxy.tests.integration.proxies import edit, row, write_rows
from testkit.wait import wait_until_async

pytestmark = pytest.mark.feature("replication.changes", "replication.membership", "replication.shown")

TIMEOUT_S = 20.0


class Pop:
    """A part with its files and everything it says."""

    def __init__(self, folder: Path, name: str, *seeds: Address, has_table: bool = True) -> None:
        self.folder = folder / name
        self.folder.mkdir(exist_ok=True)
        self.db_path = self.folder / "routing.db"
        if has_table and not self.db_path.exists():
            SqliteStore.create(self.db_path)
        self.gossip = _port()
        self.transport = _port()
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.published = 0
        self.leases_changed = 0
        self.leaving = True
        self.part = ReplicationPart(
            self._config(name, seeds),
            self.gossip,
            self.transport,
            self,
            self._publish,
            self._change_leases,
            lambda: self.leaving,
        )

    def _config(self, name: str, seeds: tuple[Address, ...]) -> Config:
        settings = {
            "db_path": self.db_path,
            "replication_enabled": True,
            "replication_node_id": name,
            "replication_db_path": self.folder / "state.db",
            "replication_bootstrap_peers": ",".join(map(str, seeds)),
            "replication_gossip_interval_ms": 50,
            "replication_sync_interval_ms": 100,
        }
        return load({f"EDGEPROXY_{key.upper()}": str(value) for key, value in settings.items()}, {}, None)

    def _publish(self) -> None:
        self.published += 1

    def _change_leases(self) -> None:
        self.leases_changed += 1

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    def events(self) -> list[str]:
        return [event for event, _ in self.lines]

    def ids(self) -> list[str]:
        with closing(sqlite3.connect(self.db_path)) as database:
            return [each for (each,) in database.execute("SELECT id FROM backends ORDER BY id")]

    def weights(self) -> list[int]:
        with closing(sqlite3.connect(self.db_path)) as database:
            return [each for (each,) in database.execute("SELECT weight FROM backends")]

    def close(self) -> None:
        self.gossip.close()
        self.transport.close()


def _port() -> ReplicationPort:
    return ReplicationPort(Address("127.0.0.1", 0), to="test", variable="THAT", is_exposable=True)


@asynccontextmanager
async def running(*pops: Pop) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(pop.part.run()) for pop in pops]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pop in pops:
            pop.close()
        await asyncio.sleep(0)  # transports close when the loop turns


async def until(condition: Any, reason: str) -> None:
    await wait_until_async(lambda: bool(condition()), reason=reason, timeout_s=TIMEOUT_S)


async def test_two_find_each_other_agree_and_one_leaves(tmp_path: Path) -> None:
    a = Pop(tmp_path, "a")
    b = Pop(tmp_path, "b", a.gossip.address)
    write_rows(a.db_path, [row("b1", 9000)])
    assert not a.part.view().running
    assert a.part.view().members == ()
    assert a.part.is_elsewhere("b"), "nobody has been found yet"
    assert not a.part.is_elsewhere("a")
    async with running(a):
        async with running(b):
            await until(lambda: b.ids() == ["b1"], "the row of before")
            await until(lambda: b.published, "it to be published")
            assert b.leases_changed
            edit(b.db_path, "UPDATE backends SET weight = 9")
            b.part.table_changed()
            await until(lambda: a.part.view().counts.applied, "what b wrote")
            await until(lambda: a.part.is_elsewhere("b"), "b to be known")
            await until(lambda: all(each.connected for each in a.part.view().members[1:]), "a connection")
            view = a.part.view()
            assert [(each.node, each.state) for each in view.members] == [("a", "self"), ("b", "alive")]
            assert view.running
            assert not view.sealed
            assert sum(view.known.values()) >= 2
            edit(b.db_path, "UPDATE backends SET weight = 7")
        await until(lambda: "a POP has left" in a.events(), "the goodbye")
        assert not a.part.is_elsewhere("b")
        await until(lambda: a.weights() == [7], "what was written just before the goodbye")
    assert not a.part.view().running


async def test_a_successor_goes_on_under_the_same_name_without_a_goodbye(tmp_path: Path) -> None:
    a = Pop(tmp_path, "a")
    b = Pop(tmp_path, "b", a.gossip.address)
    async with running(a):
        async with running(b):
            await until(lambda: "connected to a peer" in a.events(), "a connection")
            b.leaving = False
            successor = Pop(tmp_path, "b", a.gossip.address)
            async with running(successor):
                await until(
                    lambda: "another process is this node, waiting for it to end" in successor.events(),
                    "it to wait",
                )
                assert "replicating" not in successor.events()
        again = Pop(tmp_path, "b", a.gossip.address)
        async with running(again):
            await until(lambda: a.events().count("connected to a peer") == 2, "a second connection")
        assert a.events().count("a POP has left") == 1, "only the last one said goodbye"


async def test_a_table_that_is_missing_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_INTERVAL_S", 0.01)
    a = Pop(tmp_path, "a", has_table=False)
    async with running(a):
        await until(lambda: a.lines, "it to say so")
        SqliteStore.create(a.db_path)
        await until(lambda: "replicating" in a.events(), "it to go on")
        assert a.events().count("this POP cannot replicate, trying again") == 1


async def test_what_is_remembered_outlasts_a_restart_and_may_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBER_INTERVAL_S", 0.01)
    a, b = Pop(tmp_path, "a"), Pop(tmp_path, "b")
    seeded = Pop(tmp_path, "c", a.gossip.address, b.gossip.address)
    state = tmp_path / "c" / "state.db"
    async with running(a, b):
        async with running(seeded):
            ports = [str(pop.gossip.address.port).encode() for pop in (a, b)]
            await until(
                lambda: state.exists() and all(port in state.read_bytes() for port in ports),
                "both to be remembered",
            )
        unseeded = Pop(tmp_path, "c")
        async with running(unseeded):
            await until(lambda: unseeded.events().count("a POP is there") == 2, "both to be found again")
        state.write_bytes(b"nonsense")
        lost = Pop(tmp_path, "c")
        async with running(lost):
            await until(lambda: "replicating" in lost.events(), "it to go on")
            assert "what this node remembered is lost, which does no harm" in lost.events()


async def test_after_a_defect_the_node_is_put_together_again_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defects = iter([1 / 3, 1 / 3])

    def open_or_fail(*arguments: Any) -> Any:
        if next(defects, None) is not None:
            raise ZeroDivisionError
        return open_replica(*arguments)

    monkeypatch.setattr(module, "open_replica", open_or_fail)
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    a = Pop(tmp_path, "a")
    async with running(a):
        await until(lambda: a.part.view().running, "it to replicate after all")
        failures = [
            fields["in_s"] for event, fields in a.lines if event == "replication failed, it begins anew"
        ]
        assert failures == [0.01, 0.02]


async def test_a_node_that_failed_goes_on_at_the_addresses_that_others_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.0)
    a = Pop(tmp_path, "a")
    b = Pop(tmp_path, "b", a.gossip.address)
    write_rows(a.db_path, [row("b1", 9000)])
    defects = iter([1 / 3])
    remember = module.ReplicationPart._remember

    async def remember_or_fail(part: Any, file: Any) -> None:
        if part is a.part and next(defects, None) is not None:
            await until(lambda: b.ids() == ["b1"], "the other to be there")
            raise ZeroDivisionError
        await remember(part, file)

    monkeypatch.setattr(module.ReplicationPart, "_remember", remember_or_fail)
    async with running(a, b):
        await until(lambda: a.events().count("replicating") == 2, "it to replicate again")
        edit(b.db_path, "UPDATE backends SET weight = 9")
        b.part.table_changed()
        await until(lambda: a.weights() == [9], "what the other wrote since")


def test_the_lock_lies_beside_the_state() -> None:
    assert lock_path(Path("/var/lib/edge/state.db")) == Path("/var/lib/edge/state.db.lock")
