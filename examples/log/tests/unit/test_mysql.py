"""Logins as real clients send them, cut short at every byte, and as nobody sends them."""

from __future__ import annotations

import asyncio

import pytest

from examples.log.mysql import HEADER_BYTES, Login, greeting, packet, read_login, read_packet, refusal

# Recorded from PyMySQL 1.1, in answer to `greeting`.
FLAGS, NO_DATABASE = b"\x0d\xa2\x3a\0", b"\x05\xa2\x3a\0"
FIXED = b"\xff\xff\xff\0-" + bytes(23)
PLUGIN = b"mysql_native_password\0"
SCRAMBLE = b" ]\xdc\x1b\x9b\xfa\xb0\x0e\x9d\xc2\xc91\xdd\xd0\xd2x\x12p%M"
WITHOUT_PASSWORD = packet(1, FLAGS + FIXED + b"ada\0\0proj_\xc3\xa9\0" + PLUGIN)
WITH_PASSWORD = packet(1, FLAGS + FIXED + b"ada\0\x14" + SCRAMBLE + b"shop\0" + PLUGIN)
WITHOUT_DATABASE = packet(1, NO_DATABASE + FIXED + b"ada\0\0" + PLUGIN)
# As older clients do it: the length in one byte, or a text that ends with NUL.
ONE_BYTE_LENGTH = packet(1, b"\x0d\x82\0\0" + FIXED + b"ada\0\x14" + SCRAMBLE + b"shop\0")
UNTIL_NUL = packet(1, b"\x0d\x02\0\0" + FIXED + b"ada\0secret\0shop\0")
NO_PLUGIN = packet(1, NO_DATABASE + FIXED + b"ada\0\x05four\0")
LONG_SECRET = packet(1, FLAGS + FIXED + b"ada\0\xfc\x2c\x01" + bytes(300) + b"shop\0")


@pytest.mark.parametrize(
    ("sent", "login"),
    [
        (WITHOUT_PASSWORD, Login("ada", "proj_é")),
        (WITH_PASSWORD, Login("ada", "shop")),
        (WITHOUT_DATABASE, Login("ada", "")),
        (ONE_BYTE_LENGTH, Login("ada", "shop")),
        (UNTIL_NUL, Login("ada", "shop")),
        (LONG_SECRET, Login("ada", "shop")),
    ],
)
def test_login_says_who_wants_which_database(sent: bytes, login: Login) -> None:
    assert read_login(sent) == login


@pytest.mark.parametrize("sent", [WITH_PASSWORD, ONE_BYTE_LENGTH, UNTIL_NUL, LONG_SECRET, NO_PLUGIN])
def test_login_that_is_cut_short_is_refused(sent: bytes) -> None:
    sent = sent.removesuffix(PLUGIN)
    whole = sent.rindex(b"\0") + 1
    for length in range(whole):
        with pytest.raises(ValueError, match="login"):
            read_login(sent[:length])


def test_login_in_no_language_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        read_login(WITHOUT_PASSWORD.replace(b"ada", b"\xff\xff\xff"))


def test_greeting_offers_no_tls_and_all_of_its_salt() -> None:
    said = greeting(bytes(range(1, 21)))
    payload = said[HEADER_BYTES:]
    assert int.from_bytes(said[:3], "little") == len(payload)
    assert payload[0] == 10
    _, _, rest = payload.partition(b"-door\0")
    assert rest[4:12] == bytes(range(1, 9))
    assert not int.from_bytes(rest[13:15], "little") & 1 << 11
    assert rest[31:44] == bytes(range(9, 21)) + b"\0"


def test_refusal_has_code_state_and_reason() -> None:
    assert refusal(1049, "42000", "no") == b"\x0b\0\0\x02\xff\x19\x04#42000no"


async def test_packet_is_read_whole_and_no_further() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(WITH_PASSWORD + b"more")
    assert await read_packet(reader) == WITH_PASSWORD
    assert await reader.readexactly(4) == b"more"


async def test_packet_that_is_larger_than_any_login_is_refused_unread() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\xff\xff\xff\x01")
    with pytest.raises(ValueError, match="is no login"):
        await read_packet(reader)
