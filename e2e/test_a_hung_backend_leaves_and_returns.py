"""A backend hangs, as a process does that is stopped: its kernel goes on accepting, nobody answers."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import ExitStack

import pytest

from e2e.clients import Client
from e2e.processes import Pop
from testkit.wait import wait_until

_INTERVAL_S, _TIMEOUT_S, _FALL = 0.5, 0.3, 3
_PROMISE_S = _FALL * _INTERVAL_S + _TIMEOUT_S
_SLOW_START_S = 600
"""So long that the weight stays at its first tenth for the whole story."""


@pytest.mark.feature("health.checks", "health.slow_start")
def test_a_hung_backend_gets_no_client_until_it_answers_and_then_a_few_at_first(pop: Pop) -> None:
    names = ("mock-de-1", "mock-de-2", "mock-de-3")
    backends = pop.start_backends(*((name, "eu", "DE") for name in names))
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
    hung = backends["mock-de-1"]

    def left_out() -> dict[str, str]:
        candidates = pop.explain("127.0.3.254")["candidates"]
        return {each["backend"]: each["left_out"] for each in candidates if each["left_out"]}

    hung.process.kill(signal.SIGSTOP)
    wait_until(left_out, reason="the hung backend to be left out", timeout_s=10 * _PROMISE_S)
    assert left_out() == {"mock-de-1": f"failing its checks: no answer within {_TIMEOUT_S} s"}
    assert {Client.of("DE", number).ask(proxy) for number in range(1, 31)} == set(names[1:])

    hung.process.kill(signal.SIGCONT)
    wait_until(lambda: not left_out(), reason="the backend to be back", timeout_s=10 * _PROMISE_S)
    (warming,) = (each for each in pop.explain("127.0.3.254")["candidates"] if each["verdict"])
    assert (warming["backend"], warming["verdict"]) == ("mock-de-1", "slow start at 10 %")

    # Held open, connections go where there is least load; a tenth of the weight carries a tenth of them.
    with ExitStack() as held:
        answers = Counter(
            held.enter_context(Client.of("DE", number).connect(proxy)).ask() for number in range(101, 122)
        )
    assert answers == {"mock-de-1": 1, "mock-de-2": 10, "mock-de-3": 10}


@pytest.mark.feature("health.circuit")
def test_a_backend_that_refuses_clients_is_ejected_and_returns_by_itself(pop: Pop, port: int) -> None:
    pop.start_backends(("mock-fr", "eu", "FR"))
    pop.add_rows(("mock-de", "eu", "DE", port, 0))
    pop.configure(
        circuit_breaker_enabled="true",
        circuit_failure_threshold="3",
        circuit_success_threshold="1",
        circuit_timeout_secs="1",
        slow_start_secs="0",
    )
    proxy = pop.start_proxy()
    german = (Client.of("DE", number) for number in range(1, 255))

    assert [next(german).ask(proxy) for _ in range(3)] == ["mock-fr"] * 3, "nobody is turned away"
    wait_until(lambda: proxy.events("a backend is ejected"), reason="the ejection")

    pop.start_backend("mock-de", "eu", port=port)
    wait_until(lambda: next(german).ask(proxy) == "mock-de", reason="it to be tried again", interval_s=0.2)
    wait_until(lambda: proxy.events("a backend is readmitted"), reason="its return")
