"""Three nodes keep a log through everything that the simulated network does to them."""

from __future__ import annotations

import asyncio
from random import Random

import boto3
import pytest

from examples.log.backup import back_up, restore
from examples.log.node import CALL_TIMEOUT_S
from examples.log.tests.integration.cluster import NAMES, eventually, log_cluster
from examples.log.wire import Append, Entry, Propose, Refused, Unknown, frame, read_request
from testkit.checkers.sets import check_set
from testkit.faults.vocabulary import Latency
from testkit.s3 import S3Server
from testkit.virtual_time import virtual_time


@virtual_time
async def test_one_of_three_is_elected_and_stays(seed: int) -> None:
    async with log_cluster(seed) as cluster:
        leader = await cluster.leader()
        term = cluster.disks[leader].term
        # Its heartbeats keep the others from asking for votes.
        await asyncio.sleep(60)
        assert [name for name in NAMES if cluster.nodes[name].leads] == [leader]
        assert {cluster.disks[name].term for name in NAMES} == {term}


@virtual_time
async def test_who_is_far_away_is_waited_for_longer(seed: int) -> None:
    async with log_cluster(seed) as cluster:
        leader = await cluster.leader()
        far, near = (name for name in NAMES if name != leader)
        for ends in ((leader, far), (far, leader)):
            await cluster.network.link(*ends).inject(Latency(0.05))
        await asyncio.sleep(60)
        assert cluster.nodes[leader].leads
        limits_s = {peer: each.limit_s for peer, each in cluster.nodes[leader]._patience.items()}
        assert 0 < 1.5 * limits_s[near] < limits_s[far] < CALL_TIMEOUT_S, limits_s


@virtual_time
async def test_what_is_acknowledged_is_with_a_majority(seed: int) -> None:
    async with log_cluster(seed) as cluster:
        for n in range(10):
            assert await cluster.add(str(n))
            holders = [
                name for name in NAMES if any(e.payload == b"%d" % n for e in cluster.disks[name].entries)
            ]
            assert len(holders) >= 2
        assert await cluster.read() == [str(n) for n in range(10)]


@virtual_time
async def test_follower_says_who_leads_and_writes_nothing(seed: int) -> None:
    async with log_cluster(seed) as cluster:
        assert await cluster.add("first")
        leader = await cluster.leader()
        follower = next(name for name in NAMES if name != leader)
        assert await cluster.ask(follower, Propose(b"x")) == Refused(leader)
        assert await cluster.read() == ["first"]


@virtual_time
async def test_new_leader_is_elected_when_one_is_killed_and_nothing_is_lost(seed: int) -> None:
    async with log_cluster(seed) as cluster:
        assert await cluster.add("before")
        first = await cluster.leader()
        async with cluster.killed(first):
            assert await cluster.leader() != first
            assert await cluster.add("meanwhile")
        assert await cluster.add("after")
        assert await cluster.read() == ["before", "meanwhile", "after"]


@virtual_time
async def test_minority_acknowledges_nothing(seed: int) -> None:
    async with log_cluster(seed) as cluster:
        assert await cluster.add("before")
        old = await cluster.leader()
        async with cluster.cut_off(old):
            # It does not know yet that it leads nobody.
            assert await cluster.ask(old, Propose(b"lost")) == Unknown()

            async def find() -> str | None:
                return next((name for name in NAMES if name != old and cluster.nodes[name].leads), None)

            new = await eventually(find, "the majority to have a leader")
            assert await cluster.add("kept", new)
        assert await cluster.add("after")
        assert await cluster.read() == ["before", "kept", "after"]


@virtual_time
async def test_without_a_majority_nothing_goes_on_and_with_it_everything(seed: int) -> None:
    async with log_cluster(seed) as cluster:
        assert await cluster.add("before")
        leader = await cluster.leader()
        others = [name for name in NAMES if name != leader]
        async with cluster.killed(others[0]), cluster.killed(others[1]):
            assert not await cluster.add("unsure", leader)
        assert await cluster.add("after")
        read = await cluster.read()
        assert read in (["before", "after"], ["before", "unsure", "after"])


@virtual_time
async def test_node_that_has_lost_its_log_gets_it_from_its_peers(seed: int) -> None:
    async with log_cluster(seed) as cluster:
        for n in range(20):
            assert await cluster.add(str(n))
        leader = await cluster.leader()
        poor = next(name for name in NAMES if name != leader)
        async with cluster.killed(poor):
            cluster.disks[poor].lose()

        async def recovered() -> bool | None:
            return cluster.disks[poor].entries == cluster.disks[leader].entries or None

        assert await eventually(recovered, "the log to be the same again")


@virtual_time
async def test_nothing_acknowledged_is_lost_or_doubled_whatever_goes_wrong(seed: int, rng: Random) -> None:
    async with log_cluster(seed) as cluster:

        async def write() -> None:
            for n in range(30):
                await cluster.add(str(n), rng.choice([None, *NAMES]))
                await asyncio.sleep(rng.uniform(0, 2))

        async def harm() -> None:
            while True:
                await asyncio.sleep(rng.uniform(0, 5))
                how = rng.choice([cluster.killed, cluster.cut_off])
                async with how(rng.choice(NAMES)):
                    await asyncio.sleep(rng.uniform(0, 15))

        harming = asyncio.create_task(harm())
        await write()
        # Whatever is broken at the moment is mended first.
        harming.cancel()
        await asyncio.wait([harming])
        found = await cluster.read()
        verdict = check_set(cluster.history.operations, found)
        assert verdict.holds, f"{verdict}\n{cluster.history}"


@virtual_time
async def test_frames_are_small_and_whole() -> None:
    told = Append(1, "a", 0, 0, [Entry(1, b"the same line again and again") for _ in range(1000)], 0)
    framed = frame(told)
    assert len(framed) < sum(len(entry.payload or b"") for entry in told.entries) / 10
    reader = asyncio.StreamReader()
    reader.feed_data(framed)
    assert await read_request(reader) == told


@pytest.mark.parametrize("rubbish", [b"\xff\xff\xff\xff", b"\0\0\0\1x", b"\0\0\0\x09x\x9c\x03\0\0\0\0\x01\0"])
@virtual_time
async def test_what_is_no_request_is_refused(rubbish: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(rubbish)
    reader.feed_eof()
    with pytest.raises((ValueError, EOFError)):
        await read_request(reader)


@virtual_time
async def test_log_begins_anew_from_its_backup(seed: int, s3: S3Server) -> None:
    client = boto3.client("s3", **s3.client_options)
    bucket = s3.new_bucket_name()
    client.create_bucket(Bucket=bucket)
    async with log_cluster(seed) as cluster:
        for n in range(5):
            assert await cluster.add(str(n))
        back_up(client, bucket, "log", [line.encode() for line in await cluster.read()])
    async with log_cluster(seed, {name: restore(client, bucket, "log") for name in NAMES}) as anew:
        assert await anew.add("5")
        assert await anew.read() == [str(n) for n in range(6)]
    client.put_object(Bucket=bucket, Key="log", Body=b"damaged")
    with pytest.raises(ValueError, match="log: "):
        restore(client, bucket, "log")
    client.close()
