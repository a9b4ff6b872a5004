"""Many nodes and a bad network: whatever happened, afterwards all see who is there and nobody else."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.core.replication.members import Happened, State
from edgeproxy.core.replication.membership import NameTaken
from packages.proxy.tests.unit.core.replication.gossiping import Cluster, endpoint

pytestmark = pytest.mark.feature("replication.membership")


def started(nodes: int, seed: int = 1) -> Cluster:
    cluster = Cluster(seed)
    for number in range(nodes):
        cluster.start(number)
    cluster.until(cluster.agrees)
    assert cluster.agrees(), f"seed {seed}"
    return cluster


def test_nodes_that_know_one_of_them_find_all() -> None:
    cluster = started(12)
    assert cluster.now_s < 10.0


def test_nothing_is_said_but_questions_when_nothing_happens() -> None:
    cluster = started(12)
    cluster.run(30.0)
    before = cluster.datagrams
    cluster.run(60.0)
    assert cluster.datagrams - before < 3.5 * 60 * 12, "per node and interval"


def test_each_node_asks_one_other_in_an_interval_and_everybody_is_asked_as_often() -> None:
    cluster = started(5)
    cluster.run(10.0)
    before = {node: each.sent.copy() for node, each in cluster.nodes.items()}
    cluster.run(200.0)
    for node, membership in cluster.nodes.items():
        since = membership.sent - before[node]
        assert 170 <= since["ping"] <= 200, "beats are a quarter of an interval apart"
        assert 160 <= since["ack"] <= 210
        assert since["pingrequest"] == since["gossip"] == 0
        assert 5 <= since["sync"] <= 30


def test_who_is_killed_is_dead_to_all_and_comes_back_under_its_name() -> None:
    cluster = started(6)
    cluster.kill("n3")
    cluster.run(30.0)
    assert all(cluster.sees(node, State.DEAD) == {"n3"} for node in cluster.nodes)
    assert cluster.happened("n0", "n3") == [Happened.UP, Happened.SUSPECT, Happened.DEAD]
    # The machine's clock went back, so its incarnation is not greater by itself.
    cluster.start(3, incarnation=0)
    cluster.until(cluster.agrees)
    assert cluster.agrees()
    assert cluster.nodes["n3"].twin is None


def test_who_leaves_has_left_at_once() -> None:
    cluster = started(6)
    cluster.perform("n3", cluster.nodes["n3"].leave())
    cluster.until(lambda: cluster.nodes["n3"].is_gone)
    cluster.kill("n3")
    cluster.run(2.0)
    assert all(cluster.sees(node, State.LEFT) == {"n3"} for node in cluster.nodes)
    assert cluster.happened("n0", "n3") == [Happened.UP, Happened.LEFT]


def test_two_halves_find_together_again_when_seeds_are_gone() -> None:
    cluster = started(8)
    cluster.seeds = []
    cluster.split(4)
    cluster.run(60.0)
    assert cluster.sees("n0", State.DEAD) == {"n4", "n5", "n6", "n7"}
    cluster.heal()
    cluster.until(cluster.agrees)
    assert cluster.agrees()


def test_two_halves_that_have_forgotten_each_other_find_together_by_their_seeds() -> None:
    cluster = started(4)
    cluster.split(2)
    cluster.run(200.0)
    assert [cluster.sees(node, *State) for node in ("n0", "n3")] == [{"n1"}, {"n2"}]
    assert cluster.happened("n0", "n2")[-1] is Happened.FORGOTTEN
    cluster.heal()
    cluster.until(cluster.agrees)
    assert cluster.agrees()


def test_a_path_that_fails_one_way_makes_nobody_dead() -> None:
    cluster = started(6)
    cluster.passes = lambda source, to: (source, to) != (endpoint(1), endpoint(2))
    cluster.run(120.0)
    assert cluster.agrees()
    assert Happened.DEAD not in cluster.happened("n1", "n2") + cluster.happened("n2", "n1")


def test_a_node_that_is_alone_finds_others_whenever_they_come() -> None:
    cluster = Cluster()
    cluster.seeds = [endpoint(0), endpoint(1)]
    cluster.start(1)
    cluster.run(300.0)
    cluster.start(0)
    cluster.until(cluster.agrees)
    assert cluster.agrees()
    cluster.kill("n0")
    cluster.run(200.0)
    assert cluster.sees("n1", *State) == set()
    cluster.start(0)
    cluster.until(cluster.agrees)
    assert cluster.agrees()


def test_two_nodes_of_one_name_are_both_told() -> None:
    cluster = started(3)
    cluster.start(7, node="n2", incarnation=5)
    cluster.run(20.0)
    for node, other in (("n2", 7), ("n2'", 2)):
        assert [each for each in cluster.told[node] if isinstance(each, NameTaken)] == [
            NameTaken(endpoint(other))
        ]


def _is_gone(cluster: Cluster, node: str) -> bool:
    return cluster.nodes[node].is_gone


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_whatever_happened_all_see_who_is_there(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32), label="seed")
    cluster = started(data.draw(st.integers(2, 7), label="nodes"), seed)
    cluster.loss = data.draw(st.sampled_from([0.0, 0.1, 0.3]), label="loss")
    for _ in range(data.draw(st.integers(1, 4), label="steps")):
        living = sorted(node for node in cluster.nodes)
        step = data.draw(st.sampled_from(["kill", "start", "leave", "partition", "heal"]), label="step")
        if step == "start":
            gone = [number for number in range(7 + 4) if f"n{number}" not in cluster.nodes]
            cluster.start(gone[0], incarnation=int(cluster.now_s))
        elif step == "partition":
            cluster.split(data.draw(st.integers(1, 8), label="cut"))
        elif step == "heal":
            cluster.heal()
        elif len(living) > 1:
            # Seeds stay: with everybody who knew somebody gone, there is nothing to find together by.
            victim = data.draw(st.sampled_from(living[1:]), label="victim")
            if step == "leave":
                cluster.perform(victim, cluster.nodes[victim].leave())
                cluster.until(partial(_is_gone, cluster, victim))
            cluster.kill(victim)
        cluster.run(data.draw(st.floats(0.0, 20.0), label="seconds"))
    cluster.heal()
    cluster.loss = 0.0
    cluster.until(cluster.agrees, 300.0)
    assert cluster.agrees()
    cluster.run(30.0)
    assert cluster.agrees(), "and it stays so"
