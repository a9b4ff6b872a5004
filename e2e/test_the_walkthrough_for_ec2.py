"""``docs/operations/ec2.md``, followed to the letter: what it tells people to type does what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from e2e.hosts.host import shell
from e2e.hosts.pop import HostPop
from e2e.hosts.world import World

pytestmark = pytest.mark.blank(processes="needs systemd and an instance-metadata service")

_PAGE = Path(__file__).parents[1] / "docs" / "operations" / "ec2.md"
_BLOCK = re.compile(r"\(\*(on the\s+instance|from\s+outside)\*\):\n+```sh\n(.*?)```", re.DOTALL)
_WORD = "pop() {"
"""In the block that defines a word for later ones, as a shell remembers it."""
_END_BACKENDS = (
    "for each in /proc/[0-9]*; do"
    '  if grep -qa "[m]ock_backend" "$each/cmdline" 2>/dev/null; then kill "${each#/proc/}"; fi; '
    "done"
)


class Block(NamedTuple):
    """Commands of the page."""

    is_outside: bool
    commands: str


def _blocks() -> list[Block]:
    page = _PAGE.read_text(encoding="utf-8")
    return [Block("outside" in where, commands) for where, commands in _BLOCK.findall(page)]


def _no_backends(pop: HostPop) -> None:
    """A machine without the mock backend that the page starts."""
    program = "/opt/edgeproxy/bin/mock-backend"
    pop.host.run("mv", program, f"{program}.away")
    pop.host.undo(pop.host.run, "mv", f"{program}.away", program)


@pytest.fixture
def new_instance(host_pop: HostPop) -> Iterator[HostPop]:
    """The POP as its first boot leaves it."""
    pop = host_pop
    pop.host.run("rm", "/etc/edgeproxy/edgeproxy.env")
    pop.host.run("systemctl", "restart", "edgeproxy-boot.service")
    pop.wait_active()
    settings = "/etc/edgeproxy/edgeproxy.env"
    pop.host.run("cp", "--preserve", settings, f"{settings}.booted")
    pop.host.undo(pop.host.run, "mv", f"{settings}.booted", settings)
    yield pop
    pop.host.run(*shell(_END_BACKENDS))


@pytest.mark.planted(by=_no_backends)
def test_every_command_of_the_page_works(new_instance: HostPop, world: World) -> None:
    pop, blocks = new_instance, _blocks()
    (definition,) = (block.commands for block in blocks if _WORD in block.commands)
    # A block that lost its mark would not be typed any more.
    assert len(blocks) == _PAGE.read_text(encoding="utf-8").count("```sh\n")

    said = []
    for block in blocks:
        pop.step(f"somebody types: {block.commands}")
        if block.is_outside:
            host, address = world.client_host("DE"), pop.place.addresses["north"]
            said.append(host.run(*shell(block.commands), env={"POP": address}))
        else:
            before = "" if _WORD in block.commands else f"{{ {definition}}} >/dev/null\n"
            said.append(pop.host.run(*shell(before + block.commands), env={"NO_COLOR": "1"}))

    settings, configured, backends, table, explained, outside, drained, night, upgraded, replicated = said
    assert "EDGEPROXY_REGION=eu\n" in settings
    assert settings.endswith("active\n")
    assert "/var/lib/edgeproxy/routing.db" in configured
    assert "OK - mock-us-1 (us)" in backends
    assert "mock-us-1|us|9003|1" in table
    assert "region of this POP" in explained
    answers = re.findall(r'"backend_id": *"([^"]*)"', outside)
    assert len(answers) == 6
    assert len(set(answers)) == 1
    assert re.search(r"mock-eu-1 .*healthy = 0 in the routing table", drained)
    assert '"event": "listening"' in night
    assert "serves; process" in upgraded
    assert upgraded.endswith("active\n")
    assert "-rw-r----- root edgeproxy" in replicated
    assert re.search(rf"{pop.place.instance} +self .*{pop.place.addresses['eu']}:4001", replicated)
