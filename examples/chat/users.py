"""Users who are made of what their tokens say when they first come, and kept up to date."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS users (
        id INTEGER PRIMARY KEY, email TEXT NOT NULL, name TEXT, avatar_url TEXT);
    CREATE TABLE IF NOT EXISTS identities (
        issuer TEXT, subject TEXT, user_id INTEGER NOT NULL REFERENCES users, PRIMARY KEY (issuer, subject));
"""
_FIND = """
    SELECT id, email, name, avatar_url FROM users JOIN identities ON user_id = id
    WHERE issuer = ? AND subject = ?
"""


class BadClaimsError(Exception):
    """The claims are not enough to make a user of."""


@dataclass(frozen=True, slots=True)
class User:
    id: int
    email: str
    name: str | None
    avatar_url: str | None


class Users:
    """In a SQLite file; each call is a connection of its own in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript(_SCHEMA)

    async def provision(self, claims: Mapping[str, Any]) -> User:
        """Return the user of verified claims, made or brought up to date.

        Raises:
            BadClaimsError: there is no issuer, subject or address.
        """
        if not all(claims.get(name) for name in ("iss", "sub", "email")):
            raise BadClaimsError("a user needs an issuer, a subject and an address")
        identity = claims["iss"], claims["sub"]
        found = await self._run(lambda database: _find(database, identity))
        if found is None:
            found = await self._make(identity, claims)
        return await self._bring_up_to_date(found, claims)

    async def _make(self, identity: tuple[str, str], claims: Mapping[str, Any]) -> User:
        values = claims["email"], claims.get("name"), claims.get("picture")

        def insert(database: sqlite3.Connection) -> User:
            made = database.execute("INSERT INTO users (email, name, avatar_url) VALUES (?, ?, ?)", values)
            assert made.lastrowid is not None
            return User(made.lastrowid, *values)

        user = await self._run(insert)
        try:
            await self._made(user)
            await self._run(
                lambda database: database.execute(
                    "INSERT INTO identities VALUES (?, ?, ?)", (*identity, user.id)
                )
            )
        except sqlite3.IntegrityError:
            # Another request of the same person was faster; its user is the one.
            await self._forget(user)
            faster = await self._run(lambda database: _find(database, identity))
            assert faster is not None
            return faster
        except BaseException:
            await self._forget(user)
            raise
        return user

    async def _made(self, user: User) -> None:
        """A user has been made and has no identity yet."""

    async def _bring_up_to_date(self, user: User, claims: Mapping[str, Any]) -> User:
        told = User(
            user.id,
            claims["email"],
            claims.get("name") or user.name,
            claims.get("picture") or user.avatar_url,
        )
        if told != user:
            values = told.email, told.name, told.avatar_url, told.id
            statement = "UPDATE users SET email = ?, name = ?, avatar_url = ? WHERE id = ?"
            await self._run(lambda database: database.execute(statement, values))
        return told

    async def _forget(self, user: User) -> None:
        await self._run(lambda database: database.execute("DELETE FROM users WHERE id = ?", (user.id,)))

    async def _run(self, step: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
                return step(database)

        return await asyncio.to_thread(run)


def _find(database: sqlite3.Connection, identity: tuple[str, str]) -> User | None:
    row = database.execute(_FIND, identity).fetchone()
    return row and User(*row)
