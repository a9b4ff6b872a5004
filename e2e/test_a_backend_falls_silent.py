"""The network between the POP and a backend fails: unplugged, or losing packets."""

from __future__ import annotations

import pytest

from e2e.hosts.pop import HostPop
from e2e.pop import Pop
from testkit.faults.vocabulary import UP, Loss, Partition
from testkit.wait import wait_until

_INTERVAL_S, _TIMEOUT_S, _FALL = 0.3, 0.5, 2
_PROMISE_S = _FALL * (_INTERVAL_S + _TIMEOUT_S)


@pytest.mark.planted(health_check_enabled="false")
def test_a_backend_that_is_cut_off_is_left_out_and_returns_with_its_network(pop: Pop) -> None:
    backends = pop.start_breakable_backends({"mock-eu-1": "DE", "mock-eu-2": "FR", "mock-us-1": "US"})
    pop.configure(
        pool_connect_timeout_secs="0.5",
        retry_budget_percent="100",
        health_check_enabled="true",
        health_check_interval_secs=str(_INTERVAL_S),
        health_check_fast_interval_secs=str(_INTERVAL_S),
        health_check_timeout_secs=str(_TIMEOUT_S),
        health_unhealthy_threshold=str(_FALL),
        health_healthy_threshold="1",
        slow_start_secs="0",
    )
    proxy = pop.start_proxy()
    assert pop.client("DE", 1).ask(proxy) == "mock-eu-1"

    pop.step("the backend's host is unplugged")
    backends["mock-eu-1"].inject(Partition())
    # Before any check has failed, a client whose connect is not answered is served by another.
    assert pop.client("DE", 2).ask(proxy) == "mock-eu-2"
    wait_until(pop.left_out, reason="the backend to be left out", timeout_s=10 * _PROMISE_S, interval_s=0.2)
    assert list(pop.left_out()) == ["mock-eu-1"]
    assert {pop.client("DE", number).ask(proxy) for number in range(3, 9)} == {"mock-eu-2"}

    pop.step("it is plugged in again")
    backends["mock-eu-1"].recover()
    wait_until(
        lambda: not pop.left_out(), reason="the backend to be back", timeout_s=10 * _PROMISE_S, interval_s=0.2
    )
    assert {pop.client("DE", number).ask(proxy) for number in range(9, 12)} == {"mock-eu-1"}


@pytest.mark.blank(processes="what a fault link relays to a process is a stream, which loses no packets")
@pytest.mark.planted(idle_timeout_secs="0.05")
def test_a_third_of_the_packets_lost_costs_time_and_no_answer(host_pop: HostPop) -> None:
    pop = host_pop
    backends = pop.start_backends({"mock-eu-1": "DE"})
    pop.configure(pool_connect_timeout_secs="30")
    proxy = pop.start_proxy()
    assert pop.client("DE").ask(proxy) == "mock-eu-1"

    pop.step("the backend's host loses packets")
    backends["mock-eu-1"].inject(Loss(0.3, direction=UP))
    with pop.client("DE").connect(proxy) as connection:
        assert [connection.ask() for _ in range(15)] == ["mock-eu-1"] * 15
    lost = pop.world.backends["mock-eu-1"].packets_lost()
    assert lost > 0, "the story is about packets that are lost"
