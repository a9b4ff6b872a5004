"""The table of the README says of each fault what the substrates themselves say."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

from testkit.faults import vocabulary
from testkit.faults.link import FaultLink
from testkit.faults.link_udp import DatagramFaultLink
from testkit.faults.simulated import SimulatedLink, SimulatedNode
from testkit.faults.vocabulary import Fault, LinkFault, NodeFault

README = Path(__file__).parents[3] / "README.md"
"""Where there is no repository around the tests, the installed package has the text with it."""


def rows(second: str) -> dict[str, list[str]]:
    """Name of each fault to the cells of its row, in the table whose second column is called so."""
    text = README.read_text(encoding="utf-8") if README.exists() else description("edgeproxy-testkit")
    found = re.search(rf"^\| fault \| {second} \|.*?\n\n", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return {
        name: [cell.strip() for cell in line.split("|")[2:-1]]
        for line in found[0].splitlines()[2:]
        if line
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }


def description(package: str) -> str:
    return str(metadata(package).json["description"])


def one_of(kind: type[Fault]) -> Fault:
    """A fault of a kind, whatever numbers it takes."""
    required = [each for each in kind.__dataclass_fields__ if each not in ("direction", "probability")]
    return kind(*[1 for _ in required])


SUBSTRATES, HANDLING = "fault link, TCP", "injected"
KINDS = [
    kind
    for kind in vars(vocabulary).values()
    if isinstance(kind, type) and issubclass(kind, Fault) and kind not in (Fault, LinkFault, NodeFault)
]


def test_every_fault_has_a_row_for_where_it_is_and_one_for_how_it_comes_and_goes() -> None:
    for table in (SUBSTRATES, HANDLING):
        assert sorted(rows(table)) == sorted(kind.__name__ for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_true(kind: type[Fault]) -> None:
    fault, (tcp, udp, simulated, _) = one_of(kind), rows(SUBSTRATES)[kind.__name__]
    if isinstance(fault, LinkFault):
        assert (FaultLink.unavailable(fault) is None) == tcp.startswith("x")
        assert (DatagramFaultLink.unavailable(fault) is None) == udp.startswith("x")
        assert SimulatedLink.unavailable(fault) is None
    else:
        assert tcp == udp
        assert tcp.startswith("of the process")
        assert SimulatedNode.unavailable(fault) is None
    assert simulated in {"x", "datagrams"}
