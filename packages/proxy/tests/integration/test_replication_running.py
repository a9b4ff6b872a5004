"""Three POPs as real processes: what is written at one is routed by at the others, whatever happens."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from edgeproxy.admin_client import AdminClient
from edgeproxy.app.replication import lock_path
from edgeproxy.config import Address
from edgeproxy.core.replication.members import Claim, Endpoint, State
from edgeproxy.core.wire.gossip_datagrams import Ack, Gossip, Ping
from edgeproxy.core.wire.gossip_datagrams import decode as decode_datagram
from edgeproxy.core.wire.gossip_datagrams import encode as encode_datagram
from edgeproxy.core.wire.peer_frames import Frame, encode
from edgeproxy.core.wire.sealing import Keyring
from packages.proxy.tests.integration.clusters import CLUSTER, KEY, Cluster
from packages.proxy.tests.integration.outbound.quic_nodes import Node, running, until
from packages.proxy.tests.integration.proxies import (
    EDGEPROXY,
    StartBackend,
    StartProxy,
    edit,
    environment,
    row,
)
from testkit.wait import wait_until

pytestmark = [
    pytest.mark.feature("replication.changes", "replication.peers", "replication.membership"),
    pytest.mark.timeout(180),
]

ALL = ("pop-a", "pop-b", "pop-c")


@pytest.fixture(scope="module")
def cluster(start_shared_proxy: StartProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three POPs that are connected."""
    cluster = Cluster(start_shared_proxy, tmp_path_factory.mktemp("cluster"))
    for name in ALL:
        cluster.start(name, metrics_enabled=True, metrics_listen_addr="127.0.0.1:0")
    cluster.wait_connected(*ALL)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def ended_at_last(cluster: Cluster) -> Iterator[list[int]]:
    """Pids of successors, which are nobody's children, ended with the cluster."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        cluster.wait(lambda pid=pid: has_ended(pid), "the successor to end")  # type: ignore[misc]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def unique(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """Begins the names of the backends of one test, which are gone when the next begins.

    Nobody listens where most of them say, and a client that tries some of those gets no backend.
    """
    begin = f"{abs(hash(request.node.name)) % 10**6}"
    yield begin
    edit(cluster.pops["pop-a"].db_path, f"DELETE FROM backends WHERE id LIKE '{begin}%'")
    cluster.wait(
        lambda: not any(backend.startswith(begin) for name in ALL for backend in cluster.ids(name)),
        "the backends of this test to be gone everywhere",
    )


def test_what_registers_at_one_is_routed_to_at_the_others_within_a_second(
    cluster: Cluster,
    start_backend: StartBackend,
    new_client: Callable[[], str],
    unique: str,
    full: bool,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    backend = start_backend(f"{unique}-last")
    api = cluster.api("pop-a")
    taken: list[float] = []
    clients = [AdminClient.connect(cluster.pops[name].admin_path) for name in ("pop-b", "pop-c")]
    for number in range(100 if full else 30):
        backend.name = f"{unique}-{number}"
        api.register(backend)
        answered_s = monotonic()
        for client in clients:
            assert client is not None
            cluster.wait(
                lambda client=client: any(  # type: ignore[misc]
                    each["id"] == backend.name for each in client.ask("table")["backends"]
                ),
                "the row to be routed by elsewhere",
                timeout_s=10.0,
            )
        taken.append(monotonic() - answered_s)
    for client in clients:
        assert client is not None
        client.close()
    record_testsuite_property("replication_median_s", statistics.median(taken))
    print(
        f"\nregistered at one, routed at the others: median {1000 * statistics.median(taken):.0f} ms, "
        f"most {1000 * max(taken):.0f} ms"
    )
    for name in ALL:
        assert cluster.pops[name].backend_of(new_client()) == backend.name
    assert api.ask("DELETE", f"/api/v1/backends/{unique}-0")[0] == 200
    cluster.wait(lambda: f"{unique}-0" not in cluster.ids("pop-c"), "the removal everywhere")


def test_edits_by_hand_at_two_pops_both_stand_unless_they_are_about_the_same(
    cluster: Cluster, unique: str
) -> None:
    a, b = cluster.pops["pop-a"], cluster.pops["pop-b"]
    names = ("id", "app", "region", "wg_ip", "port", "healthy", "weight", "soft_limit", "hard_limit")
    values = ", ".join(repr(row(unique, 9000)[name]) for name in names)
    edit(a.db_path, f"INSERT INTO backends ({', '.join(names)}) VALUES ({values})")
    cluster.wait(lambda: unique in cluster.ids("pop-b"), "the row")
    edit(a.db_path, f"UPDATE backends SET weight = 7 WHERE id = '{unique}'")
    edit(b.db_path, f"UPDATE backends SET port = 9001 WHERE id = '{unique}'")

    def both(name: str) -> bool:
        rows = cluster.pops[name].ask("table")["backends"]
        return [(each["weight"], each["port"]) for each in rows if each["id"] == unique] == [(7, 9001)]

    cluster.wait(lambda: all(map(both, ALL)), "both edits everywhere")
    edit(b.db_path, f"DELETE FROM backends WHERE id = '{unique}'")
    cluster.wait(lambda: all(unique not in cluster.ids(name) for name in ALL), "the removal everywhere")


@pytest.mark.feature("replication.shown")
def test_members_and_what_they_know_are_shown_and_measured(cluster: Cluster, unique: str) -> None:
    from urllib.request import urlopen

    body = {"id": f"{unique}-1", "app": "test", "region": "eu", "ip": "127.0.0.1", "port": 9000}
    assert cluster.api("pop-a").ask("POST", "/api/v1/register", body)[0] == 201
    cluster.wait(
        lambda: any(each.startswith("pop-a/") for each in cluster.replication("pop-a")["known"]),
        "a change that was made here",
    )

    cluster.wait(
        lambda: all(each["drift_ms"] is not None for each in cluster.replication("pop-a")["members"][1:]),
        "every clock to be known",
    )
    for what, expected in (("members", "dialled, version 1"), ("replication", "POP       pop-a of cluster")):
        shown = show(cluster, "pop-a", what)
        assert expected in shown
        assert "pop-b" in shown or what == "replication"
    (listening,) = cluster.pops["pop-a"].log("listening")
    with urlopen(f"http://{listening['metrics']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'edgeproxy_replication_members{state="alive"} 2.0' in text
    assert 'edgeproxy_replication_connected{pop="pop-c"} 1.0' in text
    assert 'edgeproxy_replication_frames_total{direction="sent",kind="digest"}' in text
    assert 'edgeproxy_replication_clock_drift_seconds{pop="pop-b"}' in text
    assert 'edgeproxy_replication_lag_changes{pop="pop-a"} 0.0' in text
    assert 'edgeproxy_replication_datagrams_total{kind="ping"}' in text
    assert "edgeproxy_replication_doubt" in text


def show(cluster: Cluster, pop: str, what: str) -> str:
    """What ``edgeproxy ctl show`` prints."""
    settings = environment({"admin_socket": cluster.pops[pop].admin_path})
    return subprocess.run(
        [*EDGEPROXY, "ctl", "show", what],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_a_pop_that_is_killed_during_writes_comes_back_and_brings_nothing_back_that_was_removed(
    cluster: Cluster, unique: str
) -> None:
    api = cluster.api("pop-a")
    body = {"app": "test", "region": "eu", "ip": "127.0.0.1"}

    def register(name: str) -> None:
        assert api.ask("POST", "/api/v1/register", {**body, "id": f"{unique}-{name}", "port": 9000})[0] == 201

    for number in range(10):
        register(f"before-{number}")
        if number == 6:
            cluster.pops["pop-c"].process.kill()
    assert api.ask("DELETE", f"/api/v1/backends/{unique}-before-0")[0] == 200
    register("after")
    cluster.wait(
        lambda: any(
            m["node"] == "pop-c" and m["state"] == "dead" for m in cluster.replication("pop-a")["members"]
        ),
        "it to be missed",
    )
    cluster.start("pop-c")
    cluster.wait(
        lambda: (
            f"{unique}-after" in cluster.ids("pop-c") and f"{unique}-before-0" not in cluster.ids("pop-c")
        ),
        "it to have caught up",
    )
    cluster.wait_same_rows(*ALL)
    assert f"{unique}-before-0" not in cluster.ids("pop-a")


def test_both_sides_of_a_partition_take_writes_and_agree_when_it_heals(
    cluster: Cluster, unique: str, full: bool
) -> None:
    cluster.wait_connected(*ALL)
    a, c = cluster.pops["pop-a"], cluster.pops["pop-c"]
    body = {"app": "test", "region": "eu", "ip": "127.0.0.1", "port": 9000}
    api_a, api_c = cluster.api("pop-a"), cluster.api("pop-c")
    assert api_a.ask("POST", "/api/v1/register", {**body, "id": f"{unique}-both"})[0] == 201
    cluster.wait(lambda: f"{unique}-both" in cluster.ids("pop-c"), "the row")
    with cluster.relay.parted(["pop-a", "pop-b"], ["pop-c"]):
        ends_s = monotonic() + (30.0 if full else 3.0)
        assert api_a.ask("POST", "/api/v1/register", {**body, "id": f"{unique}-here"})[0] == 201
        assert api_c.ask("POST", "/api/v1/register", {**body, "id": f"{unique}-there"})[0] == 201
        edit(a.db_path, f"UPDATE backends SET weight = 5 WHERE id = '{unique}-both'")
        edit(c.db_path, f"UPDATE backends SET weight = 9 WHERE id = '{unique}-both'")
        cluster.wait(
            lambda: f"{unique}-here" in cluster.ids("pop-b"), "the side that holds together to agree"
        )
        cluster.wait(lambda: monotonic() >= ends_s, "it to last", timeout_s=60)
        assert f"{unique}-here" not in cluster.ids("pop-c")
        assert f"{unique}-there" not in cluster.ids("pop-a")
    cluster.wait(
        lambda: {f"{unique}-here", f"{unique}-there"} <= cluster.ids("pop-b") & cluster.ids("pop-c"),
        "both sides to hear of each other",
        timeout_s=60,
    )
    cluster.wait_same_rows(*ALL)
    (found,) = (each for each in a.ask("table")["backends"] if each["id"] == f"{unique}-both")
    assert found["weight"] == 9, "the later one"


@pytest.mark.feature("recovery.point_in_time")
def test_a_time_that_is_restored_at_one_pop_is_restored_at_all(cluster: Cluster, unique: str) -> None:
    cluster.wait_connected(*ALL)
    a = cluster.pops["pop-a"]
    body = {"id": unique, "app": "test", "region": "eu", "ip": "127.0.0.1", "port": 9000}
    assert cluster.api("pop-b").ask("POST", "/api/v1/register", body)[0] == 201
    cluster.wait(lambda: unique in cluster.ids("pop-a") & cluster.ids("pop-c"), "the row everywhere")
    good = datetime.now(UTC).isoformat()
    edit(cluster.pops["pop-c"].db_path, f"UPDATE backends SET port = 1 WHERE id = '{unique}'")

    def port(name: str) -> list[int]:
        return [each["port"] for each in cluster.pops[name].ask("table")["backends"] if each["id"] == unique]

    cluster.wait(lambda: all(port(name) == [1] for name in ALL), "the mistake everywhere")
    settings = {
        "db_path": a.db_path,
        "replication_enabled": True,
        "replication_node_id": "pop-a",
        "admin_socket": a.admin_path,
    }
    subprocess.run(
        [*EDGEPROXY, "db", "restore", "--to", good],
        env={**os.environ, **environment(settings)},
        capture_output=True,
        check=True,
    )
    cluster.wait(lambda: all(port(name) == [9000] for name in ALL), "the time before the mistake everywhere")


@pytest.mark.feature("replication.keys")
async def test_strangers_are_refused_and_counted_by_reason(cluster: Cluster) -> None:
    # Past the relay, which knows no strangers.
    address = Address("127.0.0.1", cluster.relay._bound["pop-a", "transport"])
    gossip = ("127.0.0.1", cluster.relay._bound["pop-a", "gossip"])
    before = await asyncio.to_thread(cluster.replication, "pop-a")
    strangers = [
        Node("pop-x", cluster=CLUSTER, keys=(b"w" * 32,)),
        Node("pop-y", cluster="another", keys=(KEY,)),
    ]
    forger = Node("pop-z", cluster=CLUSTER, keys=(KEY,))
    async with running(*strangers, forger, wanted=False):
        for stranger in (*strangers, forger):
            stranger.peers.want({"pop-a": address})
        await until(lambda: forger.connected, "the one with the key to be let in")
        link = forger.peers._sessions["pop-a"].link
        link.send(0, encode(Frame(16, b"forged")))
        link.send(0, encode(Frame(17, b"\x91"))[:-1])
        await until(lambda: strangers[0].refused("wrong_key") and forger.lost, "both ends to refuse")
    rng = Random(5)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        for length in (0, 1, 50, 1_200, 1_400):
            sock.sendto(rng.randbytes(length), gossip)
            sock.sendto(rng.randbytes(length), (address.host, address.port))
        sock.sendto(b"eg\x01\x07stories" + rng.randbytes(60), gossip)
        sock.sendto(b"eg\x01\x05other" + rng.randbytes(60), gossip)

    def grown(kind: str, reason: str) -> bool:
        now = cluster.replication("pop-a")
        return bool(now[kind].get(reason, 0) > before[kind].get(reason, 0))

    for kind, reason in (
        ("refused_peers", "wrong_cluster"),
        ("refused_peers", "malformed"),
        ("refused_datagrams", "wrong_key"),
        ("refused_datagrams", "wrong_cluster"),
        ("refused_datagrams", "malformed"),
    ):
        await asyncio.to_thread(cluster.wait, lambda: grown(kind, reason), f"{kind} {reason}")  # noqa: B023
    log = cluster.pops["pop-a"].log("a peer is refused")
    assert {"malformed"} <= {line["reason"] for line in log}
    assert not {"pop-x", "pop-y"} & {m["node"] for m in before["members"]}


def test_another_pop_of_the_same_name_is_told_to_people(cluster: Cluster) -> None:
    ring, gossip = Keyring(CLUSTER, (KEY,)), ("127.0.0.1", cluster.relay._bound["pop-b", "gossip"])
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(30.0)
        here = Endpoint(*sock.getsockname())
        me = Claim("pop-b", 7, 0, State.ALIVE, here, here, 1, 1)
        sock.sendto(ring.seal(encode_datagram(Gossip(me, ())), bytes(12)), gossip)
        asked = decode_datagram(ring.open(sock.recv(2_000)))
        assert isinstance(asked, Ping)
        answer = Ack(me, (), asked.sequence, "pop-b")
        sock.sendto(ring.seal(encode_datagram(answer), bytes([1] * 12)), gossip)
        cluster.wait(lambda: cluster.replication("pop-b")["namesake"] == str(here), "it to be noticed")
    (line,) = [each for each in cluster.pops["pop-b"].log() if "has our name" in each["event"]]
    assert (line["node"], line["address"]) == ("pop-b", str(here))
    shown = show(cluster, "pop-b", "replication")
    assert f"{here}: another POP goes by it" in shown


def test_an_upgrade_hands_the_node_over(cluster: Cluster, unique: str, ended_at_last: list[int]) -> None:
    b = cluster.pops["pop-b"]
    answer = b.ask("upgrade")
    ended_at_last.append(answer["pid"])
    cluster.wait(
        lambda: any(line["pop"] == "pop-b" for line in b.log("replicating")[1:]),
        "the successor to be the node",
    )
    assert answer["pid"] != answer["predecessor"]
    cluster.wait_connected(*ALL)
    edit(cluster.pops["pop-a"].db_path, f"UPDATE backends SET weight = 3 WHERE id = '{unique}'")
    body = {"id": unique, "app": "test", "region": "eu", "ip": "127.0.0.1", "port": 9000}
    assert cluster.api("pop-a").ask("POST", "/api/v1/register", body)[0] == 201
    cluster.wait(lambda: unique in cluster.ids("pop-b"), "the successor to follow")
    names = {each["node"] for each in cluster.replication("pop-a")["members"]}
    assert names >= set(ALL)


@pytest.fixture
def pair(start_proxy: StartProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(start_proxy, tmp_path_factory.mktemp("pair"))
    yield cluster
    cluster.close()


@pytest.mark.feature("replication.shown")
def test_a_pop_that_waits_to_be_the_node_says_so(pair: Cluster, tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    with lock_path(state).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pair.start("one", replication_db_path=state)
        assert show(pair, "one", "members").startswith("This POP does not replicate yet")
    pair.wait(lambda: " self " in show(pair, "one", "members"), "it to be the node")


@pytest.mark.usefixtures("unmeasured")
def test_a_pop_that_joins_has_ten_thousand_rows_soon(pair: Cluster, full: bool) -> None:
    def have_all(name: str) -> bool:
        return bool(sum(pair.replication(name)["known"].values()) >= 10_000)

    members = ["old", "second", "third"] if full else ["old"]
    pair.start("old", [row(f"b{number}", 1 + number) for number in range(10_000)])
    for name in members[1:]:
        pair.start(name)
    for name in members:
        pair.wait(lambda name=name: have_all(name), "the rows to be everywhere", timeout_s=50.0)  # type: ignore[misc]
    started_s = monotonic()
    new = pair.start("new")
    (joined, *_) = new.wait_log("connected to a peer")
    # Not by the table, which takes longer to tell than to get.
    pair.wait(lambda: have_all("new"), "all rows", timeout_s=50.0)
    pair.wait(lambda: len(new.ask("table")["backends"]) == 10_000, "to be routed by", timeout_s=50.0)
    print(f"\n10,000 rows after {monotonic() - started_s:.1f} s, its start included")
    assert joined["peer"] in members


@pytest.mark.feature("replication.leases")
def test_a_lease_is_ended_by_another_pop_only_when_its_own_is_gone(pair: Cluster) -> None:
    for name in ("one", "two"):
        pair.start(name, heartbeat_ttl_secs=1)
    pair.wait_connected("one", "two")
    body = {"id": "beating", "app": "test", "region": "eu", "ip": "127.0.0.1", "port": 9000}
    assert pair.api("one").ask("POST", "/api/v1/register", body)[0] == 201

    def health() -> list[bool]:
        rows = pair.pops["two"].ask("table")["backends"]
        return [each["healthy"] for each in rows if each["id"] == "beating"]

    pair.wait(health, "the row at the other POP")
    api, ends_s = pair.api("one"), monotonic() + 3.0

    def beat() -> bool:
        assert api.ask("POST", "/api/v1/heartbeat/beating")[0] == 200
        assert health() == [True], "ended by a POP that does not hear it"
        return monotonic() > ends_s

    wait_until(beat, reason="three times its TTL to pass", timeout_s=60, interval_s=0.2)
    pair.pops["one"].process.kill()
    pair.wait(lambda: health() == [False], "the other POP to end it", timeout_s=60)
