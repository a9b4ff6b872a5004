"""What docs/dns.md shows on the screen is what a running proxy answers."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from packages.proxy.tests.integration.proxies import EDGEPROXY
from testkit.process import ProcessFactory

DOCUMENT = Path(__file__).parents[4] / "docs" / "dns.md"
DOCUMENTED_ADDRESS = "127.0.0.1:5353"


@dataclass(frozen=True)
class Command:
    """A command line of the document and what it prints there."""

    line: str
    output: str

    def __str__(self) -> str:
        return self.line


def commands(program: str) -> list[Command]:
    """The command lines of all screens that begin with ``program``."""
    screens = re.findall(r"^```console\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    shown = [Command(*part.split("\n", 1)) for screen in screens for part in screen.split("$ ")[1:]]
    return [command for command in shown if command.line.split()[0] == program]


def documented_settings() -> dict[str, str]:
    """What the document exports before it starts the proxy."""
    (script,) = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    *exports, last = script.strip().splitlines()
    assert last == "edgeproxy run"
    words = [word for line in exports for word in shlex.split(line.removeprefix("export "))]
    return dict(word.split("=", 1) for word in words)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The port of a proxy that was made and started as the document says."""
    folder = tmp_path_factory.mktemp("documented")
    for command in commands("edgeproxy"):
        made = subprocess.run(
            [*EDGEPROXY, *shlex.split(command.line)[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        assert made.stdout == command.output
    settings = documented_settings()
    assert settings["EDGEPROXY_DNS_LISTEN_ADDR"] == DOCUMENTED_ADDRESS
    settings |= {"EDGEPROXY_DNS_LISTEN_ADDR": "127.0.0.1:0", "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0"}
    factory = ProcessFactory(folder)
    process = factory([*EDGEPROXY, "run"], env=settings, cwd=folder)
    yield process.wait_output(r'"dns": "127\.0\.0\.1:(\d+)"', timeout_s=20)[1]
    factory.stop_all()


@pytest.fixture
def dig() -> Callable[[str], str]:
    program = shutil.which("dig")
    if program is None:
        pytest.skip("dig is not installed (Debian: dnsutils)")

    def run(line: str) -> str:
        arguments = shlex.split(line)[1:]
        # Not the defaults of whoever runs the test.
        return subprocess.run(
            [program, "-r", *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout

    return run


def normal(screen: str) -> str:
    """Without what differs each time, or is empty."""
    return re.sub(r"\bid: \d+", "id: 4711", "\n".join(filter(None, screen.split("\n"))))


@pytest.mark.feature("dns.services", "dns.domain")
@pytest.mark.parametrize("command", commands("dig"), ids=str)
def test_dig_prints_what_the_document_shows(command: Command, port: str, dig: Callable[[str], str]) -> None:
    assert "-p 5353 " in command.line
    assert normal(dig(command.line.replace("-p 5353 ", f"-p {port} "))) == normal(command.output)


def test_the_document_shows_more_than_one_answer() -> None:
    assert len(commands("dig")) >= 10
