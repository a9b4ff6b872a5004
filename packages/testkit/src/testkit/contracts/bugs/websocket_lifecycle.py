"""Chats over WebSockets with a known bug."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.websocket_lifecycle import Frame, FrameError, MemoryChat, MemoryConnection
from testkit.contracts.websocket_lifecycle import RefusedError, Token, WebSocketContract

Contract = WebSocketContract
BUGS = PlantedBugs(Contract, lambda kind: kind())


@BUGS.caught_by(Contract.test_production_refuses_plain_connections)
class TakesPlainConnectionsInProduction(MemoryChat):
    def admit(self, token: Token, secure: bool) -> None:
        super().admit(token, True)


@BUGS.caught_by(Contract.test_production_takes_secure_connections)
class TrustsNoProxyToHaveEndedTls(MemoryChat):
    def admit(self, token: Token, secure: bool) -> None:
        super().admit(token, False)


@BUGS.caught_by(Contract.test_development_takes_plain_connections)
class DemandsTlsEverywhere(MemoryChat):
    def admit(self, token: Token, secure: bool) -> None:
        if not secure:
            raise RefusedError(403)
        super().admit(token, secure)


@BUGS.caught_by(Contract.test_expired_token_is_unauthorized)
class LooksNotAtTheExpiry(MemoryChat):
    def admit(self, token: Token, secure: bool) -> None:
        super().admit(Token.GOOD if token is Token.EXPIRED else token, secure)


@BUGS.caught_by(Contract.test_missing_token_is_unauthorized)
class ForbidsInsteadOfAskingWho(MemoryChat):
    def admit(self, token: Token, secure: bool) -> None:
        if token is Token.MISSING:
            raise RefusedError(403)
        super().admit(token, secure)


@BUGS.caught_by(Contract.test_silent_client_is_dropped_after_the_timeout)
class NeverDropsAnybody(MemoryChat):
    async def serve(self, connection: MemoryConnection) -> None:
        while (data := await connection.to_service.get()) is not None:
            self.take(connection, data)
        self.leave(connection)


@BUGS.caught_by(Contract.test_client_that_pings_is_kept)
class CountsSilenceFromTheBeginning(MemoryChat):
    async def serve(self, connection: MemoryConnection) -> None:
        try:
            async with asyncio.timeout(self.heartbeat_timeout_s):
                while (data := await connection.to_service.get()) is not None:
                    self.take(connection, data)
        except TimeoutError:
            pass
        finally:
            self.leave(connection)


@BUGS.caught_by(Contract.test_silent_client_is_dropped_after_the_timeout)
class DropsInHalfTheTime(MemoryChat):
    async def serve(self, connection: MemoryConnection) -> None:
        async def hurry() -> None:
            await asyncio.sleep(self.heartbeat_timeout_s / 2)
            connection.cut()

        hurrying = asyncio.get_running_loop().create_task(hurry())
        await super().serve(connection)
        hurrying.cancel()


@BUGS.caught_by(
    Contract.test_typing_reaches_nobody_else,
    Contract.test_message_reaches_nobody_else,
    Contract.test_read_receipt_is_stored_and_told,
)
class TellsEverybody(MemoryChat):
    def tell(self, users: Iterable[str], kind: str, payload: Frame) -> None:
        super().tell([each.user for each in self.connections], kind, payload)


@BUGS.caught_by(Contract.test_every_connection_of_a_participant_is_told)
class TellsOneConnectionOfAUser(MemoryChat):
    def tell(self, users: Iterable[str], kind: str, payload: Frame) -> None:
        first = {connection.user: connection for connection in reversed(self.connections)}
        for user in users:
            if user in first:
                first[user].tell(kind, payload)


@BUGS.caught_by(Contract.test_message_is_stored_before_it_is_told)
class StoresWhenThereIsTime(MemoryChat):
    def act(self, connection: MemoryConnection, kind: str, payload: Frame) -> None:
        if kind != "message":
            super().act(connection, kind, payload)
            return
        room = payload.get("conversation", "")
        told = {"conversation": room, "user": connection.user, "text": payload.get("text", "")}
        self.tell(self.participants(room, connection.user), kind, told)
        self.stored[room] = [*self.stored.pop(room, [])]
        stored = (connection.user, payload.get("text", ""))
        asyncio.get_running_loop().call_later(0.001, self.stored[room].append, stored)


@BUGS.caught_by(Contract.test_read_receipt_is_stored_and_told)
class ForgetsWhoHasRead(MemoryChat):
    async def readers(self, conversation: str) -> set[str]:
        return set()


@BUGS.caught_by(Contract.test_user_is_the_one_of_the_token)
class BelievesTheFrame(MemoryChat):
    def act(self, connection: MemoryConnection, kind: str, payload: Frame) -> None:
        told, connection.user = connection.user, payload.get("user", connection.user)
        try:
            super().act(connection, kind, payload)
        finally:
            connection.user = told


@BUGS.caught_by(Contract.test_outsider_cannot_write_to_a_conversation)
class LetsAnybodyIn(MemoryChat):
    def participants(self, room: str, user: str) -> frozenset[str]:
        return self.rooms.get(room, frozenset())


@BUGS.caught_by(Contract.test_unknown_type_is_answered_with_an_error)
class SaysNothingToUnknownTypes(MemoryChat):
    def act(self, connection: MemoryConnection, kind: str, payload: Frame) -> None:
        if kind in ("ping", "typing", "read", "message"):
            super().act(connection, kind, payload)


@BUGS.caught_by(Contract.test_binary_message_is_answered_with_an_error)
class ReadsBinaryAsText(MemoryChat):
    def parse(self, data: str | bytes) -> tuple[str, Frame]:
        return super().parse(data.decode() if isinstance(data, bytes) else data)


@BUGS.caught_by(Contract.test_what_is_no_such_json_is_answered_with_an_error)
class ClosesOnBadJson(MemoryChat):
    def take(self, connection: MemoryConnection, data: str | bytes) -> None:
        try:
            self.parse(data)
        except FrameError as error:
            if str(error) == "MALFORMED":
                connection.cut()
                return
        super().take(connection, data)


@BUGS.caught_by(Contract.test_client_that_is_cut_off_is_gone)
class KeepsWhoIsCutOff(MemoryChat):
    def leave(self, connection: MemoryConnection) -> None:
        connection.end()


@BUGS.caught_by(Contract.test_user_is_online_until_the_last_connection_ends)
class ForgetsAllConnectionsOfAUser(MemoryChat):
    def leave(self, connection: MemoryConnection) -> None:
        self.connections = [each for each in self.connections if each.user != connection.user]
        connection.end()


SUITE = Suite(
    Contract, "testkit.contracts.references.websocket_lifecycle:MemoryChat", BUGS, mutate=["MemoryChat"]
)
