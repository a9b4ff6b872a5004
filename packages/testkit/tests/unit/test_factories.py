from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest

from testkit.factories import Draw, Factory, numbered, one_of


@dataclass(frozen=True)
class Backend:
    id: str
    region: str
    weight: int
    healthy: bool


def weight(draw: Draw) -> int:
    return draw.rng.randint(1, 255)


def backends(seed: int) -> Factory[Backend]:
    fields = {"id": numbered("mock-{}"), "region": one_of("eu", "us"), "weight": weight}
    return Factory(Backend, Random(seed), **fields, healthy=True)


def test_values_differ_where_they_must(seed: int) -> None:
    made = backends(seed).batch(100)
    assert [each.id for each in made] == [f"mock-{number}" for number in range(100)]
    assert {each.region for each in made} == {"eu", "us"}
    assert len({each.weight for each in made}) > 10
    assert {each.healthy for each in made} == {True}


def test_same_seed_makes_the_same(seed: int) -> None:
    assert backends(seed).batch(10) == backends(seed).batch(10)


def test_what_is_given_stands_and_changes_nothing_else(seed: int) -> None:
    factory = backends(seed)
    sick, *others = factory(healthy=False, region="mars"), *factory.batch(2)
    as_drawn, *as_before = backends(seed).batch(3)
    assert sick == replace(as_drawn, healthy=False, region="mars")
    assert others == as_before


def test_any_callable_makes(rng: Random) -> None:
    claims: Factory[dict[str, str]] = Factory(
        dict, rng, sub=numbered("auth0|{}"), email=lambda draw: f"user{draw.number}@example.com"
    )
    assert claims.batch(2, name="Ada") == [
        {"sub": f"auth0|{number}", "email": f"user{number}@example.com", "name": "Ada"} for number in range(2)
    ]


def test_field_that_the_class_does_not_have_is_refused(rng: Random) -> None:
    with pytest.raises(TypeError, match="colour"):
        Factory(Backend, rng, id="a", region="b", weight=1, healthy=True)(colour="red")
