"""The unit files that ship: systemd accepts them, and they agree with the settings that they lean on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.config.settings import SETTINGS
from edgeproxy.errors import ConfigError
from edgeproxy.runtime.socket_activation import NAMES

pytestmark = pytest.mark.usefixtures("unmeasured")

UNITS = Path(__file__).parents[4] / "docs" / "operations" / "systemd"
PROGRAM = "/opt/edgeproxy/bin/edgeproxy"


def values_of(unit: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_them(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        # The program is not there; anything that can be run is, for what is looked at.
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    # Units of the machine that runs this may have faults of their own.
    said = [line for line in verified.stderr.splitlines() if "edgeproxy" in line]
    assert said == []
    assert verified.returncode == 0, verified.stderr


def test_the_service_has_time_to_drain() -> None:
    (allowed_s,) = values_of("edgeproxy.service", "TimeoutStopSec")
    assert float(allowed_s) > float(str(SETTINGS["shutdown_timeout_secs"].default))


def test_wrong_settings_do_not_restart_it() -> None:
    assert values_of("edgeproxy.service", "RestartPreventExitStatus") == [str(ConfigError.exit_code)]


def test_the_socket_has_a_name_that_is_known() -> None:
    (name,) = values_of("edgeproxy.socket", "FileDescriptorName")
    assert name in NAMES


def test_its_commands_exist() -> None:
    (start,) = values_of("edgeproxy.service", "ExecStart")
    (reload,) = values_of("edgeproxy.service", "ExecReload")
    for line, first_words in ((start, "Usage: edgeproxy run"), (reload, "Usage: edgeproxy ctl reload")):
        program, *arguments = line.split()
        assert program == PROGRAM
        shown = subprocess.run(
            [sys.executable, "-m", "edgeproxy", *arguments, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert first_words in shown.stdout
