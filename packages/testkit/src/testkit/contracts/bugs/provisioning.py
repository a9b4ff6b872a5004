"""Provisioning with a known bug."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.provisioning import ProvisioningContract
from testkit.contracts.references.provisioning import (
    AlreadyLinkedError,
    BadRequestError,
    Identity,
    MemoryProvisioning,
    User,
)

Contract = ProvisioningContract
BUGS = PlantedBugs(Contract, lambda kind: kind())


@BUGS.caught_by(Contract.test_without_drift_nothing_is_written)
class WritesAtEveryLogin(MemoryProvisioning):
    async def refresh(self, user: User, claims: Mapping[str, Any]) -> User:
        current = await super().refresh(user, claims)
        if current == user:
            await self.update(current)
        return current


@BUGS.caught_by(Contract.test_only_what_drifted_changes, Contract.test_new_email_is_taken_over)
class NeverLooksAgain(MemoryProvisioning):
    async def refresh(self, user: User, claims: Mapping[str, Any]) -> User:
        return user


@BUGS.caught_by(Contract.test_new_email_is_taken_over)
class KeepsTheFirstEmail(MemoryProvisioning):
    async def refresh(self, user: User, claims: Mapping[str, Any]) -> User:
        return await super().refresh(user, {**claims, "email": user.email})


@BUGS.caught_by(Contract.test_claim_that_is_missing_is_no_drift)
class TakesMissingForEmpty(MemoryProvisioning):
    async def refresh(self, user: User, claims: Mapping[str, Any]) -> User:
        return await super().refresh(user, {"name": None, "picture": None, **claims})


@BUGS.caught_by(Contract.test_loser_of_a_race_leaves_no_orphan, Contract.test_ten_at_once_make_one_user)
class LeavesTheOrphan(MemoryProvisioning):
    async def delete(self, user_id: int) -> None:
        return


@BUGS.caught_by(Contract.test_loser_of_a_race_gets_the_winners_user, Contract.test_ten_at_once_make_one_user)
class TurnsARaceIntoAFailure(MemoryProvisioning):
    async def make(self, identity: Identity, claims: Mapping[str, Any]) -> User:
        user = await self.insert(claims)
        await self.let_others_go_first()
        await self.link(identity, user.id)
        return user


@BUGS.caught_by(Contract.test_loser_of_a_race_gets_the_winners_user, Contract.test_ten_at_once_make_one_user)
class TheLastOneWins(MemoryProvisioning):
    async def link(self, identity: Identity, user_id: int) -> None:
        await asyncio.sleep(0)
        self._identities[identity] = user_id


@BUGS.caught_by(Contract.test_failure_that_is_no_race_is_raised)
class SwallowsEveryFailure(MemoryProvisioning):
    async def let_others_go_first(self) -> None:
        try:
            await super().let_others_go_first()
        except Exception as error:
            raise AlreadyLinkedError from error

    async def find(self, identity: Identity) -> User | None:
        return await super().find(identity) or (User(0, "", None, None) if self._writes else None)


@BUGS.caught_by(
    Contract.test_claims_without_an_email_are_refused,
    Contract.test_known_user_stays_as_it_is_when_claims_are_refused,
)
class MakesUpAnEmail(MemoryProvisioning):
    async def provision(self, claims: Mapping[str, Any]) -> User:
        return await super().provision({**claims, "email": claims.get("email") or "nobody@example.com"})


@BUGS.caught_by(Contract.test_claims_without_a_subject_are_refused)
class TakesNobodyForSomebody(MemoryProvisioning):
    def identity(self, claims: Mapping[str, Any]) -> Identity:
        if not claims.get("email"):
            raise BadRequestError
        return claims["iss"], claims.get("sub", "")


@BUGS.caught_by(Contract.test_subject_belongs_to_its_issuer)
class ForgetsTheIssuer(MemoryProvisioning):
    async def find(self, identity: Identity) -> User | None:
        found = [user_id for (_, subject), user_id in self._identities.items() if subject == identity[1]]
        return self._users[found[0]] if found else await super().find(identity)


@BUGS.caught_by(Contract.test_drift_of_one_leaves_others_alone)
class UpdatesEverybody(MemoryProvisioning):
    async def update(self, user: User) -> None:
        await super().update(user)
        for each in self._users.values():
            self._users[each.id] = replace(each, name=user.name)


SUITE = Suite(
    Contract,
    "testkit.contracts.references.provisioning:MemoryProvisioning",
    BUGS,
    mutate=["MemoryProvisioning"],
)
