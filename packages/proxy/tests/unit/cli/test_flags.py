from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cli.flags import config_path, help_text, load_with_flags, parse_flags
from edgeproxy.config.settings import SETTINGS
from edgeproxy.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ([], {}),
        (["--db-path", "x"], {"db_path": "x"}),
        (["--db-path=x=y"], {"db_path": "x=y"}),
        (["--db-path="], {"db_path": ""}),
        (["--db-path=--x"], {"db_path": "--x"}),
        (["--shutdown-timeout-secs", "-1"], {"shutdown_timeout_secs": "-1"}),
        (["--tls-enabled"], {"tls_enabled": "true"}),
        (["--tls-enabled", "--region", "eu"], {"tls_enabled": "true", "region": "eu"}),
        (["--tls-enabled", "false"], {"tls_enabled": "false"}),
        (["--config", "f", "--region", "eu"], {"config": "f", "region": "eu"}),
        (["--nope"], {"nope": ""}),
        (["--nope", "x"], {"nope": "x"}),
    ],
)
def test_flags_become_text_by_name(arguments: list[str], flags: dict[str, str]) -> None:
    assert parse_flags(arguments) == (flags, [])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x"], "'x': unexpected argument; settings are written --name value"),
        (["-p"], "'-p': unexpected argument; settings are written --name value"),
        (["--region"], "--region: needs a value; write --region VALUE"),
        (["--region", "--db-path", "x"], "--region: needs a value; write --region VALUE"),
        (["--config"], "--config: needs a value; write --config VALUE"),
        (["--region", "eu", "--region=us"], "--region: given twice; keep one"),
    ],
)
def test_an_argument_that_is_no_flag_is_a_problem(arguments: list[str], problem: str) -> None:
    assert parse_flags(arguments)[1] == [problem]


@given(st.lists(st.sampled_from(["--region", "--tls-enabled", "--", "-", "--=", "eu", ""]) | st.text()))
def test_any_arguments_are_split(arguments: list[str]) -> None:
    flags, problems = parse_flags(arguments)
    assert all(isinstance(value, str) for value in flags.values())
    assert len(flags) + len(problems) <= len(arguments)


def test_the_file_may_be_named_among_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('region = "us"\nworkers = 3')
    config = load_with_flags(["--config", str(file), "--workers", "4"])
    assert (config.region, config.workers) == ("us", 4)


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_REGION", "ap")
    assert load_with_flags([]).region == "ap"


def test_problems_of_the_arguments_come_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROXY_REGION", "mars")
    with pytest.raises(ConfigError) as caught:
        load_with_flags(["x", "--nope"])
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "'x'",
        "--nope",
        "EDGEPROXY_REGION",
    ]


class TestHelp:
    def test_lists_every_flag_that_may_be_used(self) -> None:
        words = help_text(["Words."], 100).replace(",", " ").split()
        assert {setting.flag for setting in SETTINGS.values() if not setting.is_secret} <= set(words)
        assert "--config" in words
        assert "--postgres-url" not in words

    def test_begins_with_the_introduction(self) -> None:
        assert help_text(["One.", "Two."], 100).startswith("One.\n\nTwo.\n\nConfiguration file\n")

    def test_tells_defaults_and_values(self) -> None:
        text = help_text([], 200)
        assert "[whole number, 1 to 256; default: number of usable cores]" in text
        assert "[path; default: none]" in text

    @pytest.mark.parametrize(("width", "longest"), [(1, 50), (60, 60), (100, 100)])
    def test_fits_the_width(self, width: int, longest: int) -> None:
        text = help_text(["word " * 50], width)
        assert max(map(len, text.splitlines())) <= longest


@pytest.mark.parametrize(
    ("arguments", "variable", "path"),
    [
        ([], "", None),
        ([], "from-environment", Path("from-environment")),
        (["--config", "from-flag"], "from-environment", Path("from-flag")),
    ],
)
def test_the_file_is_named_by_the_flag_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str, path: Path | None
) -> None:
    monkeypatch.setenv("EDGEPROXY_CONFIG", variable)
    assert config_path(arguments) == path
