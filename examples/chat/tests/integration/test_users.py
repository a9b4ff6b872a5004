"""Our users in SQLite, held to testkit's contract."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from examples.chat.users import BadClaimsError, User, Users
from testkit.contracts.provisioning import ProvisioningContract
from testkit.factories import Factory, numbered


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


async def test_many_who_come_at_once_and_twice_are_as_many_users(tmp_path: Path, rng: Random) -> None:
    claims: Factory[dict[str, str]] = Factory(
        dict,
        rng,
        iss="https://issuer",
        sub=numbered("auth0|{}"),
        email=numbered("{}@example.com"),
        name="Ada",
    )
    everybody = claims.batch(8)
    coming = rng.sample(everybody * 2, 16)
    users = Users(tmp_path / "users.db")
    found = await asyncio.gather(*(users.provision(each) for each in coming))
    assert len({user.id for user in found}) == len({user.email for user in found}) == 8
    assert [user.email for user in found] == [each["email"] for each in coming]
