"""Our chat, held to testkit's contract over real sockets; its 90 seconds pass in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from examples.chat.server import HEARTBEAT_TIMEOUT_S, Chat, Room
from examples.chat.tokens import TokenVerifier
from examples.chat.users import Users
from testkit.contracts.websocket_lifecycle import RefusedError, Token, WebSocketContract
from testkit.issuer import TokenIssuer
from testkit.websocket import Opcode, UpgradeRefusedError, WebSocketClient


class Client:
    """testkit's client, which answers pings and closings here, as browsers do."""

    def __init__(self, client: WebSocketClient) -> None:
        self._client = client

    async def send(self, data: str | bytes) -> None:
        if isinstance(data, str):
            await self._client.send_text(data)
        else:
            await self._client.send_frame(Opcode.BINARY, data)

    async def receive(self) -> str:
        while True:
            try:
                frame = await self._client.receive(10 * HEARTBEAT_TIMEOUT_S)
            except (asyncio.IncompleteReadError, ConnectionError):
                raise EOFError from None
            if frame.opcode is Opcode.TEXT:
                return frame.payload.decode()
            answer = Opcode.PONG if frame.opcode is Opcode.PING else Opcode.CLOSE
            await self._client.send_frame(answer, frame.payload)
            if answer is Opcode.CLOSE:
                raise EOFError

    async def close(self) -> None:
        await self._client.close()

    def cut(self) -> None:
        self._client.reset()


class ChatHarness:
    heartbeat_timeout_s = HEARTBEAT_TIMEOUT_S

    def __init__(self, database: Path) -> None:
        self._issuer = TokenIssuer("https://issuer.example")
        tokens = TokenVerifier(self._issuer.url, self._issuer.audience, fetch=self._fetch)
        self._chat = Chat(tokens, Users(database))
        self._numbers = itertools.count(1)
        self._url: asyncio.Future[str] | None = None
        self._clients: list[Client] = []

    async def connect(self, user: str, *, token: Token = Token.GOOD, secure: bool = True) -> Client:
        if self._url is None:
            self._url = asyncio.get_running_loop().create_future()
            # Cancelled with the loop of the test, it closes what it has opened.
            self._serving = asyncio.create_task(self._serve(self._url))
        shown = {
            Token.GOOD: self._issuer.token(sub=user),
            Token.INVALID: self._issuer.token_of_forged_key(sub=user),
            Token.EXPIRED: self._issuer.expired_token(sub=user),
        }
        headers = {"Authorization": f"Bearer {shown[token]}"} if token in shown else {}
        if secure:
            headers["X-Forwarded-Proto"] = "https"
        try:
            client = await WebSocketClient.connect(await self._url, headers=headers)
        except UpgradeRefusedError as error:
            raise RefusedError(error.status) from None
        self._clients.append(Client(client))
        return self._clients[-1]

    def set_production(self, production: bool) -> None:
        self._chat.production = production

    async def conversation(self, *participants: str) -> str:
        name = f"room-{next(self._numbers)}"
        self._chat.rooms[name] = Room(frozenset(participants))
        return name

    async def online(self) -> set[str]:
        return self._chat.online

    async def messages(self, conversation: str) -> list[tuple[str, str]]:
        return self._chat.rooms[conversation].messages

    async def readers(self, conversation: str) -> set[str]:
        return self._chat.rooms[conversation].read_by

    async def _fetch(self, url: str) -> Mapping[str, Any]:
        return self._issuer.answer(url.removeprefix(self._issuer.url))[1]

    async def _serve(self, url: asyncio.Future[str]) -> None:
        runner = web.AppRunner(self._chat.app(), shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url.set_result(f"ws://127.0.0.1:{runner.addresses[0][1]}/ws")
            await asyncio.get_running_loop().create_future()
        finally:
            for client in self._clients:
                with suppress(OSError):
                    client.cut()
            await runner.cleanup()


class TestChat(WebSocketContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> ChatHarness:
        return ChatHarness(tmp_path / "users.db")
