from __future__ import annotations

import pytest

from mock_backend.language import MAX_PARTS, MAX_STATEMENTS, MAX_TEXT_CHARS, LanguageError
from mock_backend.scripts import Script, Step, Verb


def verbs(script: Script, number: int) -> list[Verb] | None:
    steps = script.steps(number)
    return None if steps is None else [step.verb for step in steps]


def test_connection_that_no_statement_names_is_served() -> None:
    script = Script("connection 3: reset")
    assert [verbs(script, number) for number in (2, 3, 4)] == [None, [Verb.RESET], None]


def test_first_statement_that_names_a_connection_decides() -> None:
    script = Script("connection 2: close; connections 2-4: reset\nevery 3rd connection: hang # and so on")
    found = [verbs(script, number) for number in range(1, 7)]
    assert found == [None, [Verb.CLOSE], [Verb.RESET], [Verb.RESET], None, [Verb.HANG]]


def test_open_range_has_no_end() -> None:
    script = Script("connections 7-: echo")
    assert (verbs(script, 6), verbs(script, 10**8)) == (None, [Verb.ECHO])


def test_every_connection_is_every_one() -> None:
    assert verbs(Script("every connection: serve"), 1) == [Verb.SERVE]


def test_steps_carry_their_amounts() -> None:
    script = Script(
        'connection 1: accept, read 1 byte, read to the end, send "a;b:,#\\u00ff", wait 20 ms, wait 2s'
    )
    assert script.steps(1) == (
        Step(Verb.ACCEPT),
        Step(Verb.READ, bytes_count=1),
        Step(Verb.READ_TO_THE_END),
        Step(Verb.SEND, data=b"a;b:,#\xff"),
        Step(Verb.WAIT, wait_s=0.02),
        Step(Verb.WAIT, wait_s=2.0),
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", ";;"])
def test_empty_text_serves_all(text: str) -> None:
    assert Script(text).steps(1) is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("reset", "statement 1: no colon"),
        (": reset", "statement 1: no colon"),
        ("connection 1: reset; connection 2:", "statement 2: nothing stands behind"),
        ("connection 1: accept,, reset", "nothing stands behind the colon or between two commas"),
        ("connection 0: reset", "names no connection; they count from 1"),
        ("connections 5-4: reset", "names no connection"),
        ("every 0th connection: reset", "names no connection"),
        ("connection three: reset", "'connection three' is none of: connection 3"),
        ("connection 1: reset, close", "nothing can follow 'reset'"),
        ("connection 1: explode", "'explode' is none of: accept"),
        ("connection 1: read 0 bytes", "'read 0 bytes' is none of"),
        ("connection 1: read 1073741825 bytes", "is none of"),
        ("connection 1: wait 3601 s", "no time of at most 3600 s"),
        ("connection 1: wait 10-20 ms", "'wait 10-20 ms' is none of"),
        ('connection 1: send "\\x"', "Invalid"),
        ('connection 1: send "\\u0100"', "latin-1"),
        ('connection 1: send "open', "is none of"),
        ("connection 1: " + "accept, " * MAX_PARTS + "reset", f"more than {MAX_PARTS} parts"),
        ("connection 1: reset\n" * (MAX_STATEMENTS + 1), f"more than {MAX_STATEMENTS} statements"),
        ("#" * (MAX_TEXT_CHARS + 1), f"the limit is {MAX_TEXT_CHARS}"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(LanguageError, match=complaint) as refused:
        Script(text)
    assert "\n" not in str(refused.value)
