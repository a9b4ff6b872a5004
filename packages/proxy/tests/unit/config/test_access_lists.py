"""Countries in the lists of who may connect must be countries that the proxy knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.config import load
from edgeproxy.errors import ConfigError


@pytest.mark.parametrize("name", ["allow_countries", "deny_countries"])
def test_a_country_that_nobody_is_from_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {name: "DE,ZZ"}, None)
    flag = f"--{name.replace('_', '-')}"
    assert caught.value.problems == (
        f"{flag}: 'ZZ' is no country we know; check its ISO 3166 code, or give it a region under [countries] "
        "in the TOML file",
    )


def test_a_country_that_the_file_defines_is_known(tmp_path: Path) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text('deny_countries = ["ZZ"]\n[countries]\nZZ = "eu"\n')
    assert load({}, {}, file).deny_countries == ("ZZ",)
