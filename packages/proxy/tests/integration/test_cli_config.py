"""The command line as a user meets it: settings from files, environment and flags; pipes; exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from edgeproxy.config.reference import reference_page
from packages.proxy.tests.integration.commands import Result, run_here

# Each of them makes typer colour what goes into a pipe.
FORCED_COLOUR = {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"}


class Edgeproxy(Protocol):
    """Runs a command with these variables besides those of the environment."""

    def __call__(self, *arguments: str, cwd: Path | None = None, **environ: str) -> Result: ...


@pytest.fixture
def edgeproxy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Edgeproxy:
    for name in FORCED_COLOUR:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, cwd: Path | None = None, **environ: str) -> Result:
        with monkeypatch.context() as scene:
            if cwd is not None:
                scene.chdir(cwd)
            for name, value in environ.items():
                scene.setenv(name, value)
            return run_here(scene, capsys, *arguments)

    return run


def test_check_of_right_settings_prints_ok(edgeproxy: Edgeproxy) -> None:
    done = edgeproxy("config", "check", EDGEPROXY_REGION="eu")
    assert done == (0, "OK\n", [])


@pytest.mark.feature("settings.strict")
def test_check_lists_every_problem_of_every_source_and_exits_2(edgeproxy: Edgeproxy, tmp_path: Path) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text("worker = 2\n")
    done = edgeproxy(
        *("config", "check", "--config", str(file), "--regin", "eu"), EDGEPROXY_LISTEN_ADDR=":8080"
    )
    assert done.code == 2
    assert done.out == ""
    assert done.errors == [
        f"{file}: worker: unknown setting; did you mean workers?",
        (
            "EDGEPROXY_LISTEN_ADDR: ':8080' has no IP address; write an IP address and a port, "
            "such as 0.0.0.0:8080 or [::]:8080"
        ),
        "--regin: unknown flag; did you mean --region?",
    ]


@pytest.mark.feature("settings.shown")
def test_show_merges_all_sources(edgeproxy: Edgeproxy, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text('region = "us"\nworkers = 3\napp = "web"\n')
    done = edgeproxy(
        *("config", "show", "--json", "--app=api"),
        cwd=tmp_path,
        EDGEPROXY_CONFIG="e.toml",
        EDGEPROXY_WORKERS="4",
    )
    settings = json.loads(done.out)["settings"]
    assert done.code == 0
    assert settings["region"] == {"value": "us", "source": "e.toml"}
    assert settings["workers"] == {"value": 4, "source": "EDGEPROXY_WORKERS"}
    assert settings["app"] == {"value": "api", "source": "--app"}
    assert settings["db_path"] == {"value": "routing.db", "source": "default"}


@pytest.mark.feature("settings.shown")
def test_show_prints_a_file_that_check_accepts(edgeproxy: Edgeproxy, tmp_path: Path) -> None:
    shown = edgeproxy("config", "show", "--region", "ap", EDGEPROXY_POSTGRES_URL="postgres://me:hunter2@h/d")
    file = tmp_path / "shown.toml"
    file.write_text(shown.out)
    assert "hunter2" not in shown.out
    assert edgeproxy("config", "check", "--config", str(file)).out == "OK\n"


def test_reference_prints_the_page_and_nothing_else(edgeproxy: Edgeproxy) -> None:
    done = edgeproxy("config", "reference")
    assert (done.code, done.out) == (0, reference_page())


@pytest.mark.parametrize("arguments", [(), ("config",), ("nope",), ("config", "nope")])
def test_a_command_that_does_not_exist_exits_2(edgeproxy: Edgeproxy, arguments: tuple[str, ...]) -> None:
    done = edgeproxy(*arguments)
    assert done.code == 2
    assert not any("Traceback" in line for line in done.errors)


def test_help_lists_the_commands(edgeproxy: Edgeproxy) -> None:
    done = edgeproxy("--help", NO_COLOR="1", COLUMNS="80")
    assert done.code == 0
    assert "\x1b" not in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert {"run", "config"} <= set(done.out.split())


@pytest.mark.parametrize("arguments", [("run", "--help"), ("--", "run", "--help")])
def test_help_of_run_lists_the_flags(edgeproxy: Edgeproxy, arguments: tuple[str, ...]) -> None:
    done = edgeproxy(*arguments, COLUMNS="60")
    assert done.code == 0
    assert "  --listen-addr VALUE" in done.out.splitlines()
    assert max(map(len, done.out.splitlines())) <= 60


def test_run_with_wrong_settings_exits_2(edgeproxy: Edgeproxy) -> None:
    done = edgeproxy("run", "--workers=none", EDGEPROXY_REGION="mars")
    assert done.code == 2
    assert [line.split(":")[0] for line in done.errors] == ["--workers", "EDGEPROXY_REGION"]


@pytest.mark.parametrize("arguments", [("run", "--help"), ("config", "show"), ("config", "reference")])
def test_a_reader_that_goes_away_is_no_noise(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgeproxy", *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            # Only output that is buffered can fail as late as at the end.
            env=os.environ | {"PYTHONUNBUFFERED": ""},
            timeout=50,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_starting_the_proxy_imports_nothing_that_only_other_commands_need() -> None:
    # Measuring coverage loads some of them on its own, before the first line runs.
    code = "import sys; early = {*sys.modules}; import edgeproxy.cli.run; print(*{*sys.modules} - early)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "edgeproxy.config.settings" in loaded
    assert not loaded & {"typer", "rich", "structlog", "tomllib", "difflib", "edgeproxy.config.reference"}
