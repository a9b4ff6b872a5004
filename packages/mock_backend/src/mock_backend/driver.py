"""Drives a mock backend over its admin API: one in this process, as a process, or in a container."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from mock_backend.journal import Entry, select

_TIMEOUT_S = 30.0
_LONGEST_WAIT_S = 20.0


class DriverError(Exception):
    """The admin API refused a call; says why."""


class Driver:
    """The admin API at an address. Each call is a connection of its own, so that any thread may call.

    Every method raises `DriverError` when the API refuses, `OSError` when nobody answers.
    """

    def __init__(self, host: str, port: int, token: str | None = None) -> None:
        self.host = host
        self.port = port
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def status(self) -> dict[str, Any]:
        """Return identity, ports, state, script, faults, counts, and requests by client."""
        return self._call("GET", "/status")

    def set_state(self, state: str) -> None:
        """Set one of ready, unready, draining, hung, refusing, not-listening."""
        self._call("PUT", "/state", {"state": state})

    def set_script(self, text: str) -> None:
        """Set what is done with connections from now on; see `mock_backend.scripts`."""
        self._call("PUT", "/script", {"script": text})

    def set_faults(self, text: str, seed: int = 0) -> None:
        """Set what is done to requests from now on; see `mock_backend.faults`."""
        self._call("PUT", "/faults", {"faults": text, "seed": seed})

    def reset(self) -> None:
        """Be ready, without script, faults, counts by client, and entries."""
        self._call("POST", "/reset")

    def forget(self) -> None:
        """Drop the journal's entries."""
        self._call("DELETE", "/journal")

    def journal(self, after: int = 0, **wanted: object) -> list[Entry]:
        """Return the entries after this number of which every field named has this value."""
        return select(self._entries(after, 0), **wanted)  # feature: testing.mock_backend.journal

    def wait_for(
        self, count: int = 1, *, timeout_s: float = 10.0, after: int = 0, **wanted: object
    ) -> list[Entry]:
        """Wait until the journal has ``count`` such entries, and return them.

        Raises:
            TimeoutError: it has not in time; tells what it has.
        """
        deadline_s = time.monotonic() + timeout_s
        found: list[Entry] = []
        seen: list[Entry] = []
        while True:
            left_s = deadline_s - time.monotonic()
            seen += self._entries(seen[-1].number if seen else after, max(0.0, left_s))
            found = select(seen, **wanted)
            if len(found) >= count:
                return found
            if left_s <= 0:
                raise TimeoutError(
                    f"{len(found)} of {count} entries with {wanted}; the last of all: {seen[-20:]}"
                )

    def _entries(self, after: int, wait_s: float) -> list[Entry]:
        wait_ms = int(min(wait_s, _LONGEST_WAIT_S) * 1000)
        answer = self._call("GET", f"/journal?after={after}&wait_ms={wait_ms}")
        return [Entry.from_json(values) for values in answer["entries"]]

    def _call(self, method: str, path: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT_S)
        try:
            body = None if values is None else json.dumps(values)
            connection.request(method, path, body, self.headers)
            answer = connection.getresponse()
            told: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise DriverError(f"{method} {path}: {answer.status}: {told.get('error')}")
        return told
