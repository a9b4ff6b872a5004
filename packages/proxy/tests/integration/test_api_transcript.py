"""``docs/api.md``, typed line by line: each command of its session prints what stands below it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from packages.proxy.tests.integration.proxies import API, Api, StartProxy

PAGE = Path(__file__).parents[4] / "docs" / "api.md"
ADDRESS = "http://127.0.0.1:8081"
AGE = re.compile(r'(_secs":)\d+')


def session() -> list[tuple[str, str]]:
    """Commands, and what each prints."""
    (block,) = re.findall(
        r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    steps = [step.partition("\n") for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, printed) for command, _, printed in steps]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_command_prints_what_the_document_shows(start_proxy: StartProxy) -> None:
    url = Api(start_proxy(**API)).url
    steps = session()
    assert len(steps) >= 6
    for command, expected in steps:
        assert ADDRESS in command
        done = subprocess.run(
            ["bash", "-c", command.replace(ADDRESS, url)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # How long ago something was depends on who is asked when.
        printed, shown = (AGE.sub(r"\g<1>0", text) for text in (f"{done.stdout}\n", expected))
        assert (printed, done.returncode) == (shown, 0), command
