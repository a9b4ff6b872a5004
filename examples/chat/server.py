"""The chat: who gets in, what frames mean, who is told, and who is gone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from examples.chat.tokens import ProviderError, TokenVerifier, UnauthorizedError
from examples.chat.users import BadClaimsError, Users

HEARTBEAT_TIMEOUT_S = 90.0


@dataclass
class Room:
    """A conversation; people are known by the subject of their tokens."""

    participants: frozenset[str]
    messages: list[tuple[str, str]] = field(default_factory=list)
    read_by: set[str] = field(default_factory=set)


class Chat:
    """One instance of the service. In ``production``, TLS ends before it, and must."""

    def __init__(self, tokens: TokenVerifier, users: Users, *, production: bool = False) -> None:
        self.production = production
        self.rooms: dict[str, Room] = {}
        self._tokens = tokens
        self._users = users
        self._connections: defaultdict[str, set[web.WebSocketResponse]] = defaultdict(set)

    @property
    def online(self) -> set[str]:
        return {user for user, connections in self._connections.items() if connections}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/ws", self._serve)
        app.router.add_get("/ready", self._ready)
        app.on_shutdown.append(self._close_all)
        return app

    async def _ready(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"ready": True})

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.production and request.headers.get("X-Forwarded-Proto") != "https":
            raise web.HTTPForbidden(text="only over TLS")
        user = await self._user(request.headers.get("Authorization", ""))
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        self._connections[user].add(connection)
        try:
            await self._talk(user, connection)
        finally:
            self._connections[user].discard(connection)
        return connection

    async def _user(self, authorization: str) -> str:
        try:
            claims = await self._tokens.verify(authorization.removeprefix("Bearer "))
            await self._users.provision(claims)
        except UnauthorizedError as error:
            raise web.HTTPUnauthorized(text=str(error)) from error
        except BadClaimsError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        except ProviderError as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from error
        return str(claims["sub"])

    async def _talk(self, user: str, connection: web.WebSocketResponse) -> None:
        while True:
            try:
                message = await connection.receive(timeout=HEARTBEAT_TIMEOUT_S)
            except TimeoutError:
                await connection.close()
                return
            if message.type is WSMsgType.TEXT:
                await self._take(user, connection, message.data)
            elif message.type is WSMsgType.BINARY:
                await _tell(connection, "error", code="UNSUPPORTED_BINARY")
            else:
                return

    async def _take(self, user: str, connection: web.WebSocketResponse, text: str) -> None:
        try:
            frame = json.loads(text)
            kind, payload = frame["type"], frame.get("payload", {})
            name, said = payload.get("conversation"), payload.get("text", "")
        except (ValueError, TypeError, KeyError, AttributeError):
            await _tell(connection, "error", code="MALFORMED")
            return
        room = self.rooms.get(name)
        if kind == "ping":
            await _tell(connection, "pong")
        elif kind not in ("typing", "read", "message"):
            await _tell(connection, "error", code="UNSUPPORTED_TYPE")
        elif room is None or user not in room.participants:
            await _tell(connection, "error", code="NO_SUCH_CONVERSATION")
        elif kind == "message":
            room.messages.append((user, said))
            await self._tell_all(room.participants, kind, conversation=name, user=user, text=said)
        else:
            if kind == "read":
                room.read_by.add(user)
            await self._tell_all(room.participants - {user}, kind, conversation=name, user=user)

    async def _tell_all(self, users: Iterable[str], kind: str, **payload: Any) -> None:
        for connection in [each for user in users for each in self._connections[user]]:
            try:
                await _tell(connection, kind, **payload)
            except ConnectionError:
                # Whoever serves it takes it off.
                continue

    async def _close_all(self, _: web.Application) -> None:
        for connection in [each for connections in self._connections.values() for each in connections]:
            await connection.close(code=1001)


async def _tell(connection: web.WebSocketResponse, kind: str, **payload: Any) -> None:
    await connection.send_str(json.dumps({"type": kind, "payload": payload}))
