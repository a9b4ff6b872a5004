"""The harness on parsers with a planted defect: it is found, made small and repeatable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from edgeproxy.core.wire.prefix import Malformed, Verdict
from packages.proxy.tests.fuzz import __main__ as command
from packages.proxy.tests.fuzz import engine, regressions
from packages.proxy.tests.fuzz.engine import Finding, Outcome, draw, examine, examine_range, minimise
from packages.proxy.tests.fuzz.properties import Target, prefix_reader, stream_reader, whole_parser
from packages.proxy.tests.fuzz.targets import TARGETS
from packages.proxy.tests.fuzz.values import draw_value

# Parsers are covered by the tests that say what they do.
pytestmark = [pytest.mark.untraced, pytest.mark.usefixtures("unmeasured")]

SAMPLE = b"LEN\x05hello"


def read_sound(prefix: bytes) -> bytes | Malformed | Verdict:
    """``LEN``, the length of a text in a byte, the text; "!" is forbidden in it."""
    if not prefix.startswith(b"LEN"):
        return Verdict.NEED_MORE if b"LEN".startswith(prefix) else Verdict.OTHER_PROTOCOL
    if len(prefix) < 4 or len(prefix) < 4 + prefix[3]:
        return Verdict.NEED_MORE
    text = prefix[4 : 4 + prefix[3]]
    return Malformed("!") if b"!" in text else text


def raises(prefix: bytes) -> bytes | Malformed | Verdict:
    """As from a length that is trusted."""
    found = read_sound(prefix)
    if isinstance(found, bytes):
        found[4]
    return found


def decides_too_early(prefix: bytes) -> bytes | Malformed | Verdict:
    return prefix[4:] if read_sound(prefix) is Verdict.NEED_MORE and len(prefix) > 6 else read_sound(prefix)


def looks_at_what_follows(prefix: bytes) -> bytes | Malformed | Verdict:
    found = read_sound(prefix)
    return prefix[4:] if isinstance(found, bytes) else found


def never_decides(prefix: bytes) -> bytes | Malformed | Verdict:
    return Verdict.NEED_MORE


def reader(
    read: Callable[[bytes], bytes | Malformed | Verdict],
    check_value: Callable[[bytes, bytes], None] = lambda _value, _data: None,
) -> Target:
    return prefix_reader("planted", lambda _rng: SAMPLE, read, 4 + 255, check_value)


def finding_of(target: Target) -> Finding:
    finding = examine_range(target, 1, range(2000)).finding
    assert finding is not None
    return finding


class TestFindings:
    def test_of_a_sound_parser_there_are_none(self) -> None:
        outcome = examine_range(reader(read_sound), 1, range(2000))
        assert (outcome.inputs, outcome.finding) == (2000, None)
        assert 200 < outcome.accepted < 1800

    def test_exceptions_are_made_small_and_repeatable(self) -> None:
        target = reader(raises)
        finding = finding_of(target)
        assert finding.data == b"LEN\x00"
        assert finding.error.startswith("IndexError")
        assert examine(target, finding.seed, finding.number).finding == finding

    @pytest.mark.parametrize(
        ("read", "error"),
        [
            (decides_too_early, " at byte "),
            (looks_at_what_follows, "changed by what follows"),
            (never_decides, "undecided beyond its limit"),
        ],
    )
    def test_verdicts_that_are_not_final(
        self, read: Callable[[bytes], bytes | Malformed | Verdict], error: str
    ) -> None:
        # Only a sample at the limit tells that a reader never decides.
        target = prefix_reader(
            "planted", lambda _rng: b"LEN\xff" + bytes(255), read, 4 + 255, lambda _value, _data: None
        )
        assert any(error in found for found in errors_of(target))

    def test_values_that_are_wrong(self) -> None:
        def check_value(value: bytes, data: bytes) -> None:
            assert b"o" not in value

        assert "AssertionError" in finding_of(reader(read_sound, check_value)).error

    def test_valid_inputs_that_are_refused(self) -> None:
        target = reader(lambda _prefix: Malformed("always"))
        finding = finding_of(target)
        assert (finding.data, finding.error) == (SAMPLE, "RefusedError: a valid input was refused")

    def test_inputs_that_take_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine, "TIME_LIMIT_S", -1)
        assert "TooSlowError" in finding_of(reader(read_sound)).error

    def test_of_several_outcomes_the_first_counts(self) -> None:
        first, second = (Finding("planted", 1, number, b"", "") for number in (3, 5))
        total = Outcome(10, 4, 0.5, None) + Outcome(4, 1, 0.2, first) + Outcome(6, 0, 0.9, second)
        assert total == Outcome(20, 5, 0.9, first)


def errors_of(target: Target) -> Iterator[str]:
    for number in range(300):
        finding = examine(target, 1, number).finding
        if finding is not None:
            yield finding.error


class TestStreamReader:
    @staticmethod
    def lines(*, forgetful: bool) -> Target:
        """Lines of text; one that is ``forgetful`` loses what was left of the last piece."""

        def new_reader() -> Callable[[bytes], Iterator[bytes]]:
            rest = b""

            def feed(piece: bytes) -> Iterator[bytes]:
                nonlocal rest
                *lines, rest = (piece if forgetful else rest + piece).split(b"\n")
                for line in lines:
                    if line == b"!":
                        raise ValueError
                    yield line

            return feed

        return stream_reader(
            "planted", lambda _rng: b"one\ntwo\n", new_reader, ValueError, lambda line: line + b"\n"
        )

    def test_that_is_sound(self) -> None:
        assert examine_range(self.lines(forgetful=False), 1, range(500)).finding is None

    def test_that_depends_on_the_cuts(self) -> None:
        assert "depends on the cuts" in finding_of(self.lines(forgetful=True)).error

    def test_that_refuses(self) -> None:
        assert not self.lines(forgetful=False).check(b"one\n!\n")


class TestWholeParser:
    def test_that_refuses_as_documented(self) -> None:
        target = whole_parser("planted", lambda _rng: b"17", int, ValueError, lambda _value, _data: None)
        assert examine_range(target, 1, range(500)).finding is None
        assert target.check(b"17")
        assert not target.check(b"x")

    def test_that_refuses_otherwise(self) -> None:
        def parse(data: bytes) -> int:
            return {b"17": 17}[data]

        target = whole_parser("planted", lambda _rng: b"17", parse, ValueError, lambda _value, _data: None)
        assert finding_of(target).error.startswith("KeyError")


class TestInputs:
    def test_depend_on_seed_and_number_alone(self) -> None:
        target = reader(read_sound)
        assert [draw(target, 1, number) for number in range(50)] == [
            draw(target, 1, number) for number in range(50)
        ]
        assert [draw(target, 1, number) for number in range(50)] != [
            draw(target, 2, number) for number in range(50)
        ]

    def test_are_of_every_kind(self) -> None:
        inputs = [draw(reader(read_sound), 1, number) for number in range(3000)]
        assert any(valid for _, valid in inputs)
        changed = [data for data, valid in inputs if not valid]
        assert any(data.startswith(b"LEN\x06hello") for data in changed)
        assert any(data == SAMPLE[:6] for data in changed)
        assert any(data.count(b"LEN") == 2 for data in changed)
        assert any(len(data) > 200 for data in changed)
        assert b"" in changed

    def test_of_one_byte_are_changed_too(self) -> None:
        target = whole_parser("planted", lambda _rng: b"\x01", bytes, ValueError, lambda _value, _data: None)
        assert examine_range(target, 1, range(1000)).finding is None


class TestMinimise:
    def test_keeps_what_matters(self) -> None:
        assert minimise(bytes(range(200)), lambda data: 77 in data and 99 in data) == bytes((77, 99))

    def test_puts_zeros_where_the_place_matters(self) -> None:
        assert minimise(b"abcdefgh", lambda data: len(data) > 4 and data[4:5] == b"e") == b"\0\0\0\0e"

    def test_may_end_with_nothing(self) -> None:
        assert minimise(b"x", lambda _data: True) == b""


class TestRegressions:
    def test_are_kept_as_text(self, tmp_path: Path) -> None:
        data = bytes(range(100))
        file = regressions.keep("planted", data, tmp_path)
        assert file.parent == tmp_path / "planted"
        assert file.read_text().startswith("00 01 02")
        assert list(regressions.kept(tmp_path)) == [("planted", data)]

    def test_may_be_empty(self, tmp_path: Path) -> None:
        regressions.keep("planted", b"", tmp_path)
        assert list(regressions.kept(tmp_path)) == [("planted", b"")]


class TestCommand:
    def test_repeats_one_input(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = reader(raises)
        number = finding_of(target).number
        monkeypatch.setattr(command, "_BY_NAME", {"planted": target})
        monkeypatch.setattr(regressions, "FOLDER", tmp_path)
        monkeypatch.setattr(
            sys, "argv", ["fuzz", "--seed", "1", "--target", "planted", "--number", str(number)]
        )
        assert command.main() == 1
        printed = capsys.readouterr().out
        assert "planted: IndexError" in printed
        assert f"repeat nox -s fuzz -- --target planted --seed 1 --number {number}" in printed
        assert list(regressions.kept(tmp_path)) == [("planted", b"LEN\x00")]

    def test_tries_all_parsers(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["fuzz", "--inputs", "20"])
        assert command.main() == 0
        printed = capsys.readouterr().out
        assert printed.startswith("seed ")
        assert printed.count(" 20 inputs, ") == len(TARGETS)


class TestValues:
    def test_of_an_unknown_type_are_refused(self) -> None:
        with pytest.raises(TypeError, match="add one to"):
            draw_value(complex, Random(1))

    @pytest.mark.parametrize(
        "kind", [list[int], dict[str, int], tuple[str, ...], int | None, str, float, bool]
    )
    def test_are_of_their_type(self, kind: object, rng: Random) -> None:
        import msgspec

        for _ in range(20):
            msgspec.convert(draw_value(kind, rng), kind)
