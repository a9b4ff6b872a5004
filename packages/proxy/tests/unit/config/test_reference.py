from __future__ import annotations

import re
import tomllib
from pathlib import Path

from edgeproxy import errors
from edgeproxy.config import load
from edgeproxy.config.reference import reference_page
from edgeproxy.config.settings import SETTINGS

PAGE = Path(__file__).parents[5] / "docs" / "configuration.md"


def test_the_page_in_the_documentation_is_the_one_that_is_generated() -> None:
    assert PAGE.read_text() == reference_page(), "run: edgeproxy config reference > docs/configuration.md"


def test_every_setting_has_one_row() -> None:
    variables = re.findall(r"^\| `(EDGEPROXY_\w+)` \|", reference_page(), re.MULTILINE)
    assert variables == [setting.variable for setting in SETTINGS.values()]


def test_every_row_has_five_cells() -> None:
    rows = [line for line in reference_page().splitlines() if line.startswith("| `EDGEPROXY_")]
    assert {row.count("|") for row in rows} == {6}


def test_a_row_tells_spellings_default_values_and_meaning() -> None:
    assert (
        "| `EDGEPROXY_ACCESS_LOG` | `access_log`<br>`--access-log` | `off` | off, sampled or all "
        "| Which finished connections get a line in the log. ↻ |"
    ) in reference_page().splitlines()


def test_a_secret_has_no_flag() -> None:
    assert "`postgres_url`" in reference_page()
    assert "--postgres-url" not in reference_page()


def test_every_exit_code_is_explained() -> None:
    codes = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.EdgeproxyError)
    }
    explained = {int(code) for code in re.findall(r"^\| (\d+) \|", reference_page(), re.MULTILINE)}
    assert explained == codes | {0, 130}


def test_the_example_of_a_geography_is_right(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", reference_page(), re.DOTALL)
    file = tmp_path / "example.toml"
    file.write_text(example)
    geography = load({}, {}, file).geography
    assert set(tomllib.loads(example)) == {"countries", "regions"}
    assert geography.region_of("NG") == "af"
