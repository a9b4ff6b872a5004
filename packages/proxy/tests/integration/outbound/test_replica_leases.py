"""Leases between POPs: who owns one is a change, and whose word an unhealthy row is stays known."""

from __future__ import annotations

import pytest

from edgeproxy.core.replication.model import EXPIRED, Group
from edgeproxy.outbound.leases_sqlite import SqliteLeases
from edgeproxy.ports import Lease, LeaseWrite, RowChange
from packages.proxy.tests.integration.outbound.replicas import (
    Pop,
    assert_same,
    sync,
)

pytestmark = pytest.mark.usefixtures("short_waits")


def lease(pop: Pop, owner: str, *, at_s: float = 10.5, expired: bool = False, healthy: int = 1) -> None:
    write = LeaseWrite(
        "a", RowChange("a", {"healthy": healthy}), Lease("a", owner, 10.123456789, at_s, expired)
    )
    SqliteLeases(pop.store).apply([("a", lambda _table, _lease: write)])


def test_owner_of_a_lease_is_a_change_and_a_heartbeat_is_none(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    lease(first, "pop-1")
    (write,) = first.captured()
    assert write.groups == {Group.LEASE: {"owner": "pop-1", "registered_at": 10.123456789}}
    lease(first, "pop-1", at_s=99.0)
    assert first.captured() == []
    second.replica.apply([write])
    (theirs,) = SqliteLeases(second.store).leases()
    assert (theirs.owner, theirs.registered_at_s, theirs.expired) == ("pop-1", 10.123456789, False)
    lease(second, "pop-2")
    sync(first, second)
    assert [each.owner for each in SqliteLeases(first.store).leases()] == ["pop-2"]
    assert_same(first, second)


def test_expiry_is_undone_by_another_pop_and_the_operators_word_is_not(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    lease(first, "pop-1")
    lease(first, "pop-1", expired=True, healthy=0)
    sync(first, second)
    (theirs,) = SqliteLeases(second.store).leases()
    assert theirs.expired
    assert second.table["a"][5] == 0
    second.edit("UPDATE backends SET healthy = 0 WHERE id = 'a'")
    (write,) = second.captured()
    assert write.groups == {Group.HEALTH: {"healthy": 0, EXPIRED: 0}}
    sync(first, second)
    assert not SqliteLeases(first.store).leases()[0].expired
    assert_same(first, second)


def test_order_of_lease_and_row_makes_no_difference(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    lease(first, "pop-1")
    lease(first, "pop-1", expired=True, healthy=0)
    for write in reversed(first.captured()):
        second.replica.apply([write])
    assert SqliteLeases(second.store).leases()[0].expired
    assert second.captured() == []
    assert_same(first, second)


def test_end_of_a_lease_replicates(two_pops: tuple[Pop, Pop]) -> None:
    first, second = two_pops
    lease(first, "pop-1")
    sync(first, second)
    ends = LeaseWrite("a", RowChange("a", {"deleted": 1}), None)
    SqliteLeases(first.store).apply([("a", lambda _table, _lease: ends)])
    sync(first, second)
    assert second.select("SELECT count(*) FROM edgeproxy_leases") == [(0,)]
    assert_same(first, second)
