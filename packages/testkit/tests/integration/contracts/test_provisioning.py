"""The contract of just-in-time users, held on PostgreSQL: a real constraint, real races, a transaction.

The chat among the examples holds it on SQLite, without a transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from testkit.contracts.provisioning import ProvisioningContract
from testkit.postgres import PostgresServer

UPDATE = """
UPDATE users SET email = $1, name = coalesce($2::text, name), avatar_url = coalesce($3::text, avatar_url)
WHERE id = $4 AND (email <> $1 OR name IS DISTINCT FROM coalesce($2::text, name)
                   OR avatar_url IS DISTINCT FROM coalesce($3::text, avatar_url))
"""
FIND = "SELECT u.id, u.email, u.name, u.avatar_url FROM users u JOIN identities i ON i.user_id = u.id"


@dataclass(frozen=True)
class User:
    id: int
    email: str
    name: str | None
    avatar_url: str | None


class BadRequestError(Exception):
    pass


def checked(claims: Mapping[str, Any]) -> tuple[str, str, tuple[str, str | None, str | None]]:
    if not all(claims.get(name) for name in ("iss", "sub", "email")):
        raise BadRequestError
    return claims["iss"], claims["sub"], (claims["email"], claims.get("name"), claims.get("picture"))


class PostgresUsers:
    """A user and its identity in one transaction: the loser's user goes with it."""

    refusal = BadRequestError

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._meanwhile: Callable[[], Awaitable[object]] | None = None

    def before_linking(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._meanwhile = meanwhile

    async def let_others_go_first(self) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()

    async def provision(self, claims: Mapping[str, Any]) -> User:
        issuer, subject, values = checked(claims)
        found = await self._find(issuer, subject)
        if found is None:
            try:
                async with self._pool.acquire() as connection, connection.transaction():
                    made = "INSERT INTO users (email, name, avatar_url) VALUES ($1, $2, $3) RETURNING id"
                    user_id = await connection.fetchval(made, *values)
                    await self.let_others_go_first()
                    await connection.execute(
                        "INSERT INTO identities VALUES ($1, $2, $3)", issuer, subject, user_id
                    )
            except asyncpg.UniqueViolationError:
                pass
            found = await self._find(issuer, subject)
            assert found is not None
        await self._pool.execute(UPDATE, *values, found.id)
        again = await self._find(issuer, subject)
        assert again is not None
        return again

    async def users(self) -> list[User]:
        return [User(*row) for row in await self._pool.fetch("SELECT id, email, name, avatar_url FROM users")]

    async def identities(self) -> dict[tuple[str, str], object]:
        return {(row[0], row[1]): row[2] for row in await self._pool.fetch("SELECT * FROM identities")}

    async def writes(self) -> int:
        raise NotImplementedError("a capability that is lacking is not asked for")

    async def _find(self, issuer: str, subject: str) -> User | None:
        row = await self._pool.fetchrow(f"{FIND} WHERE i.issuer = $1 AND i.subject = $2", issuer, subject)
        return None if row is None else User(*row)


class TestPostgres(
    ProvisioningContract, lacks={"writes": "rolled back rows are no rows, and count as written"}
):
    @pytest.fixture
    async def harness(self, postgres: PostgresServer) -> AsyncIterator[PostgresUsers]:
        # A schema takes a tenth of the time that a database of its own would.
        schema = f"users_{uuid.uuid4().hex}"
        async with asyncpg.create_pool(
            postgres.url(), min_size=1, max_size=5, server_settings={"search_path": schema}
        ) as pool:
            await pool.execute(f"""
                CREATE SCHEMA {schema};
                CREATE TABLE users (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email TEXT NOT NULL,
                                    name TEXT, avatar_url TEXT);
                CREATE TABLE identities (issuer TEXT, subject TEXT, user_id BIGINT NOT NULL REFERENCES users,
                                         PRIMARY KEY (issuer, subject));
            """)
            yield PostgresUsers(pool)
            await pool.execute(f"DROP SCHEMA {schema} CASCADE")
