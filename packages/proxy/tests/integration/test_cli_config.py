"""The command line as a user meets it: real processes, real pipes, real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.config.reference import reference_page

# Each of them makes typer colour what goes into a pipe.
FORCED_COLOUR = {"FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"}


def edgeproxy(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in FORCED_COLOUR}
    return subprocess.run(
        [sys.executable, "-m", "edgeproxy", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=inherited | environ,
        timeout=50,
    )


def error_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = done.stderr.splitlines()
    assert all(line.startswith("edgeproxy: error: ") for line in lines), done.stderr
    return [line.removeprefix("edgeproxy: error: ") for line in lines]


def test_check_of_right_settings_prints_ok() -> None:
    done = edgeproxy("config", "check", EDGEPROXY_REGION="eu")
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")


def test_check_lists_every_problem_of_every_source_and_exits_2(tmp_path: Path) -> None:
    file = tmp_path / "edgeproxy.toml"
    file.write_text("worker = 2\n")
    done = edgeproxy(
        *("config", "check", "--config", str(file), "--regin", "eu"), EDGEPROXY_LISTEN_ADDR=":8080"
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert error_lines(done) == [
        f"{file}: worker: unknown setting; did you mean workers?",
        (
            "EDGEPROXY_LISTEN_ADDR: ':8080' has no IP address; write an IP address and a port, "
            "such as 0.0.0.0:8080 or [::]:8080"
        ),
        "--regin: unknown flag; did you mean --region?",
    ]


def test_show_merges_all_sources(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text('region = "us"\nworkers = 3\napp = "web"\n')
    done = edgeproxy(
        *("config", "show", "--json", "--app=api"),
        cwd=tmp_path,
        EDGEPROXY_CONFIG="e.toml",
        EDGEPROXY_WORKERS="4",
    )
    settings = json.loads(done.stdout)["settings"]
    assert done.returncode == 0
    assert settings["region"] == {"value": "us", "source": "e.toml"}
    assert settings["workers"] == {"value": 4, "source": "EDGEPROXY_WORKERS"}
    assert settings["app"] == {"value": "api", "source": "--app"}
    assert settings["db_path"] == {"value": "routing.db", "source": "default"}


def test_show_prints_a_file_that_check_accepts(tmp_path: Path) -> None:
    shown = edgeproxy("config", "show", "--region", "ap", EDGEPROXY_POSTGRES_URL="postgres://me:hunter2@h/d")
    file = tmp_path / "shown.toml"
    file.write_text(shown.stdout)
    assert "hunter2" not in shown.stdout
    assert edgeproxy("config", "check", "--config", str(file)).stdout == "OK\n"


def test_reference_prints_the_page_and_nothing_else() -> None:
    done = edgeproxy("config", "reference")
    assert (done.returncode, done.stdout) == (0, reference_page())


@pytest.mark.parametrize("arguments", [(), ("config",), ("nope",), ("config", "nope")])
def test_a_command_that_does_not_exist_exits_2(arguments: tuple[str, ...]) -> None:
    done = edgeproxy(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_lists_the_commands() -> None:
    done = edgeproxy("--help", NO_COLOR="1", COLUMNS="80")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert {"run", "config"} <= set(done.stdout.split())


@pytest.mark.parametrize("arguments", [("run", "--help"), ("--", "run", "--help")])
def test_help_of_run_lists_the_flags(arguments: tuple[str, ...]) -> None:
    done = edgeproxy(*arguments, COLUMNS="60")
    assert done.returncode == 0
    assert "  --listen-addr VALUE" in done.stdout.splitlines()
    assert max(map(len, done.stdout.splitlines())) <= 60


def test_run_with_wrong_settings_exits_2() -> None:
    done = edgeproxy("run", "--pool-enabled", EDGEPROXY_REGION="mars")
    assert done.returncode == 2
    assert [line.split(":")[0] for line in error_lines(done)] == ["--pool-enabled", "EDGEPROXY_REGION"]


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
