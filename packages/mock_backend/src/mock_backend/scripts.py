"""Scripts: what is done with the third connection, instead of serving it. Pure.

::

    connection 3: accept, read 10 bytes, reset
    connections 4-6: wait 200 ms, serve
    connections 7-: send "220 hello\\r\\n", read to the end, close
    every 5th connection: hang
    every connection: serve

Connections are counted from when the script was set; the first statement that names one decides, and a
connection that none names is served. A script sees the bytes as they come from the wire: PROXY header and TLS
are read by ``serve`` alone. What hangs does so until the instrument is reset.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum

from mock_backend.language import DURATION, Statement, read_statements, seconds

MAX_READ_BYTES = 1 << 30


class Verb(Enum):
    """What a step does; those from ``SERVE`` on end a script."""

    ACCEPT = "accept"
    READ = "read"
    READ_TO_THE_END = "read to the end"
    SEND = "send"
    WAIT = "wait"
    HALF_CLOSE = "half-close"
    SERVE = "serve"
    ECHO = "echo"
    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"

    @property
    def final(self) -> bool:
        return self in (Verb.SERVE, Verb.ECHO, Verb.CLOSE, Verb.RESET, Verb.HANG)


@dataclass(frozen=True, slots=True)
class Step:
    """One step; of ``bytes_count``, ``data`` and ``wait_s`` at most one is set."""

    verb: Verb
    bytes_count: int = 0
    data: bytes = b""
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Line:
    first: int
    last: int | None
    every: int
    steps: tuple[Step, ...]

    def names(self, number: int) -> bool:
        return self.first <= number <= (self.last or number) and number % self.every == 0


class Script:
    """What is done with each connection.

    Raises:
        LanguageError: the text cannot be understood.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = tuple(map(_line, read_statements(text)))

    def steps(self, number: int) -> tuple[Step, ...] | None:
        """Return the steps for the connection of this number, from 1; ``None``: serve it."""
        return next((line.steps for line in self._lines if line.names(number)), None)


_PLAIN = {verb.value: verb for verb in Verb if verb not in (Verb.READ, Verb.SEND, Verb.WAIT)}
_READ = re.compile(r"read (?P<count>\d{1,10}) bytes?")
_SEND = re.compile(r'send (?P<string>".*")')
_WAIT = re.compile(rf"wait {DURATION}")
_SELECTOR = re.compile(
    r"(?P<every>every connection)|connection (?P<one>\d{1,9})|every (?P<nth>\d{1,9})(st|nd|rd|th) connection"
    r"|connections (?P<first>\d{1,9})-(?P<last>\d{1,9})?"
)


def _line(statement: Statement) -> _Line:
    steps = tuple(_step(statement, part) for part in statement.parts)
    for step in steps[:-1]:
        if step.verb.final:
            raise statement.error(f"nothing can follow {step.verb.value!r}")
    found = _SELECTOR.fullmatch(statement.selector)
    if found is None:
        raise statement.error(
            f"{statement.selector!r} is none of: connection 3, connections 4-6, connections 7-, "
            "every 5th connection, every connection"
        )
    if found["one"]:
        line = _Line(int(found["one"]), int(found["one"]), 1, steps)
    elif found["first"]:
        line = _Line(int(found["first"]), int(found["last"]) if found["last"] else None, 1, steps)
    else:
        line = _Line(1, None, int(found["nth"] or 1), steps)
    if line.first < 1 or line.every < 1 or (line.last is not None and line.last < line.first):
        raise statement.error(f"{statement.selector!r} names no connection; they count from 1")
    return line


def _step(statement: Statement, part: str) -> Step:
    if part in _PLAIN:
        return Step(_PLAIN[part])
    if (found := _READ.fullmatch(part)) and 0 < int(found["count"]) <= MAX_READ_BYTES:
        return Step(Verb.READ, bytes_count=int(found["count"]))
    if found := _SEND.fullmatch(part):
        try:
            return Step(Verb.SEND, data=str(json.loads(found["string"])).encode("latin-1"))
        except ValueError as error:
            raise statement.error(f"{part!r}: {error}") from error
    if (found := _WAIT.fullmatch(part)) and found["up_to"] is None:
        try:
            return Step(Verb.WAIT, wait_s=seconds(found)[0])
        except ValueError as error:
            raise statement.error(str(error)) from error
    raise statement.error(
        f"{part!r} is none of: {', '.join(_PLAIN)}, read 10 bytes (up to {MAX_READ_BYTES}), "
        'send "text", wait 20 ms'
    )
