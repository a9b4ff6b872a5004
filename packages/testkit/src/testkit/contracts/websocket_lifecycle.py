"""What every service must do that talks to its users over WebSockets: who gets in, who is told, who is gone.

Frames are JSON objects with ``type`` and ``payload``::

    {"type": "ping"}                                           → {"type": "pong"}
    {"type": "typing",  "payload": {"conversation": …}}        → the other participants
    {"type": "read",    "payload": {"conversation": …}}        → marked, then the other participants
    {"type": "message", "payload": {"conversation": …, "text": …}}  → stored, then all participants
    anything else                                              → {"type": "error", "payload": {"code": …}}

What participants get has the same ``type``, and a ``payload`` with ``conversation``, ``user`` (who did it, by
the token) and, of a message, ``text``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises_async
from testkit.contracts.contract import Contract, needs


class Token(StrEnum):
    """What a client shows when it connects."""

    GOOD = "good"
    MISSING = "missing"
    INVALID = "invalid"
    EXPIRED = "expired"


class RefusedError(Exception):
    """The upgrade was answered with this status instead."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Connection(Protocol):
    """A client's end. It does nothing by itself but answer the protocol's pings."""

    async def send(self, data: str | bytes) -> None:
        """Send one text or binary message."""
        ...

    async def receive(self) -> str:
        """Return the next text message.

        Raises:
            EOFError: the server closed the connection.
        """
        ...

    async def close(self) -> None:
        """Take leave with the closing handshake."""
        ...

    def cut(self) -> None:
        """Go away without a word, as a client that loses its network and resets."""
        ...


class WebSocketHarness(Protocol):
    """What a test must know of an implementation. Begins without connections and messages."""

    @property
    def heartbeat_timeout_s(self) -> float:
        """A client that has been silent for so long is dropped."""
        ...

    def set_production(self, production: bool) -> None:
        """Have the service run as in production, or as in development (the default)."""
        ...

    async def connect(self, user: str, *, token: Token = Token.GOOD, secure: bool = True) -> Connection:
        """Connect as a user, over ``wss`` or ``ws``.

        Raises:
            RefusedError: the service does not upgrade.
        """
        ...

    async def conversation(self, *participants: str) -> str:
        """Make a conversation of these users, and return its id."""
        ...

    async def online(self) -> AbstractSet[str]:
        """The users whom the service takes to be connected."""
        ...

    async def messages(self, conversation: str) -> Sequence[tuple[str, str]]:
        """What is stored of a conversation: user and text, in order."""
        ...

    async def readers(self, conversation: str) -> AbstractSet[str]:
        """The users who are stored to have read it."""
        ...


_UNAUTHORIZED = 401
_REFUSALS = range(400, 500)
_STEPS = 20
_GRACE = 0.2


class WebSocketContract(
    Contract,
    contract="websocket_lifecycle",
    capabilities={
        "production": "the service can run as in production, where a plain connection is refused",
        "read": "it keeps who has read what",
    },
    virtual_time=True,
):
    """Subclass it, define the fixture ``harness``, and pytest runs it."""

    # ---- who may connect -------------------------------------------------------------------------------

    async def test_good_token_is_upgraded(self, harness: WebSocketHarness) -> None:
        ada = await harness.connect("ada")
        await _settled(ada)
        assert await harness.online() == {"ada"}

    async def test_missing_token_is_unauthorized(self, harness: WebSocketHarness) -> None:
        await _assert_refused(harness, Token.MISSING)

    async def test_invalid_token_is_unauthorized(self, harness: WebSocketHarness) -> None:
        await _assert_refused(harness, Token.INVALID)

    async def test_expired_token_is_unauthorized(self, harness: WebSocketHarness) -> None:
        await _assert_refused(harness, Token.EXPIRED)

    @needs("production")
    async def test_production_refuses_plain_connections(self, harness: WebSocketHarness) -> None:
        harness.set_production(True)
        refused = await assert_raises_async(RefusedError, lambda: harness.connect("ada", secure=False))
        assert isinstance(refused, RefusedError)
        assert refused.status in _REFUSALS
        assert await harness.online() == set()

    @needs("production")
    async def test_production_takes_secure_connections(self, harness: WebSocketHarness) -> None:
        harness.set_production(True)
        await _settled(await harness.connect("ada", secure=True))

    @needs("production")
    async def test_development_takes_plain_connections(self, harness: WebSocketHarness) -> None:
        harness.set_production(False)
        await _settled(await harness.connect("ada", secure=False))

    # ---- heartbeat -------------------------------------------------------------------------------------

    async def test_ping_is_answered_by_pong(self, harness: WebSocketHarness) -> None:
        ada = await harness.connect("ada")
        await _send(ada, "ping")
        assert json.loads(await ada.receive())["type"] == "pong"

    async def test_ping_is_answered_to_nobody_else(self, harness: WebSocketHarness) -> None:
        ada, bob = await harness.connect("ada"), await harness.connect("bob")
        await _settled(ada)
        await _settled(bob)

    async def test_silent_client_is_dropped_after_the_timeout(self, harness: WebSocketHarness) -> None:
        loop = asyncio.get_running_loop()
        ada = await harness.connect("ada")
        began_s = loop.time()
        async with asyncio.timeout(2 * harness.heartbeat_timeout_s):
            await assert_raises_async(EOFError, ada.receive)
        silent_s = loop.time() - began_s
        assert silent_s >= (1 - _GRACE) * harness.heartbeat_timeout_s, f"dropped after {silent_s:g} s"
        await _eventually(harness, set())

    async def test_client_that_pings_is_kept(self, harness: WebSocketHarness) -> None:
        ada = await harness.connect("ada")
        for _ in range(4):
            await asyncio.sleep((1 - 2 * _GRACE) * harness.heartbeat_timeout_s)
            await _settled(ada)
        assert await harness.online() == {"ada"}

    # ---- who is told -----------------------------------------------------------------------------------

    async def test_typing_reaches_the_other_participants(self, harness: WebSocketHarness) -> None:
        ada, bob, _ = await _three(harness)
        room = await harness.conversation("ada", "bob")
        await _send(ada, "typing", conversation=room)
        assert await _receive(bob) == ("typing", {"conversation": room, "user": "ada"})

    async def test_typing_reaches_nobody_else(self, harness: WebSocketHarness) -> None:
        ada, bob, eve = await _three(harness)
        await _send(ada, "typing", conversation=await harness.conversation("ada", "bob"))
        await _receive(bob)
        await _settled(eve)
        await _settled(ada)

    async def test_message_is_stored_and_reaches_all_participants(self, harness: WebSocketHarness) -> None:
        ada, bob, _ = await _three(harness)
        room = await harness.conversation("ada", "bob")
        await _send(ada, "message", conversation=room, text="grüße")
        for each in (bob, ada):
            kind, payload = await _receive(each)
            assert kind == "message"
            assert payload.items() >= {"conversation": room, "user": "ada", "text": "grüße"}.items()
        assert list(await harness.messages(room)) == [("ada", "grüße")]

    async def test_message_reaches_nobody_else(self, harness: WebSocketHarness) -> None:
        ada, bob, eve = await _three(harness)
        await _send(ada, "message", conversation=await harness.conversation("ada", "bob"), text="secret")
        await _receive(bob)
        await _settled(eve)

    async def test_message_is_stored_before_it_is_told(self, harness: WebSocketHarness) -> None:
        ada, bob, _ = await _three(harness)
        room = await harness.conversation("ada", "bob")
        for number in range(_STEPS):
            await _send(ada, "message", conversation=room, text=str(number))
            await _receive(bob)
            assert len(await harness.messages(room)) == number + 1

    async def test_messages_arrive_in_the_order_sent(self, harness: WebSocketHarness) -> None:
        ada, bob, _ = await _three(harness)
        room = await harness.conversation("ada", "bob")
        for number in range(_STEPS):
            await _send(ada, "message", conversation=room, text=str(number))
        received = [(await _receive(bob))[1]["text"] for _ in range(_STEPS)]
        assert received == [str(number) for number in range(_STEPS)]

    @needs("read")
    async def test_read_receipt_is_stored_and_told(self, harness: WebSocketHarness) -> None:
        ada, bob, eve = await _three(harness)
        room = await harness.conversation("ada", "bob")
        await _send(bob, "read", conversation=room)
        assert await _receive(ada) == ("read", {"conversation": room, "user": "bob"})
        assert await harness.readers(room) == {"bob"}
        await _settled(eve)

    async def test_every_connection_of_a_participant_is_told(self, harness: WebSocketHarness) -> None:
        ada, bob, _ = await _three(harness)
        second = await harness.connect("bob")
        await _send(ada, "typing", conversation=await harness.conversation("ada", "bob"))
        assert await _receive(bob) == await _receive(second)

    async def test_user_is_the_one_of_the_token(self, harness: WebSocketHarness) -> None:
        ada, bob, _ = await _three(harness)
        room = await harness.conversation("ada", "bob")
        await _send(ada, "message", conversation=room, text="hi", user="bob")
        assert (await _receive(bob))[1]["user"] == "ada"
        assert list(await harness.messages(room)) == [("ada", "hi")]

    async def test_outsider_cannot_write_to_a_conversation(self, harness: WebSocketHarness) -> None:
        ada, _, eve = await _three(harness)
        room = await harness.conversation("ada", "bob")
        await _send(eve, "message", conversation=room, text="spam")
        assert (await _receive(eve))[0] == "error"
        await _settled(ada)
        assert list(await harness.messages(room)) == []

    # ---- errors ----------------------------------------------------------------------------------------

    async def test_unknown_type_is_answered_with_an_error(self, harness: WebSocketHarness) -> None:
        ada = await harness.connect("ada")
        await _send(ada, "unknown")
        kind, payload = await _receive(ada)
        assert (kind, payload["code"]) == ("error", "UNSUPPORTED_TYPE")
        await _settled(ada)

    async def test_binary_message_is_answered_with_an_error(self, harness: WebSocketHarness) -> None:
        ada = await harness.connect("ada")
        await ada.send(b'{"type": "ping"}')
        kind, payload = await _receive(ada)
        assert (kind, payload["code"]) == ("error", "UNSUPPORTED_BINARY")
        await _settled(ada)

    async def test_what_is_no_such_json_is_answered_with_an_error(self, harness: WebSocketHarness) -> None:
        ada = await harness.connect("ada")
        for text in (
            "",
            "{",
            "[]",
            "null",
            '{"type": 1}',
            '{"type": "typing"}',
            '{"type": "message", "payload": 7}',
        ):
            await ada.send(text)
            assert (await _receive(ada))[0] == "error", text
        await _settled(ada)

    # ---- who is gone -----------------------------------------------------------------------------------

    async def test_client_that_takes_leave_is_gone(self, harness: WebSocketHarness) -> None:
        ada, _, _ = await _three(harness)
        await ada.close()
        await _eventually(harness, {"bob", "eve"})

    async def test_client_that_is_cut_off_is_gone(self, harness: WebSocketHarness) -> None:
        ada, _, _ = await _three(harness)
        ada.cut()
        await _eventually(harness, {"bob", "eve"})

    async def test_others_are_told_on_after_one_is_cut_off(self, harness: WebSocketHarness) -> None:
        ada, bob, eve = await _three(harness)
        room = await harness.conversation("ada", "bob", "eve")
        bob.cut()
        await _send(ada, "typing", conversation=room)
        assert (await _receive(eve))[0] == "typing"

    async def test_user_is_online_until_the_last_connection_ends(self, harness: WebSocketHarness) -> None:
        first, second = await harness.connect("ada"), await harness.connect("ada")
        await _settled(second)
        first.cut()
        await _settled(second)
        assert await harness.online() == {"ada"}
        await second.close()
        await _eventually(harness, set())


# ---- steps -----------------------------------------------------------------------------------------------


async def _three(harness: WebSocketHarness) -> tuple[Connection, Connection, Connection]:
    ada, bob, eve = [await harness.connect(user) for user in ("ada", "bob", "eve")]
    # Connected is who has been answered.
    for each in (ada, bob, eve):
        await _settled(each)
    return ada, bob, eve


async def _send(connection: Connection, kind: str, **payload: object) -> None:
    frame: dict[str, object] = {"type": kind, "payload": payload} if payload else {"type": kind}
    await connection.send(json.dumps(frame))


async def _receive(connection: Connection) -> tuple[str, dict[str, Any]]:
    frame = json.loads(await connection.receive())
    return frame["type"], frame.get("payload", {})


async def _settled(connection: Connection) -> None:
    """Assert that the connection is served, and that nothing waits to be received before the answer."""
    await _send(connection, "ping")
    assert (await _receive(connection))[0] == "pong"


async def _assert_refused(harness: WebSocketHarness, token: Token) -> None:
    refused = await assert_raises_async(RefusedError, lambda: harness.connect("ada", token=token))
    assert isinstance(refused, RefusedError)
    assert refused.status == _UNAUTHORIZED
    assert await harness.online() == set()


async def _eventually(harness: WebSocketHarness, online: AbstractSet[str]) -> None:
    """Wait until these are online, for a fraction of the time after which silence would have the same end."""
    interval_s = harness.heartbeat_timeout_s * _GRACE / _STEPS
    for _ in range(_STEPS):
        if await harness.online() == online:
            return
        await asyncio.sleep(interval_s)
    assert await harness.online() == online
