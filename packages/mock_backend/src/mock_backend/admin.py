"""The admin API's calls: a request in, status and JSON out. Its port and waiting are the server's.

======================== ====================================================================================
``GET /status``          identity, ports, state, script, faults, counts, requests by client
``PUT /state``           ``{"state": "unready"}``
``PUT /script``          ``{"script": "connection 3: accept, read 10 bytes, reset"}``
``PUT /faults``          ``{"faults": "10 % of requests: status 503", "seed": 7}``
``GET /journal``         ``{"entries": […], "dropped": 0, "last": 12}``; ``?after=12`` those after number 12,
                         ``&wait_ms=1000`` and wait for the first as long as that
``DELETE /journal``      forgets the entries
``POST /reset``          ready, no script, no faults, no counts, no entries
======================== ====================================================================================

Wrong ones get 400, 401 (without the token, where one is set), 404, 405, 409 or 413, with ``{"error": …}`` in
one line.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mock_backend.gate import ListenError
from mock_backend.instrument import Instrument, State

MAX_BODY_BYTES = 256 << 10
MAX_WAIT_MS = 60_000

Json = dict[str, Any]


class RefusedError(Exception):
    """A call is wrong; has the status and one line that says why."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


@dataclass(frozen=True, slots=True)
class Wait:
    """The journal is asked for: entries after this number, for which may be waited so long."""

    after: int
    timeout_s: float


class Admin:
    """The calls, on one instrument; ``identity`` is what ``/status`` begins with."""

    def __init__(self, instrument: Instrument, identity: Callable[[], Json], token: str | None) -> None:
        self._instrument = instrument
        self._identity = identity
        self._token = token
        self._calls: dict[str, dict[str, Callable[[Mapping[str, str], bytes], Json | Wait]]] = {
            "/status": {"GET": self._status},
            "/state": {"PUT": self._set_state},
            "/script": {"PUT": self._set_script},
            "/faults": {"PUT": self._set_faults},
            "/journal": {"GET": self._journal, "DELETE": self._forget},
            "/reset": {"POST": self._reset},
        }

    def call(
        self, method: str, path: str, query: Mapping[str, str], body: bytes, authorization: str | None
    ) -> Json | Wait:
        """Do one call.

        Raises:
            RefusedError: it is wrong; nothing was changed.
        """
        if self._token is not None:
            expected = f"Bearer {self._token}".encode()
            if not hmac.compare_digest(expected, (authorization or "").encode("utf-8", "surrogateescape")):
                raise RefusedError(401, "give the admin token: Authorization: Bearer TOKEN")
        methods = self._calls.get(path)
        if methods is None:
            raise RefusedError(404, f"try {', '.join(self._calls)}")
        if method not in methods:
            raise RefusedError(405, f"try {', '.join(methods)}")
        try:
            return methods[method](query, body)
        except ListenError as error:
            raise RefusedError(409, str(error)) from error
        except ValueError as error:
            raise RefusedError(400, str(error)) from error

    def _status(self, _query: Mapping[str, str], _body: bytes) -> Json:
        instrument = self._instrument
        faults, seed = instrument.faults
        return {
            **self._identity(),
            "state": instrument.state.value,
            "script": instrument.script,
            "faults": faults,
            "seed": seed,
            "connections": instrument.connections,
            "open_connections": instrument.open_connections,
            "requests": instrument.requests,
            "clients": dict(instrument.clients),
        }

    def _set_state(self, _query: Mapping[str, str], body: bytes) -> Json:
        wanted = _text(read_body(body, "state"), "state")
        if wanted not in {state.value for state in State}:
            raise ValueError(f"{wanted[:100]!r} is none of {', '.join(state.value for state in State)}")
        self._instrument.set_state(State(wanted))
        return {"state": wanted}

    def _set_script(self, _query: Mapping[str, str], body: bytes) -> Json:
        self._instrument.set_script(_text(read_body(body, "script"), "script"))
        return {"script": self._instrument.script}

    def _set_faults(self, _query: Mapping[str, str], body: bytes) -> Json:
        wanted = read_body(body, "faults", "seed")
        seed = wanted.get("seed", 0)
        if type(seed) is not int or not 0 <= seed < 1 << 64:
            raise ValueError("'seed' must be a number from 0 to 2**64 - 1")
        self._instrument.set_faults(_text(wanted, "faults"), seed)
        return {"faults": self._instrument.faults[0], "seed": seed}

    def _journal(self, query: Mapping[str, str], _body: bytes) -> Wait:
        after = _whole(query, "after", 1 << 53)
        return Wait(after, _whole(query, "wait_ms", MAX_WAIT_MS) / 1000)

    def _forget(self, _query: Mapping[str, str], _body: bytes) -> Json:
        self._instrument.journal.clear()
        return {}

    def _reset(self, _query: Mapping[str, str], _body: bytes) -> Json:
        self._instrument.reset()
        return {}

    async def entries(self, wait: Wait) -> Json:
        """Return what of the journal was asked for, when there is any or the time is over."""
        found = (
            await self._instrument.entries_after(wait.after, wait.timeout_s)
            if wait.timeout_s
            else self._instrument.journal.entries(wait.after)
        )
        journal = self._instrument.journal
        return {
            "entries": [entry.as_json() for entry in found],
            "dropped": journal.dropped,
            "last": journal.last_number,
        }


def read_body(body: bytes, *allowed: str) -> Json:
    """Read a JSON object that has none but these fields.

    Raises:
        ValueError: it is something else; says what.
    """
    try:
        values = json.loads(body.decode("utf-8"))
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(values, dict):
        raise ValueError(f"the body is no JSON object with {', '.join(allowed)}")
    if unknown := values.keys() - set(allowed):
        raise ValueError(
            f"unknown: {', '.join(sorted(map(repr, unknown)))[:200]}; there is {', '.join(allowed)}"
        )
    return values


def _text(values: Json, name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name!r} must be a string")
    return value


def _whole(query: Mapping[str, str], name: str, greatest: int) -> int:
    text = query.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 18 and int(text) <= greatest):
        raise ValueError(f"{name}={text[:50]!r} is no number from 0 to {greatest}")
    return int(text)
