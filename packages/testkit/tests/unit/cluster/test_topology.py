from __future__ import annotations

import pytest

from testkit.cluster.logs import complaints
from testkit.cluster.topology import Between, Node, Program, Topology
from testkit.faults.vocabulary import Latency

A, B, C = Node("a", "eu", Program()), Node("b", "us", Program()), Node("c", "eu")


@pytest.mark.parametrize(
    ("nodes", "links", "said"),
    [
        ((A, A), (), "several nodes are called a"),
        ((A,), (("a", "z"),), "a>z is about z"),
        ((A,), (("y", "z"),), "is about y, z"),
        ((A, C), (("a", "c"),), "a>c leads to a node without a program"),
    ],
)
def test_what_makes_no_cluster_is_refused(
    nodes: tuple[Node, ...], links: tuple[tuple[str, str], ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Topology(nodes, links)


def test_latency_is_that_of_the_regions_either_way() -> None:
    topology = Topology((A, B, C), (("c", "a"), ("a", "b")), (Between("eu", "us", 0.04, 0.01),))
    assert topology.latency("a", "b") == topology.latency("b", "a") == Latency(0.04, 0.01)
    assert topology.latency("c", "a") is None
    assert topology.peers("a") == ["b"]


def test_a_region_may_be_far_from_itself() -> None:
    topology = Topology((A, C), latencies=(Between("eu", "eu", 0.001),))
    assert topology.latency("a", "c") == Latency(0.001)


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-01 ERROR nothing works",
        "CRITICAL: no more",
        "Traceback (most recent call last):",
        '{"event": "x", "level": "error"}',
        "thread 7: PANIC at the disco",
    ],
)
def test_complaints_are_found_and_told_with_the_node(line: str) -> None:
    assert complaints({"a": f"fine\n{line}\nfine"}) == [f"a: {line}"]
    assert complaints({"a": line}, [line[:5]]) == []


def test_talk_about_errors_is_no_complaint() -> None:
    assert complaints({"a": 'errors=0\n"level": "info"\nTERRORS of the deep'}) == []
