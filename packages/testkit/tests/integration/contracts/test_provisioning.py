"""The contract of just-in-time users, held on SQLite and PostgreSQL: real constraints, real races."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
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
# As SQLite has it.
UPDATE_SQLITE = UPDATE.replace("$", "?").replace("::text", "").replace("IS DISTINCT FROM", "IS NOT")
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


class Hook:
    """What a test has happen between a user's making and its identity's."""

    refusal = BadRequestError

    def __init__(self) -> None:
        self._meanwhile: Callable[[], Awaitable[object]] | None = None

    def before_linking(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._meanwhile = meanwhile

    async def let_others_go_first(self) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()


class SqliteUsers(Hook):
    """Each statement in a thread, on a connection of its own, as requests of several workers have it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        with self._connection() as database:
            database.executescript("""
                CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL, name TEXT, avatar_url TEXT);
                CREATE TABLE identities (issuer TEXT, subject TEXT, user_id INTEGER NOT NULL REFERENCES users,
                                         PRIMARY KEY (issuer, subject));
                CREATE TABLE written (n INTEGER);
                CREATE TRIGGER i AFTER INSERT ON users BEGIN INSERT INTO written VALUES (1); END;
                CREATE TRIGGER u AFTER UPDATE ON users BEGIN INSERT INTO written VALUES (1); END;
                CREATE TRIGGER d AFTER DELETE ON users BEGIN INSERT INTO written VALUES (1); END;
                CREATE TRIGGER l AFTER INSERT ON identities BEGIN INSERT INTO written VALUES (1); END;
            """)

    async def provision(self, claims: Mapping[str, Any]) -> User:
        issuer, subject, values = checked(claims)
        found = await self._find(issuer, subject)
        if found is None:
            user_id = await asyncio.to_thread(self._insert, values)
            try:
                await self.let_others_go_first()
                await asyncio.to_thread(self._link, issuer, subject, user_id)
            except BaseException as error:
                await asyncio.to_thread(self._write, "DELETE FROM users WHERE id = ?", user_id)
                if not isinstance(error, sqlite3.IntegrityError):
                    raise
            found = await self._find(issuer, subject)
            assert found is not None
        await asyncio.to_thread(self._write, UPDATE_SQLITE, *values, found.id)
        again = await self._find(issuer, subject)
        assert again is not None
        return again

    async def users(self) -> list[User]:
        return [User(*row) for row in await self._read("SELECT id, email, name, avatar_url FROM users")]

    async def identities(self) -> dict[tuple[str, str], object]:
        return {(row[0], row[1]): row[2] for row in await self._read("SELECT * FROM identities")}

    async def writes(self) -> int:
        return int((await self._read("SELECT count(*) FROM written"))[0][0])

    async def _find(self, issuer: str, subject: str) -> User | None:
        rows = await self._read(f"{FIND} WHERE i.issuer = ? AND i.subject = ?", issuer, subject)
        return User(*rows[0]) if rows else None

    async def _read(self, statement: str, *values: object) -> list[Any]:
        def read() -> list[Any]:
            with self._connection() as database:
                return database.execute(statement, values).fetchall()

        return await asyncio.to_thread(read)

    def _insert(self, values: tuple[object, ...]) -> int:
        with self._connection() as database:
            made = database.execute("INSERT INTO users (email, name, avatar_url) VALUES (?, ?, ?)", values)
            assert made.lastrowid is not None
            return made.lastrowid

    def _link(self, *values: object) -> None:
        self._write("INSERT INTO identities VALUES (?, ?, ?)", *values)

    def _write(self, statement: str, *values: object) -> None:
        with self._connection() as database:
            database.execute(statement, values)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            yield database


class TestSqlite(ProvisioningContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SqliteUsers:
        return SqliteUsers(tmp_path / "users.db")


class PostgresUsers(Hook):
    """A user and its identity in one transaction: the loser's user goes with it."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        super().__init__()
        self._pool = pool

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
