"""Pages of a log that three nodes keep, through what goes wrong with those; and their snapshots in tiers."""

from __future__ import annotations

from pathlib import Path
from random import Random

import boto3
import msgspec

from examples.log.pages import PAGE_BYTES, Clear, Copy, Record, Timeline, Write, record_bytes
from examples.log.tests.integration.cluster import NAMES, Cluster, eventually, log_cluster
from examples.log.tiers import TierCounts, Tiers
from examples.log.wire import Done, Propose, Read
from testkit.s3 import S3Server
from testkit.virtual_time import virtual_time


async def propose(cluster: Cluster, record: Record) -> None:
    answer = await cluster.ask(await cluster.leader(), Propose(record_bytes(record)))
    assert isinstance(answer, Done)


async def timeline_of(cluster: Cluster) -> Timeline:
    """The pages of all that is agreed on."""
    answer = await cluster.ask(await cluster.leader(), Read())
    assert isinstance(answer, Done)
    timeline = Timeline()
    for payload in answer.entries:
        timeline.apply(payload)
    return timeline


@virtual_time
async def test_timeline_is_the_same_again_after_its_leader_has_died(seed: int, rng: Random) -> None:
    async with log_cluster(seed) as cluster:
        records: list[Record] = [Copy(3, 0), Clear(1)]
        for _ in range(8):
            records.insert(0, Write(rng.randrange(3), rng.randrange(60), rng.randbytes(4)))
        for record in records:
            await propose(cluster, record)
        before = await timeline_of(cluster)
        async with cluster.killed(await cluster.leader()):
            after = await timeline_of(cluster)
        assert (after.position, before.position) == (10, 10)
        assert [after.snapshot(at) for at in range(11)] == [before.snapshot(at) for at in range(11)]


@virtual_time
async def test_timeline_is_recovered_by_a_node_that_has_lost_it(seed: int) -> None:
    async with log_cluster(seed) as cluster:
        for number in range(10):
            await propose(cluster, Write(number, 0, b"kept"))
        before = await timeline_of(cluster)
        leader = await cluster.leader()
        poor = next(name for name in NAMES if name != leader)
        async with cluster.killed(poor):
            cluster.disks[poor].lose()

        async def recovered() -> Timeline | None:
            entries = cluster.disks[poor].entries
            if entries != cluster.disks[leader].entries:
                return None
            timeline = Timeline()
            for entry in entries:
                if entry.payload is not None:
                    timeline.apply(entry.payload)
            return timeline

        again = await eventually(recovered, "the log to be the same again")
        assert again.snapshot() == before.snapshot() != {}
        assert again.branch(5).snapshot() == before.snapshot(5)


def test_snapshots_are_read_from_memory_then_files_then_s3(s3: S3Server, tmp_path: Path) -> None:
    client = boto3.client("s3", **s3.client_options)
    bucket = s3.new_bucket_name()
    client.create_bucket(Bucket=bucket)
    timeline = Timeline()
    for number in range(4):
        timeline.apply(record_bytes(Write(number, 0, b"page %d" % number)))
    tiers = Tiers(client, bucket, tmp_path, most_in_memory=1, most_in_files=1)
    for at in range(1, 5):
        tiers.put(f"snapshot/{at}", msgspec.msgpack.encode(timeline.snapshot(at)))
    for at in (4, 3, 1):
        read = msgspec.msgpack.decode(tiers.get(f"snapshot/{at}"), type=dict[int, bytes])
        assert read == timeline.snapshot(at)
        assert all(len(page) == PAGE_BYTES for page in read.values())
    assert (tiers.memory.hits, tiers.files.hits, tiers.store) == (1, 1, TierCounts(1, 0, 0))
    client.close()
