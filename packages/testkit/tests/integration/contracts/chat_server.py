"""A chat on aiohttp with signed tokens, to hold the contract of WebSocket services to something real."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiohttp import WSMsgType, web
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet


class ChatServer:
    def __init__(self, keys: KeySet, issuer: str, *, heartbeat_timeout_s: float) -> None:
        self.production = False
        self.heartbeat_timeout_s = heartbeat_timeout_s
        self.rooms: dict[str, set[str]] = {}
        self.stored: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self.read: defaultdict[str, set[str]] = defaultdict(set)
        self.sockets: defaultdict[str, list[web.WebSocketResponse]] = defaultdict(list)
        self._keys = keys
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(time.time()),
            iss={"essential": True, "value": issuer},
            exp={"essential": True},
            sub={"essential": True},
        )

    @property
    def online(self) -> set[str]:
        return {user for user, sockets in self.sockets.items() if sockets}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        # TLS ends before us.
        if self.production and request.headers.get("X-Forwarded-Proto") != "https":
            raise web.HTTPForbidden
        user = self._user(request.headers.get("Authorization", ""))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets[user].append(socket)
        try:
            await self._serve(user, socket)
        finally:
            self.sockets[user].remove(socket)
        return socket

    def _user(self, authorization: str) -> str:
        try:
            claims = jwt.decode(
                authorization.removeprefix("Bearer "), self._keys, algorithms=["ES256"]
            ).claims
            self._claims.validate(claims)
        except (JoseError, ValueError):
            raise web.HTTPUnauthorized from None
        return str(claims["sub"])

    async def _serve(self, user: str, socket: web.WebSocketResponse) -> None:
        while True:
            try:
                message = await socket.receive(timeout=self.heartbeat_timeout_s)
            except TimeoutError:
                await socket.close()
                return
            if message.type is WSMsgType.BINARY:
                await _tell(socket, "error", code="UNSUPPORTED_BINARY")
            elif message.type is WSMsgType.TEXT:
                await self._take(user, socket, message.data)
            else:
                return

    async def _take(self, user: str, socket: web.WebSocketResponse, text: str) -> None:
        try:
            frame = json.loads(text)
            kind, payload = frame["type"], frame.get("payload", {})
            room, said = payload.get("conversation", ""), payload.get("text", "")
        except (ValueError, TypeError, KeyError, AttributeError):
            await _tell(socket, "error", code="MALFORMED")
            return
        others = self.rooms.get(room, set()) - {user}
        if kind == "ping":
            await _tell(socket, "pong")
        elif kind not in ("typing", "read", "message"):
            await _tell(socket, "error", code="UNSUPPORTED_TYPE")
        elif user not in self.rooms.get(room, ()):
            await _tell(socket, "error", code="FORBIDDEN")
        elif kind == "message":
            self.stored[room].append((user, said))
            await self._tell_all({*others, user}, kind, conversation=room, user=user, text=said)
        else:
            if kind == "read":
                self.read[room].add(user)
            await self._tell_all(others, kind, conversation=room, user=user)

    async def _tell_all(self, users: Iterable[str], kind: str, **payload: Any) -> None:
        for socket in [socket for user in users for socket in self.sockets[user]]:
            try:
                await _tell(socket, kind, **payload)
            except ConnectionError:
                # Its own task takes it off the list.
                continue


async def _tell(socket: web.WebSocketResponse, kind: str, **payload: Any) -> None:
    await socket.send_str(json.dumps({"type": kind, "payload": payload}))
