"""What everything must do that makes local users of the claims of an identity provider, just in time.

A person comes with claims that somebody else has verified. Who comes for the first time gets a user, and an
identity that ties the user to (``iss``, ``sub``); who comes again gets the same user, brought up to date
where the claims say something new. Two requests of one person may come at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises_async
from testkit.contracts.contract import Contract, needs

ISSUER = "https://id.example"


class User(Protocol):
    """A local user as the store has it."""

    @property
    def id(self) -> object: ...

    @property
    def email(self) -> str: ...

    @property
    def name(self) -> str | None: ...

    @property
    def avatar_url(self) -> str | None: ...


class ProvisioningHarness(Protocol):
    """What a test must know of an implementation. Begins without users."""

    @property
    def refusal(self) -> type[Exception]:
        """What is raised for claims that are not enough: a bad request, no failure of the server."""
        ...

    async def provision(self, claims: Mapping[str, Any]) -> User:
        """Have the user of verified claims: ``iss``, ``sub``, ``email``, perhaps ``name``, ``picture``."""
        ...

    async def users(self) -> Sequence[User]:
        """All there are, in any order."""
        ...

    async def identities(self) -> Mapping[tuple[str, str], object]:
        """The id of the user by (``iss``, ``sub``)."""
        ...

    async def writes(self) -> int:
        """How many rows have been inserted, updated or deleted so far."""
        ...

    def before_linking(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        """The next time a user has been made and its identity has not, have this happen first."""
        ...


def claims(subject: str = "auth0|1", **others: Any) -> dict[str, Any]:
    """Claims of a person, ``others`` over them; ``None`` leaves one out."""
    usual = {
        "iss": ISSUER,
        "sub": subject,
        "email": f"{subject.partition('|')[2]}@example.com",
        "name": "Ada",
        "picture": "https://example.com/ada.png",
    }
    return {name: value for name, value in {**usual, **others}.items() if value is not None}


class ProvisioningContract(
    Contract,
    contract="provisioning",
    capabilities={
        "hook": "a test can have something happen between the making of a user and of its identity",
        "writes": "rows written can be counted",
    },
):
    """Subclass it, define the fixture ``harness``, and pytest runs it."""

    # ---- who is new ------------------------------------------------------------------------------------

    async def test_new_person_gets_a_user_and_an_identity(self, harness: ProvisioningHarness) -> None:
        user = await harness.provision(claims())
        assert (user.email, user.name, user.avatar_url) == (
            "1@example.com",
            "Ada",
            "https://example.com/ada.png",
        )
        (stored,) = await harness.users()
        assert _values(stored) == _values(user)
        assert await harness.identities() == {(ISSUER, "auth0|1"): user.id}

    async def test_name_and_picture_may_be_missing(self, harness: ProvisioningHarness) -> None:
        user = await harness.provision(claims(name=None, picture=None))
        assert (user.email, user.avatar_url) == ("1@example.com", None)

    async def test_each_person_gets_a_user_of_their_own(self, harness: ProvisioningHarness) -> None:
        first = await harness.provision(claims("auth0|1"))
        second = await harness.provision(claims("auth0|2"))
        assert first.id != second.id
        assert len(await harness.identities()) == 2

    async def test_subject_belongs_to_its_issuer(self, harness: ProvisioningHarness) -> None:
        first = await harness.provision(claims())
        other = await harness.provision(claims(iss="https://other.example", email="other@example.com"))
        assert first.id != other.id

    # ---- drift -----------------------------------------------------------------------------------------

    @needs("writes")
    async def test_without_drift_nothing_is_written(self, harness: ProvisioningHarness) -> None:
        first = await harness.provision(claims())
        before = await harness.writes()
        again = await harness.provision(claims())
        assert _values(again) == _values(first)
        assert await harness.writes() == before

    async def test_only_what_drifted_changes(self, harness: ProvisioningHarness) -> None:
        first = await harness.provision(claims())
        changed = await harness.provision(claims(picture="https://example.com/new.png"))
        assert _values(changed) == (first.id, first.email, first.name, "https://example.com/new.png")
        (stored,) = await harness.users()
        assert _values(stored) == _values(changed)

    @needs("writes")
    async def test_drift_is_one_write(self, harness: ProvisioningHarness) -> None:
        await harness.provision(claims())
        before = await harness.writes()
        await harness.provision(claims(picture="https://example.com/new.png", name="Ada L."))
        assert await harness.writes() == before + 1

    async def test_new_email_is_taken_over(self, harness: ProvisioningHarness) -> None:
        first = await harness.provision(claims())
        await harness.provision(claims(email="new@example.com"))
        (stored,) = await harness.users()
        assert _values(stored) == (first.id, "new@example.com", first.name, first.avatar_url)

    async def test_drift_of_one_leaves_others_alone(self, harness: ProvisioningHarness) -> None:
        await harness.provision(claims("auth0|1"))
        other = await harness.provision(claims("auth0|2"))
        await harness.provision(claims("auth0|1", name="Grace"))
        assert _values(other) in [_values(user) for user in await harness.users()]

    async def test_claim_that_is_missing_is_no_drift(self, harness: ProvisioningHarness) -> None:
        first = await harness.provision(claims())
        again = await harness.provision(claims(name=None, picture=None))
        assert _values(again) == _values(first)

    # ---- races -----------------------------------------------------------------------------------------

    @needs("hook")
    async def test_loser_of_a_race_gets_the_winners_user(self, harness: ProvisioningHarness) -> None:
        winners = []

        async def win() -> None:
            winners.append(await harness.provision(claims()))

        harness.before_linking(win)
        user = await harness.provision(claims())
        assert user.id == winners[0].id
        assert await harness.identities() == {(ISSUER, "auth0|1"): user.id}

    @needs("hook")
    async def test_loser_of_a_race_leaves_no_orphan(self, harness: ProvisioningHarness) -> None:
        harness.before_linking(lambda: harness.provision(claims()))
        user = await harness.provision(claims())
        assert [stored.id for stored in await harness.users()] == [user.id]

    @needs("hook")
    async def test_failure_that_is_no_race_is_raised(self, harness: ProvisioningHarness) -> None:
        async def fail() -> None:
            raise _OutOfOrderError

        harness.before_linking(fail)
        await assert_raises_async(_OutOfOrderError, lambda: harness.provision(claims()))
        assert (list(await harness.users()), dict(await harness.identities())) == ([], {})

    async def test_ten_at_once_make_one_user(self, harness: ProvisioningHarness) -> None:
        found = await asyncio.gather(*(harness.provision(claims()) for _ in range(10)))
        (stored,) = await harness.users()
        assert {user.id for user in found} == {stored.id}
        assert await harness.identities() == {(ISSUER, "auth0|1"): stored.id}

    async def test_different_people_at_once_are_kept_apart(self, harness: ProvisioningHarness) -> None:
        found = await asyncio.gather(*(harness.provision(claims(f"auth0|{n}")) for n in range(10)))
        assert {user.email for user in found} == {f"{n}@example.com" for n in range(10)}
        assert len(await harness.identities()) == len(await harness.users()) == 10

    # ---- missing data ----------------------------------------------------------------------------------

    async def test_claims_without_an_email_are_refused(self, harness: ProvisioningHarness) -> None:
        await assert_raises_async(harness.refusal, lambda: harness.provision(claims(email=None)))
        await assert_raises_async(harness.refusal, lambda: harness.provision(claims(email="")))
        assert (list(await harness.users()), dict(await harness.identities())) == ([], {})

    async def test_claims_without_a_subject_are_refused(self, harness: ProvisioningHarness) -> None:
        await assert_raises_async(harness.refusal, lambda: harness.provision(claims(sub="")))
        without = {name: value for name, value in claims().items() if name != "sub"}
        await assert_raises_async(harness.refusal, lambda: harness.provision(without))
        assert list(await harness.users()) == []

    async def test_known_user_stays_as_it_is_when_claims_are_refused(
        self, harness: ProvisioningHarness
    ) -> None:
        first = await harness.provision(claims())
        await assert_raises_async(
            harness.refusal, lambda: harness.provision(claims(email=None, name="Mallory"))
        )
        (stored,) = await harness.users()
        assert _values(stored) == _values(first)


class _OutOfOrderError(Exception):
    """Stands for a failure of the store."""


def _values(user: User) -> tuple[object, str, str | None, str | None]:
    return user.id, user.email, user.name, user.avatar_url
