"""The contract of WebSocket services, held by a server on aiohttp, over real sockets in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress

import pytest
from aiohttp import web
from joserfc.jwk import KeySet

from packages.testkit.tests.integration.contracts.chat_server import ChatServer
from testkit.contracts.websocket_lifecycle import RefusedError, Token, WebSocketContract
from testkit.issuer import TokenIssuer
from testkit.websocket import Opcode, UpgradeRefusedError, WebSocketClient


class Client:
    def __init__(self, client: WebSocketClient, patience_s: float) -> None:
        self._client = client
        self._patience_s = patience_s

    async def send(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            await self._client.send_frame(Opcode.BINARY, data)
        else:
            await self._client.send_text(data)

    async def receive(self) -> str:
        while True:
            try:
                frame = await self._client.receive(self._patience_s)
            except (asyncio.IncompleteReadError, ConnectionError):
                raise EOFError from None
            if frame.opcode is Opcode.TEXT:
                return frame.payload.decode()
            if frame.opcode is Opcode.PING:
                await self._client.send_frame(Opcode.PONG, frame.payload)
            if frame.opcode is Opcode.CLOSE:
                await self._client.send_frame(Opcode.CLOSE, frame.payload)
                raise EOFError

    async def close(self) -> None:
        await self._client.close()

    def cut(self) -> None:
        self._client.reset()


class AiohttpChat:
    heartbeat_timeout_s = 90.0

    def __init__(self) -> None:
        self._issuer = TokenIssuer("https://issuer.example")
        self._chat = ChatServer(
            KeySet.import_key_set(self._issuer.published_keys()),  # type: ignore[arg-type]  # a mapping does
            self._issuer.url,
            heartbeat_timeout_s=self.heartbeat_timeout_s,
        )
        self._url: asyncio.Future[str] | None = None
        self._numbers = itertools.count(1)
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
        self._clients.append(Client(client, 10 * self.heartbeat_timeout_s))
        return self._clients[-1]

    async def _serve(self, url: asyncio.Future[str]) -> None:
        app = web.Application()
        app.router.add_get("/ws", self._chat.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
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

    def set_production(self, production: bool) -> None:
        self._chat.production = production

    async def conversation(self, *participants: str) -> str:
        room = f"room-{next(self._numbers)}"
        self._chat.rooms[room] = set(participants)
        return room

    async def online(self) -> set[str]:
        return self._chat.online

    async def messages(self, conversation: str) -> list[tuple[str, str]]:
        return self._chat.stored[conversation]

    async def readers(self, conversation: str) -> set[str]:
        return self._chat.read[conversation]


class TestAiohttp(WebSocketContract):
    @pytest.fixture
    def harness(self) -> AiohttpChat:
        return AiohttpChat()
