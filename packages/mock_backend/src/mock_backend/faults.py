"""Faults: latency and errors put into answers, always or for a share of requests, drawn by a seed. Pure.

::

    every request: delay 20 ms
    10 % of requests to /api/*: delay 50-80 ms, status 503
    requests to /api/latency: reset

All statements that fit a request apply: delays add up, and the first error ends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random
from typing import Literal

from mock_backend.language import DURATION, Statement, read_statements, seconds

Cut = Literal["reset", "close"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request: it waits, then gets this status, or its connection is cut, or neither."""

    delay_s: float = 0.0
    status: int | None = None
    cut: Cut | None = None


NO_FAULT = Fault()


@dataclass(frozen=True, slots=True)
class _Rule:
    path: str
    share: float
    delay_s: tuple[float, float]
    status: int | None
    cut: Cut | None


class Faults:
    """What happens to each request.

    Each draw depends on the seed, the statement and the number of the request alone, so a run is repeated
    however its requests overlap.

    Raises:
        LanguageError: the text cannot be understood.
    """

    def __init__(self, text: str = "", seed: int = 0) -> None:
        self.text = text
        self.seed = seed
        self._rules = tuple(map(_rule, read_statements(text)))

    def draw(self, number: int, path: str) -> Fault:
        """Return what happens to the request of this number, from 1."""
        if not self._rules:
            return NO_FAULT
        delay_s, status, cut = 0.0, None, None
        for index, rule in enumerate(self._rules):
            if not fnmatchcase(path, rule.path):
                continue
            draws = Random(f"{self.seed}/{index}/{number}")
            if draws.random() >= rule.share:
                continue
            delay_s += draws.uniform(*rule.delay_s)  # feature: testing.mock_backend.faults
            if status is None and cut is None:
                status, cut = rule.status, rule.cut
        return Fault(delay_s, status, cut)


_SELECTOR = re.compile(
    r"(?P<every>every request)|(?:(?P<share>\d{1,3}(?:\.\d{1,6})?) ?% of )?requests(?: to (?P<path>/\S*))?"
)
_DELAY = re.compile(rf"delay {DURATION}")
_STATUS = re.compile(r"status (?P<status>[2-5]\d\d)")


def _rule(statement: Statement) -> _Rule:
    found = _SELECTOR.fullmatch(statement.selector)
    if found is None or float(found["share"] or 0) > 100:
        raise statement.error(
            f"{statement.selector!r} is none of: every request, requests to /api/*, 10 % of requests, "
            "0.5 % of requests to /api/info"
        )
    delay_s: tuple[float, float] = (0.0, 0.0)
    ends: list[tuple[int | None, Cut | None]] = []
    for part in statement.parts:
        if delay := _DELAY.fullmatch(part):
            try:
                delay_s = seconds(delay)
            except ValueError as error:
                raise statement.error(str(error)) from error
        elif status := _STATUS.fullmatch(part):
            ends.append((int(status["status"]), None))
        elif part == "reset" or part == "close":
            ends.append((None, "reset" if part == "reset" else "close"))
        else:
            raise statement.error(
                f"{part!r} is none of: delay 20 ms, delay 20-80 ms, status 503, reset, close"
            )
    if len(ends) > 1:
        raise statement.error("a request ends in one way: status, reset or close")
    status_or_none, cut = ends[0] if ends else (None, None)
    share = float(found["share"]) / 100 if found["share"] else 1.0
    return _Rule(found["path"] or "*", share, delay_s, status_or_none, cut)
