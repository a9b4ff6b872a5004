"""The clients' buckets in shared memory hold testkit's contract of rate limiters."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.worker.client_buckets import ClientBuckets
from edgeproxy.worker.shared_state import SharedState, create_segment
from testkit.contracts.rate_limiter import RateLimiterContract

TAGS = {"a": 7, "b": 8}


class Limiter:
    def __init__(self, clients: ClientBuckets, terms: TokenBucket) -> None:
        self._clients = clients
        self._terms = terms

    def take(self, client: str, now_s: float, cost: float = 1.0) -> bool:
        return self._clients.take(self._terms, TAGS[client], now_s, cost)

    def remaining(self, client: str, now_s: float) -> float:
        return self._clients.remaining(self._terms, TAGS[client], now_s)

    def clear(self, client: str) -> None:
        self._clients.clear(TAGS[client])


class Harness:
    def __init__(self, clients: ClientBuckets) -> None:
        self._clients = clients

    def open(self, burst: float, per_s: float) -> Limiter:
        return Limiter(self._clients, TokenBucket(burst, per_s))


class TestClientBuckets(RateLimiterContract):
    @pytest.fixture
    def harness(self) -> Iterator[Harness]:
        segment = create_segment(1, 8, clients_capacity=16)
        yield Harness(SharedState(segment).clients)
        os.close(segment)
