"""./dev on machines that lack something: one line that names the remedy, and exit code 1."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class Machine:
    """A checkout with nothing but ./dev, and a PATH with nothing but what is put there."""

    def __init__(self, folder: Path) -> None:
        self._checkout = folder / "checkout"
        self._bin = folder / "bin"
        self._checkout.mkdir()
        self._bin.mkdir()
        shutil.copy(ROOT / "dev", self._checkout)
        for program in ("cat", "dirname", "sha256sum", "uname"):
            located = shutil.which(program)
            assert located
            (self._bin / program).symlink_to(located)

    def install(self, program: str, script: str) -> None:
        path = self._bin / program
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def dev(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(self._checkout / "dev"), *arguments],
            env={"PATH": str(self._bin), **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def assert_refused(ended: subprocess.CompletedProcess[str], message: str) -> None:
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"dev: {message}\n")


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_usage_is_printed_without_setting_anything_up(machine: Machine, arguments: list[str]) -> None:
    ended = machine.dev(*arguments)
    assert ended.returncode == 0
    assert ended.stdout.startswith("usage: ./dev SESSION...")


def test_another_system_than_linux_is_pointed_to_a_container(machine: Machine) -> None:
    machine.install("uname", "echo Darwin")
    assert_refused(
        machine.dev("test"),
        "edgeproxy needs Linux (epoll, SO_REUSEPORT, memfd): run this in a Linux container",
    )


def test_a_missing_python_is_named_with_the_command_that_installs_it(machine: Machine) -> None:
    assert_refused(
        machine.dev("setup"),
        "no Python 3.11 or newer found; install one: apt-get install python3 python3-venv",
    )


def test_a_shim_that_leads_nowhere_and_an_old_python_are_passed_over(machine: Machine) -> None:
    machine.install("python3.13", "echo no such version >&2; exit 127")
    machine.install("python3", "exit 0")
    assert "no Python 3.11 or newer found" in machine.dev("setup").stderr


def test_a_python_without_its_venv_module_is_named_with_the_command_that_installs_it(
    machine: Machine,
) -> None:
    machine.install("python3", "echo 3.11 bare")
    assert_refused(
        machine.dev("setup"),
        "python3 cannot make environments; install its venv module: apt-get install python3-venv",
    )


def test_an_override_that_does_not_work_is_named(machine: Machine) -> None:
    machine.install("python3.13", "echo 3.13 venv")
    assert_refused(
        machine.dev("setup", DEV_PYTHON="python3.99"),
        "DEV_PYTHON=python3.99 is no Python 3.11 or newer that runs",
    )


def test_a_missing_git_is_named_with_the_command_that_installs_it(machine: Machine) -> None:
    machine.install("python3", f'exec {sys.executable} "$@"')
    ended = machine.dev("setup")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "dev: git is missing; install it: apt-get install git"
