"""A backend hangs, as a process does that is stopped: its kernel goes on accepting, nobody answers."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import pytest

from e2e.pop import Pop
from e2e.processes import LocalPop
from testkit.faults.vocabulary import Pause
from testkit.wait import wait_until

_INTERVAL_S, _TIMEOUT_S, _FALL = 0.5, 0.3, 3
_PROMISE_S = _FALL * _INTERVAL_S + _TIMEOUT_S
_SLOW_START_S = 600
"""So long that the weight stays at its first tenth for the whole story."""


@pytest.mark.feature("health.checks", "health.slow_start")
@pytest.mark.planted(health_check_enabled="false")
def test_a_hung_backend_gets_no_client_until_it_answers_and_then_a_few_at_first(pop: Pop) -> None:
    names = ("mock-eu-1", "mock-eu-2", "mock-eu-3")
    backends = pop.start_backends(dict.fromkeys(names, "DE"))
    pop.configure(
        health_check_enabled="true",
        health_check_type="http",
        health_check_interval_secs=str(_INTERVAL_S),
        health_check_fast_interval_secs=str(_INTERVAL_S),
        health_check_timeout_secs=str(_TIMEOUT_S),
        health_unhealthy_threshold=str(_FALL),
        slow_start_secs=str(_SLOW_START_S),
    )
    proxy = pop.start_proxy()
    hung = backends["mock-eu-1"]

    pop.step("the backend hangs")
    hung.inject(Pause())
    wait_until(
        pop.left_out, reason="the hung backend to be left out", timeout_s=10 * _PROMISE_S, interval_s=0.2
    )
    assert pop.left_out() == {"mock-eu-1": f"failing its checks: no answer within {_TIMEOUT_S} s"}
    assert {pop.client("DE", number).ask(proxy) for number in range(1, 21)} == set(names[1:])

    pop.step("the backend is back")
    hung.recover()
    wait_until(
        lambda: not pop.left_out(), reason="the backend to be back", timeout_s=10 * _PROMISE_S, interval_s=0.2
    )
    (warming,) = (each for each in pop.explain(pop.client("").address)["candidates"] if each["verdict"])
    assert (warming["backend"], warming["verdict"]) == ("mock-eu-1", "slow start at 10 %")

    # Held open, connections go where there is least load; a tenth of the weight carries a tenth of them.
    with ExitStack() as held:
        answers = Counter(
            held.enter_context(pop.client("DE", number).connect(proxy)).ask() for number in range(31, 52)
        )
    assert answers == {"mock-eu-1": 1, "mock-eu-2": 10, "mock-eu-3": 10}


@pytest.mark.feature("health.circuit")
@pytest.mark.blank(containers="a host that is gone refuses nobody; its silence is a story of its own")
@pytest.mark.planted(circuit_breaker_enabled="false")
def test_a_backend_that_refuses_clients_is_ejected_and_returns_by_itself(local_pop: LocalPop) -> None:
    pop = local_pop
    backends = pop.start_backends({"mock-eu-1": "FR", "mock-eu-2": "DE"})
    pop.configure(
        circuit_breaker_enabled="true",
        circuit_failure_threshold="3",
        circuit_success_threshold="1",
        circuit_timeout_secs="1",
        slow_start_secs="0",
    )
    backends["mock-eu-2"].stop()
    proxy = pop.start_proxy()
    german = (pop.client("DE", number) for number in range(1, 255))

    assert [next(german).ask(proxy) for _ in range(3)] == ["mock-eu-1"] * 3, "nobody is turned away"
    wait_until(lambda: proxy.events("a backend is ejected"), reason="the ejection")

    backends["mock-eu-2"].recover()
    wait_until(lambda: next(german).ask(proxy) == "mock-eu-2", reason="it to be tried again", interval_s=0.2)
    wait_until(lambda: proxy.events("a backend is readmitted"), reason="its return")
