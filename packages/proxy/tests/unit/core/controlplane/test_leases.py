from __future__ import annotations

from collections.abc import Mapping

import pytest

from edgeproxy.core.controlplane.leases import (
    AlreadyUnhealthy,
    Ended,
    HeardElsewhere,
    adjustment,
    deregistration,
    expiry,
    heartbeat,
    registration,
    removal,
    renewal,
)
from edgeproxy.core.controlplane.registry import DEFAULTS, Refusal, RefusalReason
from edgeproxy.core.geography import Geography
from edgeproxy.ports import Lease, LeaseOperation, LeaseWrite, Row, RowChange

GEOGRAPHY = Geography.built_in()
NEEDED: Mapping[str, object] = {
    "app": "web",
    "region": "eu",
    "country": None,
    "wg_ip": "10.0.0.7",
    "port": 9001,
}
ROW: Row = {"id": "b", **DEFAULTS, **NEEDED, "deleted": 0}
LEASE = Lease("b", "old-pop", registered_at_s=10.0, heartbeat_at_s=20.0, expired=False)
EXPIRED = Lease("b", "old-pop", registered_at_s=10.0, heartbeat_at_s=20.0, expired=True)
GONE: Row = {**ROW, "deleted": 1}


def register(values: Mapping[str, object] = NEEDED, only_app: str | None = None) -> LeaseOperation[Refusal]:
    return registration(GEOGRAPHY, "b", values, at_s=30.0, owner="pop", only_app=only_app)


def refusal(decision: LeaseWrite | Refusal) -> Refusal:
    assert isinstance(decision, Refusal), decision
    return decision


def write(decision: object) -> LeaseWrite:
    assert isinstance(decision, LeaseWrite), decision
    return decision


def written(decision: object) -> Mapping[str, object]:
    row = write(decision).row
    assert row is not None
    return row.values


# ---- registering -----------------------------------------------------------------------------


def test_first_registration_makes_the_row_and_its_lease() -> None:
    assert register()({}, None) == LeaseWrite(
        "b",
        RowChange("b", {**DEFAULTS, **NEEDED, "deleted": 0}),
        Lease("b", "pop", registered_at_s=30.0, heartbeat_at_s=30.0, expired=False),
    )


def test_registering_again_keeps_the_time_of_the_first_and_renews() -> None:
    lease = write(register()({"b": ROW}, LEASE)).lease
    assert lease == Lease("b", "pop", registered_at_s=10.0, heartbeat_at_s=30.0, expired=False)


def test_registering_again_moves_the_backend() -> None:
    values = written(register({**NEEDED, "wg_ip": "10.0.0.8", "region": "us"})({"b": ROW}, LEASE))
    assert (values["wg_ip"], values["region"], values["healthy"]) == ("10.0.0.8", "us", 1)


def test_registering_again_leaves_alone_what_an_operator_tuned() -> None:
    values = written(register()({"b": {**ROW, "weight": 9}}, LEASE))
    assert not {"weight", "soft_limit", "hard_limit"} & values.keys()


def test_registering_again_with_a_weight_sets_it() -> None:
    assert written(register({**NEEDED, "weight": 7})({"b": ROW}, LEASE))["weight"] == 7


def test_registering_again_does_not_undo_a_drain() -> None:
    assert written(register()({"b": {**ROW, "healthy": 0}}, LEASE))["healthy"] == 0


def test_registering_again_undoes_an_expiry() -> None:
    decision = register()({"b": {**ROW, "healthy": 0}}, EXPIRED)
    assert written(decision)["healthy"] == 1
    lease = write(decision).lease
    assert lease is not None
    assert not lease.expired


def test_row_that_somebody_else_made_is_taken_over() -> None:
    lease = write(register()({"b": ROW}, None)).lease
    assert lease is not None
    assert lease.registered_at_s == 30.0


def test_drain_of_a_row_without_a_lease_is_kept() -> None:
    assert written(register()({"b": {**ROW, "healthy": 0}}, None))["healthy"] == 0


def test_registration_after_a_removal_is_a_first_one() -> None:
    decision = register()({"b": {**GONE, "weight": 9, "healthy": 0}}, LEASE)
    assert written(decision) == {**DEFAULTS, **NEEDED, "deleted": 0}
    lease = write(decision).lease
    assert lease is not None
    assert lease.registered_at_s == 30.0


def test_row_that_cannot_be_used_gets_the_defaults_where_the_backend_says_nothing() -> None:
    values = written(register()({"b": {**ROW, "weight": None, "soft_limit": "many"}}, LEASE))
    assert (values["weight"], values["soft_limit"], values["hard_limit"]) == (2, 100, 150)


@pytest.mark.parametrize("table", [{}, {"b": ROW}])
def test_wrong_value_is_refused_with_its_column(table: Mapping[str, Row]) -> None:
    refused = refusal(register({**NEEDED, "wg_ip": "10.0.0.256"})(table, None))
    assert refused.reason is RefusalReason.INVALID
    assert [issue.column for issue in refused.issues] == ["wg_ip"]


# ---- which app a caller must keep to ---------------------------------------------------------


def test_caller_registers_backends_of_its_own_app() -> None:
    write(register(only_app="web")({}, None))
    write(register(only_app="web")({"b": ROW}, LEASE))


def test_caller_cannot_register_for_another_app() -> None:
    assert refusal(register(only_app="shop")({}, None)).reason is RefusalReason.FORBIDDEN


def test_caller_cannot_take_a_backend_from_another_app() -> None:
    table = {"b": {**ROW, "app": "shop"}}
    assert refusal(register(only_app="web")(table, LEASE)).reason is RefusalReason.FORBIDDEN


def test_id_of_a_removed_backend_of_another_app_is_free() -> None:
    write(register(only_app="web")({"b": {**GONE, "app": "shop"}}, None))


@pytest.mark.parametrize(
    "operation",
    [
        heartbeat("b", at_s=30.0, owner="pop", only_app="shop"),
        deregistration("b", only_app="shop"),
    ],
)
def test_caller_cannot_touch_backends_of_another_app(operation: LeaseOperation[Refusal]) -> None:
    assert refusal(operation({"b": ROW}, LEASE)).reason is RefusalReason.FORBIDDEN


@pytest.mark.parametrize(
    "operation",
    [heartbeat("b", at_s=30.0, owner="pop", only_app="web"), deregistration("b", only_app="web")],
)
def test_caller_may_touch_backends_of_its_own_app(operation: LeaseOperation[Refusal]) -> None:
    write(operation({"b": ROW}, LEASE))


# ---- heartbeats and the end ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "lease"), [({}, None), ({"b": ROW}, None), ({"b": GONE}, LEASE), ({}, LEASE)]
)
def test_what_is_not_registered_is_unknown(table: Mapping[str, Row], lease: Lease | None) -> None:
    operations = [
        heartbeat("b", at_s=30.0, owner="pop", only_app=None),
        deregistration("b", only_app=None),
    ]
    for operation in operations:
        assert operation(table, lease) == Refusal(RefusalReason.UNKNOWN, ("backend not registered",))


def test_heartbeat_renews_the_lease_and_leaves_the_row_alone() -> None:
    operation = heartbeat("b", at_s=30.0, owner="pop", only_app=None)
    drained = {"b": {**ROW, "healthy": 0}}
    assert operation(drained, LEASE) == LeaseWrite(
        "b", None, Lease("b", "pop", registered_at_s=10.0, heartbeat_at_s=30.0, expired=False)
    )


def test_heartbeat_undoes_an_expiry() -> None:
    operation = heartbeat("b", at_s=30.0, owner="pop", only_app=None)
    assert operation({"b": {**ROW, "healthy": 0}}, EXPIRED) == LeaseWrite(
        "b",
        RowChange("b", {"healthy": 1}),
        Lease("b", "pop", registered_at_s=10.0, heartbeat_at_s=30.0, expired=False),
    )


def test_deregistering_removes_row_and_lease() -> None:
    decision = deregistration("b", only_app=None)({"b": ROW}, LEASE)
    assert decision == LeaseWrite("b", RowChange("b", {"deleted": 1}), None)


# ---- what operators change -------------------------------------------------------------------


def test_adjustment_changes_the_row_and_keeps_the_lease() -> None:
    decision = adjustment(GEOGRAPHY, "b", {"weight": 5})({"b": ROW}, EXPIRED)
    assert decision == LeaseWrite("b", RowChange("b", {"weight": 5}), EXPIRED)


def test_adjusting_health_makes_it_the_operators_word() -> None:
    decision = adjustment(GEOGRAPHY, "b", {"healthy": False})({"b": {**ROW, "healthy": 0}}, EXPIRED)
    assert decision == LeaseWrite("b", RowChange("b", {"healthy": 0}), LEASE)


def test_row_without_a_lease_can_be_adjusted() -> None:
    decision = adjustment(GEOGRAPHY, "b", {"healthy": False})({"b": ROW}, None)
    assert decision == LeaseWrite("b", RowChange("b", {"healthy": 0}), None)


def test_adjustment_of_an_unknown_or_removed_backend_is_refused() -> None:
    for table in ({}, {"b": GONE}):
        refused = refusal(adjustment(GEOGRAPHY, "b", {"weight": 5})(table, None))
        assert refused.reason is RefusalReason.UNKNOWN


def test_adjustment_judges_the_whole_row() -> None:
    refused = refusal(adjustment(GEOGRAPHY, "b", {"weight": 5})({"b": {**ROW, "port": None}}, None))
    assert refused.reason is RefusalReason.INVALID


# ---- what time does --------------------------------------------------------------------------


@pytest.mark.feature("api.leases")
def test_expiry_makes_the_row_unhealthy_and_marks_whose_doing_it_is() -> None:
    decision = expiry("b", known_at_s=20.0)({"b": ROW}, LEASE)
    assert decision == LeaseWrite("b", RowChange("b", {"healthy": 0}), EXPIRED)


@pytest.mark.parametrize("unhealthy", [0, None])
def test_expiry_leaves_what_the_operator_took_out(unhealthy: object) -> None:
    decision = expiry("b", known_at_s=20.0)({"b": {**ROW, "healthy": unhealthy}}, LEASE)
    assert decision == AlreadyUnhealthy()


def test_removal_removes_row_and_lease() -> None:
    decision = removal("b", known_at_s=20.0)({"b": ROW}, EXPIRED)
    assert decision == LeaseWrite("b", RowChange("b", {"deleted": 1}), None)


@pytest.mark.parametrize("heartbeat_at_s", [25.0, 15.0])
def test_nothing_runs_out_that_was_heard_elsewhere(heartbeat_at_s: float) -> None:
    """Even if the clock there is behind."""
    heard = Lease("b", "other-pop", registered_at_s=10.0, heartbeat_at_s=heartbeat_at_s, expired=False)
    for operation in (expiry("b", known_at_s=20.0), removal("b", known_at_s=20.0)):
        assert operation({"b": ROW}, heard) == HeardElsewhere(heard)


def test_renewal_stores_the_heartbeat_and_the_owner() -> None:
    decision = renewal("b", at_s=30.0, owner="pop")({"b": ROW}, LEASE)
    assert decision == LeaseWrite(
        "b", None, Lease("b", "pop", registered_at_s=10.0, heartbeat_at_s=30.0, expired=False)
    )


@pytest.mark.parametrize(("table", "lease"), [({}, LEASE), ({"b": GONE}, LEASE), ({"b": ROW}, None)])
def test_lease_without_a_row_or_row_without_a_lease_has_ended(
    table: Mapping[str, Row], lease: Lease | None
) -> None:
    operations = [
        renewal("b", at_s=30.0, owner="pop"),
        expiry("b", known_at_s=20.0),
        removal("b", known_at_s=20.0),
    ]
    for operation in operations:
        assert operation(table, lease) == Ended()
