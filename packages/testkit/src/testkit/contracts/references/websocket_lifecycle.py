"""A chat over WebSockets without sockets: connections are two queues."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from testkit.contracts.websocket_lifecycle import RefusedError, Token

Frame = dict[str, Any]


class MemoryConnection:
    """Both ends: what the client does, and what the service does to it."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.to_service: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._to_client: asyncio.Queue[str | None] = asyncio.Queue()

    # ---- the client's ----------------------------------------------------------------------------------

    async def send(self, data: str | bytes) -> None:
        self.to_service.put_nowait(data)

    async def receive(self) -> str:
        text = await self._to_client.get()
        if text is None:
            raise EOFError
        return text

    async def close(self) -> None:
        self.cut()

    def cut(self) -> None:
        self.to_service.put_nowait(None)

    # ---- the service's ---------------------------------------------------------------------------------

    def tell(self, kind: str, payload: Frame | None = None) -> None:
        self._to_client.put_nowait(json.dumps({"type": kind, "payload": payload or {}}))

    def end(self) -> None:
        self._to_client.put_nowait(None)


class FrameError(Exception):
    """What a client sent is answered with this code."""


class MemoryChat:
    """The service."""

    heartbeat_timeout_s = 90.0

    def __init__(self) -> None:
        self.production = False
        self.connections: list[MemoryConnection] = []
        self.rooms: dict[str, frozenset[str]] = {}
        self.stored: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self.read: defaultdict[str, set[str]] = defaultdict(set)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- connecting ------------------------------------------------------------------------------------

    async def connect(self, user: str, *, token: Token = Token.GOOD, secure: bool = True) -> MemoryConnection:
        self.admit(token, secure)
        connection = MemoryConnection(user)
        self.connections.append(connection)
        task = asyncio.get_running_loop().create_task(self.serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return connection

    def admit(self, token: Token, secure: bool) -> None:
        if self.production and not secure:
            raise RefusedError(403)
        if token is not Token.GOOD:
            raise RefusedError(401)

    async def serve(self, connection: MemoryConnection) -> None:
        try:
            while True:
                async with asyncio.timeout(self.heartbeat_timeout_s):
                    data = await connection.to_service.get()
                if data is None:
                    break
                self.take(connection, data)
        except TimeoutError:
            pass
        finally:
            self.leave(connection)

    def leave(self, connection: MemoryConnection) -> None:
        self.connections.remove(connection)
        connection.end()

    # ---- messages --------------------------------------------------------------------------------------

    def take(self, connection: MemoryConnection, data: str | bytes) -> None:
        try:
            self.act(connection, *self.parse(data))
        except FrameError as error:
            connection.tell("error", {"code": str(error)})

    def parse(self, data: str | bytes) -> tuple[str, Frame]:
        if isinstance(data, bytes):
            raise FrameError("UNSUPPORTED_BINARY")
        try:
            frame = json.loads(data)
        except ValueError:
            raise FrameError("MALFORMED") from None
        if not isinstance(frame, dict) or not isinstance(frame.get("payload", {}), dict):
            raise FrameError("MALFORMED")
        return frame.get("type", ""), frame.get("payload", {})

    def act(self, connection: MemoryConnection, kind: str, payload: Frame) -> None:
        if kind == "ping":
            connection.tell("pong")
            return
        if kind not in ("typing", "read", "message"):
            raise FrameError("UNSUPPORTED_TYPE")
        room, user = payload.get("conversation", ""), connection.user
        participants = self.participants(room, user)
        told: Frame = {"conversation": room, "user": user}
        if kind == "message":
            self.stored[room].append((user, payload.get("text", "")))
            self.tell(participants, kind, {**told, "text": payload.get("text", "")})
            return
        if kind == "read":
            self.read[room].add(user)
        self.tell(participants - {user}, kind, told)

    def participants(self, room: str, user: str) -> frozenset[str]:
        """Who is in a conversation that the user is in."""
        if user not in self.rooms.get(room, ()):
            raise FrameError("FORBIDDEN")
        return self.rooms[room]

    def tell(self, users: Iterable[str], kind: str, payload: Frame) -> None:
        for connection in self.connections:
            if connection.user in users:
                connection.tell(kind, payload)

    # ---- what a test asks ------------------------------------------------------------------------------

    def set_production(self, production: bool) -> None:
        self.production = production

    async def conversation(self, *participants: str) -> str:
        room = f"room-{next(self._numbers)}"
        self.rooms[room] = frozenset(participants)
        return room

    async def online(self) -> set[str]:
        return {connection.user for connection in self.connections}

    async def messages(self, conversation: str) -> list[tuple[str, str]]:
        return self.stored[conversation]

    async def readers(self, conversation: str) -> set[str]:
        return self.read[conversation]
