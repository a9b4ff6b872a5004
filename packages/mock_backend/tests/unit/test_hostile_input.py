"""Whatever stands in a script, in faults or in a body: it is understood or refused in one line."""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_backend.admin import Admin, RefusedError, Wait
from mock_backend.faults import Faults
from mock_backend.instrument import Instrument
from mock_backend.language import LanguageError
from mock_backend.scripts import Script

PIECES = (
    *(
        "connection",
        "connections",
        "every",
        "requests",
        "request",
        "to",
        "of",
        "%",
        ":",
        ",",
        ";",
        "\n",
        "#",
        '"',
    ),
    *(
        "3",
        "4-6",
        "7-",
        "2nd",
        "0",
        "999999999999",
        "read",
        "bytes",
        "wait",
        "delay",
        "ms",
        "s",
        "send",
        "status",
    ),
    *(
        "503",
        "reset",
        "close",
        "serve",
        "hang",
        "half-close",
        '"a\\n"',
        "\\",
        "\\u00ff",
        "\x00",
        "ü",
        "/api/*",
        " ",
    ),
)
texts = st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.lists(
    st.sampled_from(PIECES), max_size=40
).map(" ".join)


@given(text=texts)
def test_any_text_is_a_script_or_refused(text: str) -> None:
    script, refused = None, ""
    try:
        script = Script(text)
    except LanguageError as error:
        refused = str(error)
    assert (script is None) == bool(refused)
    assert "\n" not in refused
    if script is None:
        return
    for number in (1, 3, 10**9):
        assert script.steps(number) is None or script.steps(number)


@given(text=texts, number=st.integers(1, 2**40))
def test_any_text_is_faults_or_refused(text: str, number: int) -> None:
    fault, refused = None, ""
    try:
        fault = Faults(text).draw(number, "/api/info")
    except LanguageError as error:
        refused = str(error)
    assert (fault is None) == bool(refused)
    assert "\n" not in refused
    if fault is None:
        return
    assert 0 <= fault.delay_s <= 3600 * 1000


CALLS = ("/status", "/state", "/script", "/faults", "/journal", "/reset", "/nothing")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("state", "seed", "x")), inner)
    ),
    max_leaves=6,
)
bodies = st.binary(max_size=100) | st.dictionaries(
    st.sampled_from(("state", "script", "faults", "seed", "x")), values, max_size=3
).map(lambda body: json.dumps(body).encode())


@given(
    method=st.sampled_from(("GET", "PUT", "POST", "DELETE", "BREW")),
    path=st.sampled_from(CALLS) | st.text(max_size=8),
    query=st.dictionaries(st.sampled_from(("after", "wait_ms", "x")), st.text("0123456789-x²", max_size=20)),
    body=bodies,
)
def test_any_call_is_done_or_refused_in_one_line(
    method: str, path: str, query: dict[str, str], body: bytes
) -> None:
    instrument = Instrument()
    admin = Admin(instrument, dict, None)
    before = (instrument.state, instrument.script, instrument.faults)
    done: object
    refused: RefusedError | None
    try:
        done = admin.call(method, path, query, body, None)
    except RefusedError as error:
        done, refused = {}, error
    else:
        refused = None
    if refused is not None:
        assert refused.status in (400, 404, 405)
        assert "\n" not in str(refused)
        assert (instrument.state, instrument.script, instrument.faults) == before
    assert isinstance(done, Wait) or json.dumps(done)


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"state":' * 20_000, b"\xff\xfe", b"9" * 100_000])
def test_deep_and_broken_bodies_are_refused(body: bytes) -> None:
    admin = Admin(Instrument(), dict, None)
    with pytest.raises(RefusedError, match="the body is"):
        admin.call("PUT", "/state", {}, body, None)


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/state", b'["hung"]', "the body is no JSON object with state"),
        ("/state", b"{}", "'state' must be a string"),
        ("/state", b'{"state": "tired"}', "'tired' is none of"),
        ("/script", b'{"script": 3}', "'script' must be a string"),
        ("/script", b'{"script": "", "seed": 3}', "unknown: 'seed'; there is script"),
        ("/faults", b'{"faults": "", "seed": -1}', "'seed' must be a number from 0"),
    ],
)
def test_a_body_that_says_something_else_is_refused_with_what_is_wanted(
    path: str, body: bytes, why: str
) -> None:
    with pytest.raises(RefusedError, match=re.escape(why)) as refused:
        Admin(Instrument(), dict, None).call("PUT", path, {}, body, None)
    assert refused.value.status == 400


@given(token=st.text(max_size=20), seed=st.integers(0, 1000))
def test_only_the_token_lets_in(token: str, seed: int) -> None:
    secret = f"{random.Random(seed).getrandbits(64):x}"
    admin = Admin(Instrument(), dict, secret)
    with pytest.raises(RefusedError, match="admin token"):
        admin.call("GET", "/status", {}, b"", f"Bearer {token}")
    assert admin.call("GET", "/status", {}, b"", f"Bearer {secret}")
