"""Countries in the lists of who may connect must be countries that there are."""

from __future__ import annotations

import pytest

from edgeproxy.config import load
from edgeproxy.errors import ConfigError


@pytest.mark.parametrize("name", ["allow_countries", "deny_countries"])
def test_a_country_that_nobody_is_from_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {name: "DE,ZZ"}, None)
    flag = f"--{name.replace('_', '-')}"
    assert caught.value.problems == (f"{flag}: 'ZZ' is no country code of ISO 3166-1",)


def test_countries_are_listed_in_any_case() -> None:
    config = load({"EDGEPROXY_ALLOW_COUNTRIES": "de, FR"}, {}, None)
    assert config.allow_countries == ("DE", "FR")
    assert config.deny_countries == ()
