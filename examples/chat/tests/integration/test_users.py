"""Our users in SQLite, held to testkit's contract."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from examples.chat.users import BadClaimsError, User, Users
from testkit.contracts.provisioning import ProvisioningContract


class WatchedUsers(Users):
    """Lets others go first, as a test wants it."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def _made(self, user: User) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()


class SqliteHarness:
    refusal = BadClaimsError

    def __init__(self, path: Path) -> None:
        self._path = path
        self._users = WatchedUsers(path)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE written (n INTEGER)")
            for table in ("users", "identities"):
                for change in ("INSERT", "UPDATE", "DELETE"):
                    database.execute(
                        f"CREATE TRIGGER {table}_{change} AFTER {change} ON {table}"
                        " BEGIN INSERT INTO written VALUES (1); END"
                    )

    async def provision(self, claims: Mapping[str, Any]) -> User:
        return await self._users.provision(claims)

    async def users(self) -> list[User]:
        return [User(*row) for row in await self._read("SELECT id, email, name, avatar_url FROM users")]

    async def identities(self) -> dict[tuple[str, str], object]:
        rows = await self._read("SELECT issuer, subject, user_id FROM identities")
        return {(issuer, subject): user_id for issuer, subject, user_id in rows}

    async def writes(self) -> int:
        ((count,),) = await self._read("SELECT count(*) FROM written")
        return int(count)

    def before_linking(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._users.meanwhile = meanwhile

    async def _read(self, statement: str) -> list[Any]:
        def read() -> list[Any]:
            with closing(sqlite3.connect(self._path)) as database:
                return database.execute(statement).fetchall()

        return await asyncio.to_thread(read)


class TestUsers(ProvisioningContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SqliteHarness:
        return SqliteHarness(tmp_path / "users.db")
