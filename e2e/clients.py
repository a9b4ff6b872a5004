"""Clients of the stories: plain sockets bound to an address, and what came back on them."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Self

from e2e.processes import Proxy
from e2e.world import address_in

TIMEOUT_S = 20.0


class Connection(http.client.HTTPConnection):
    """One connection through the proxy; each :meth:`ask` is a request on it."""

    def ask(self) -> str:
        """Send a request and return the id of the backend that answered.

        Raises:
            OSError: refused, reset, or ended without an answer.
        """
        self.request("GET", "/api/latency")
        return self.answer()

    def answer(self) -> str:
        """Wait for the answer to what was sent and return the id of the backend that gave it."""
        response = self.getresponse()
        response.read()
        assert response.status == 200
        backend = response.getheader("X-Backend-ID")
        assert backend is not None
        return backend

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody at an address; comes back with the same address each time."""

    address: str

    @classmethod
    def of(cls, country: str, number: int = 1) -> Self:
        return cls(address_in(country, number))

    def connect(self, proxy: Proxy) -> Connection:
        """Connect to the proxy, and send nothing yet."""
        connection = Connection(proxy.host, proxy.port, timeout=TIMEOUT_S, source_address=(self.address, 0))
        connection.connect()
        return connection

    def ask(self, proxy: Proxy) -> str:
        """Connect, send a request, and return the id of the backend that answered."""
        with self.connect(proxy) as connection:
            return connection.ask()
