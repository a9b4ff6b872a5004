"""What a member knows: for each origin a prefix without gaps, and ranges beyond it that came out of order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from edgeproxy.core.replication.messages import Ranges
from edgeproxy.core.replication.model import Dot

Spans = tuple[tuple[int, int], ...]
"""First and last of each range, ascending, never touching."""


class Known:
    """A set of dots. It changes by :meth:`add` and :meth:`learn` only, and never forgets."""

    __slots__ = ("_spans",)

    def __init__(self, ranges: Ranges | None = None) -> None:
        """Ranges from another machine may touch, overlap or be out of order: they are put right."""
        self._spans: dict[str, Spans] = {}
        if ranges is not None:
            self.learn(ranges)

    @property
    def ranges(self) -> Mapping[str, Spans]:
        """As it is sent; what is returned does not change afterwards."""
        return dict(self._spans)

    def add(self, dot: Dot) -> bool:
        """Learn one dot; false when it was known."""
        spans = self._spans.get(dot.origin, ())
        if _within(spans, dot.sequence):
            return False
        if spans and len(spans) == 1 and spans[0][1] + 1 == dot.sequence:
            self._spans[dot.origin] = ((spans[0][0], dot.sequence),)
        else:
            self._spans[dot.origin] = _joined((*spans, (dot.sequence, dot.sequence)))
        return True

    def learn(self, ranges: Ranges) -> None:
        """Learn everything in these."""
        for origin, theirs in ranges.items():
            mine = self._spans.get(origin, ())
            if mine != theirs and (spans := _joined((*mine, *theirs))):
                self._spans[origin] = spans

    def has(self, dot: Dot) -> bool:
        """Whether a dot is known."""
        return _within(self._spans.get(dot.origin, ()), dot.sequence)

    def covers(self, ranges: Ranges) -> bool:
        """Whether everything in these is known."""
        for origin, theirs in ranges.items():
            mine = self._spans.get(origin, ())
            if mine != theirs and difference(theirs, mine):
                return False
        return True

    def lacks(self, ranges: Ranges) -> dict[str, Spans]:
        """What of these is not known."""
        return lacking(ranges, self._spans)

    def last(self, origin: str) -> int:
        """The greatest number known of an origin, 0 when there is none."""
        spans = self._spans.get(origin, ())
        return spans[-1][1] if spans else 0


def lacking(ranges: Ranges, known: Ranges) -> dict[str, Spans]:
    """What of ``ranges`` is not in ``known``."""
    return {
        origin: missing
        for origin, spans in ranges.items()
        if (mine := known.get(origin, ())) != spans and (missing := difference(spans, mine))
    }


def common(all_ranges: Iterable[Ranges]) -> dict[str, Spans]:
    """What is in every one of these, of which there is at least one."""
    first, *others = all_ranges
    result = dict(first)
    for ranges in others:
        for origin, spans in list(result.items()):
            theirs = ranges.get(origin, ())
            if theirs != spans:
                # What is in both is what is left of one without what the other lacks of it.
                shared = difference(spans, difference(spans, theirs))
                if shared:
                    result[origin] = shared
                else:
                    del result[origin]
    return result


def bounded(ranges: Ranges, limit: int) -> dict[str, Spans]:
    """The first so many ranges of these."""
    result: dict[str, Spans] = {}
    for origin, spans in ranges.items():
        if limit <= 0:
            break
        result[origin] = tuple(spans[:limit])
        limit -= len(result[origin])
    return result


def difference(spans: Spans, without: Spans) -> Spans:
    """What of ``spans`` is not in ``without``."""
    result = []
    for first, last in spans:
        start = first
        for other_first, other_last in without:
            if other_last < start:
                continue
            if other_first > last:
                break
            if start < other_first:
                result.append((start, other_first - 1))
            start = other_last + 1
        if start <= last:
            result.append((start, last))
    return tuple(result)


def _within(spans: Spans, sequence: int) -> bool:
    place = bisect_right(spans, sequence, key=_first) - 1
    return place >= 0 and sequence <= spans[place][1]


def _joined(spans: Iterable[tuple[int, int]]) -> Spans:
    """Put in order, made one where they touch or overlap; what begins below 1 or is empty is left out."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if first < 1 or last < first:
            continue
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], last))
        else:
            result.append((first, last))
    return tuple(result)


def _first(span: tuple[int, int]) -> int:
    return span[0]
