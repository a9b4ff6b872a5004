"""Users made just in time, in memory; every look-up and write lets others have a turn."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any


class BadRequestError(Exception):
    """The claims are not enough."""


class AlreadyLinkedError(Exception):
    """The identity belongs to a user already: what a unique constraint says."""


@dataclass(frozen=True, slots=True)
class User:
    id: int
    email: str
    name: str | None
    avatar_url: str | None


Identity = tuple[str, str]


class MemoryUsers:
    """The store, with what a test asks of it."""

    def __init__(self) -> None:
        self._users: dict[int, User] = {}
        self._identities: dict[Identity, int] = {}
        self._numbers = itertools.count(1)
        self._writes = 0
        self._meanwhile: Callable[[], Awaitable[object]] | None = None

    # ---- the store -------------------------------------------------------------------------------------

    async def find(self, identity: Identity) -> User | None:
        await asyncio.sleep(0)
        user_id = self._identities.get(identity)
        return None if user_id is None else self._users[user_id]

    async def insert(self, claims: Mapping[str, Any]) -> User:
        await asyncio.sleep(0)
        user = User(next(self._numbers), claims["email"], claims.get("name"), claims.get("picture"))
        self._users[user.id] = user
        self._writes += 1
        return user

    async def link(self, identity: Identity, user_id: int) -> None:
        await asyncio.sleep(0)
        if identity in self._identities:
            raise AlreadyLinkedError(identity)
        self._identities[identity] = user_id
        self._writes += 1

    async def update(self, user: User) -> None:
        await asyncio.sleep(0)
        self._users[user.id] = user
        self._writes += 1

    async def delete(self, user_id: int) -> None:
        await asyncio.sleep(0)
        del self._users[user_id]
        self._writes += 1

    # ---- what a test asks ------------------------------------------------------------------------------

    async def users(self) -> list[User]:
        return list(self._users.values())

    async def identities(self) -> dict[Identity, int]:
        return dict(self._identities)

    async def writes(self) -> int:
        return self._writes

    def before_linking(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self._meanwhile = meanwhile

    async def let_others_go_first(self) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()


class MemoryProvisioning(MemoryUsers):
    """The service."""

    refusal = BadRequestError

    async def provision(self, claims: Mapping[str, Any]) -> User:
        identity = self.identity(claims)
        found = await self.find(identity)
        return await self.make(identity, claims) if found is None else await self.refresh(found, claims)

    def identity(self, claims: Mapping[str, Any]) -> Identity:
        """Whose claims these are; they must be enough to make a user of."""
        for name in ("iss", "sub", "email"):
            if not claims.get(name):
                raise BadRequestError(f"no {name} in the claims")
        return claims["iss"], claims["sub"]

    async def make(self, identity: Identity, claims: Mapping[str, Any]) -> User:
        """Make a user, and tie it to its identity unless somebody did so meanwhile."""
        user = await self.insert(claims)
        try:
            await self.let_others_go_first()
            await self.link(identity, user.id)
        except AlreadyLinkedError:
            await self.delete(user.id)
            winner = await self.find(identity)
            assert winner is not None, "who was first is there"
            return await self.refresh(winner, claims)
        except BaseException:
            await self.delete(user.id)
            raise
        return user

    async def refresh(self, user: User, claims: Mapping[str, Any]) -> User:
        """Take over what the claims say and the user has otherwise."""
        current = replace(
            user,
            email=claims["email"],
            name=claims.get("name", user.name),
            avatar_url=claims.get("picture", user.avatar_url),
        )
        if current != user:
            await self.update(current)
        return current
