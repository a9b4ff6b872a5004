"""The circuit of one backend holds testkit's contract of circuit breakers."""

from __future__ import annotations

import pytest

from edgeproxy.core.controlplane.outlier import Circuit, CircuitSettings
from edgeproxy.core.controlplane.outlier import State as CircuitState
from testkit.contracts.circuit_breaker import CircuitBreakerContract, State, Terms


class Breaker:
    """A call is a connection: it fails with its connect, it succeeds when something comes over it."""

    def __init__(self, terms: Terms) -> None:
        self._circuit = Circuit(
            CircuitSettings(
                failure_threshold=terms.failures,
                success_threshold=terms.successes,
                timeout_s=terms.open_s,
                window_s=terms.window_s,
            )
        )
        self._permits = 0

    def allows(self, now_s: float) -> bool:
        match self.state(now_s):
            case State.CLOSED:
                return True
            case State.OPEN:
                return False
        # As a worker does, which is told how many to let through whenever a trial begins.
        self._permits -= 1
        return self._permits >= 0

    def succeeded(self, now_s: float) -> None:
        self.state(now_s)
        self._circuit.connected(now_s)
        self._circuit.served()

    def failed(self, now_s: float) -> None:
        self.state(now_s)
        self._circuit.connect_failed(now_s)

    def state(self, now_s: float) -> State:
        if self._circuit.advance(now_s):
            self._permits = self._circuit._settings.success_threshold
        return {
            CircuitState.CLOSED: State.CLOSED,
            CircuitState.OPEN: State.OPEN,
            CircuitState.HALF_OPEN: State.HALF_OPEN,
        }[self._circuit.state]


class Harness:
    def open(self, terms: Terms) -> Breaker:
        return Breaker(terms)


@pytest.mark.feature("health.circuit")
class TestCircuit(
    CircuitBreakerContract,
    level=2,
    lacks={"constant": "the open time grows with the ejections, and is forgiven with time"},
):
    @pytest.fixture
    def harness(self) -> Harness:
        return Harness()
