"""What every relay of byte streams must do, and what it relays: as seen from the two ends of a connection.

A connection has a *near* end, which connects, and a *far* end, which accepts. Nothing between them is told of
by anything but these two, so a contract of relays is one of transports, too: what has no relay at all in
between (a loopback connection) holds it like one that has three.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from random import Random
from typing import Any, Protocol

from testkit.contracts.checking import assert_raises_async
from testkit.contracts.contract import Contract, needs

DEADLINE_S = 20.0
"""For any single story that could get stuck."""
SEED = 20_240_131
"""Of what is sent: any bytes would do, as long as no part of them looks like another."""


class End(Protocol):
    """One end of a connection. One coroutine may send while another receives."""

    async def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            ConnectionError: the other side takes nothing any more.
        """
        ...

    async def offer(self, data: bytes) -> int:
        """Send what is taken without a wait for a reader, and return how much; 0: nothing more is taken.

        Whoever is busy may need a moment: nothing is taken when nothing was for a while.
        """
        ...

    async def receive(self, size: int = 1 << 16) -> bytes:
        """Return at least one byte and at most ``size``; nothing at the end of the stream.

        Raises:
            ConnectionResetError: the connection was reset, and all has been received that came before.
        """
        ...

    async def hears_reset(self) -> None:
        """Wait until it is known here that the connection was reset, and neither send nor receive."""
        ...

    async def end(self) -> None:
        """Tell that no more will be sent; what comes is still received."""
        ...

    async def close(self) -> None:
        """Neither send nor receive any more; what was sent still arrives.

        If something that came has not been received, that is a reset, as TCP has it.
        """
        ...

    async def reset(self) -> None:
        """Break the connection off."""
        ...


class ByteStreamHarness(Protocol):
    """What a test must know of an implementation. It ends all connections of a test with it."""

    much_bytes: int
    """A transfer of this length fills all buffers more than once when the reader's end of them is small."""
    held_bytes: int
    """More than this cannot be under way in one direction of a connection, whatever has room for it."""

    async def connect(self, *, small: bool = False) -> End:
        """A new near end; with ``small`` it has as little room as can be for what it has not received."""
        ...

    async def accept(self) -> End:
        """The far end that belongs to the near end that has waited longest for one."""
        ...


class ByteStreamContract(
    Contract,
    contract="byte_stream",
    capabilities={
        "half_close": "one direction can end while the other goes on",
        "resets": "a connection that is broken off is told apart from one that ends",
        "late_resets": "a side that has ended is still watched for a reset",
        "last_words": "what was sent before a reset arrives before it",
        "early": "bytes may be sent before the other side has accepted",
    },
):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    # ---- bytes -------------------------------------------------------------------------------------

    async def test_bytes_go_both_ways(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await near.send(b"question")
        assert await exactly(far, 8) == b"question"
        await far.send(b"answer")
        assert await exactly(near, 6) == b"answer"

    @needs("early")
    async def test_early_bytes_arrive(self, harness: ByteStreamHarness) -> None:
        near = await harness.connect()
        await near.send(b"early bird")
        far = await harness.accept()
        assert await exactly(far, 10) == b"early bird"
        await near.send(b", late worm")
        assert await exactly(far, 11) == b", late worm"

    @needs("early", "half_close")
    async def test_early_bytes_and_an_early_end_arrive(self, harness: ByteStreamHarness) -> None:
        near = await harness.connect()
        await near.send(b"early bird")
        await near.end()
        far = await harness.accept()
        assert await to_end(far) == b"early bird"
        await far.send(b"worm")
        await far.close()
        assert await to_end(near) == b"worm"

    async def test_single_bytes_arrive_in_order(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        sent = bytes(number % 251 for number in range(600))

        async def echo() -> None:
            for _ in sent:
                await far.send(await far.receive(1))

        async def send() -> None:
            for number in sent:
                await near.send(bytes([number]))

        received, *_ = await together(exactly(near, len(sent)), echo(), send())
        assert received == sent

    async def test_large_transfer_is_whole(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        for sender, receiver in ((near, far), (far, near)):
            data = Random(SEED).randbytes(harness.much_bytes)
            received, _ = await together(exactly(receiver, len(data)), in_pieces(sender, data))
            assert digest(received) == digest(data)

    async def test_full_duplex_keeps_both_streams_whole(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        rng = Random(SEED)
        upload, download = rng.randbytes(harness.much_bytes), rng.randbytes(harness.much_bytes)
        up, down, *_ = await together(
            exactly(far, len(upload)),
            exactly(near, len(download)),
            in_pieces(near, upload),
            in_pieces(far, download),
        )
        assert digest(up) == digest(upload)
        assert digest(down) == digest(download)

    async def test_stream_that_halts_and_goes_on_is_neither_short_nor_doubled(
        self, harness: ByteStreamHarness
    ) -> None:
        near, far = await pair(harness, small=True)
        data = Random(SEED).randbytes(harness.much_bytes)

        async def hesitate() -> bytes:
            received, rng = bytearray(), Random(SEED)
            while len(received) < len(data):
                received += await near.receive(rng.choice([1, 7, 1_000, 16_000]))
                if rng.random() < 0.2:
                    await asyncio.sleep(0)
            return bytes(received)

        received, _ = await together(hesitate(), in_pieces(far, data))
        assert digest(received) == digest(data)
        await far.close()
        assert await to_end(near) == b""

    async def test_connections_at_once_are_kept_apart(self, harness: ByteStreamHarness) -> None:
        rng = Random(SEED)
        pairs = [await pair(harness) for _ in range(20)]
        messages = [rng.randbytes(rng.randrange(1, 3_000)) for _ in pairs]

        async def talk(ends: tuple[End, End], message: bytes) -> bytes:
            near, far = ends
            await near.send(message)
            await far.send(await exactly(far, len(message)))
            return await exactly(near, len(message))

        assert await together(*map(talk, pairs, messages)) == messages

    async def test_idle_connection_is_kept_whatever_others_do(self, harness: ByteStreamHarness) -> None:
        idle_near, idle_far = await pair(harness)
        for number in range(12):
            near, far = await pair(harness)
            await near.send(b"in a hurry")
            assert await exactly(far, 10) == b"in a hurry"
            await (near.reset() if number % 2 else near.close())
        await idle_near.send(b"still there?")
        assert await exactly(idle_far, 12) == b"still there?"
        await idle_far.send(b"yes")
        assert await exactly(idle_near, 3) == b"yes"

    # ---- ends --------------------------------------------------------------------------------------

    @needs("half_close")
    async def test_near_end_that_has_sent_all_still_receives(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await _ends_and_receives(near, far, harness.much_bytes)

    @needs("half_close")
    async def test_far_end_that_has_sent_all_still_receives(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await _ends_and_receives(far, near, harness.much_bytes)

    async def test_banner_arrives_before_the_end(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await far.send(b"busy, come back later\n")
        await far.close()
        assert await to_end(near) == b"busy, come back later\n"

    @needs("resets")  # whoever does not tell them from ends may end in one what has not carried anything
    async def test_silent_connection_that_is_closed_has_an_end(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await near.close()
        assert await to_end(far) == b""

    async def test_close_with_full_buffers_loses_nothing(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness, small=True)
        data = Random(SEED).randbytes(harness.much_bytes)

        async def send_and_close() -> None:
            await far.send(data)
            await far.close()

        async def read_slowly() -> bytes:
            received = bytearray()
            while part := await near.receive(5_000):
                received += part
            return bytes(received)

        received, _ = await together(read_slowly(), send_and_close())
        assert digest(received) == digest(data)

    async def test_who_sends_to_a_side_that_has_closed_is_told(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await far.send(b"read")
        await exactly(near, 4)
        await near.close()
        assert await to_end(far) == b""

        async def send_on() -> None:
            for _ in range(0, 2 * harness.held_bytes, 1 << 12):
                await far.send(bytes(1 << 12))

        async with asyncio.timeout(DEADLINE_S):
            await assert_raises_async(ConnectionError, send_on)

    # ---- back-pressure -----------------------------------------------------------------------------

    async def test_near_end_that_pauses_stops_the_far_end_and_loses_nothing(
        self, harness: ByteStreamHarness
    ) -> None:
        near, far = await pair(harness)
        taken = await until_stuck(far, harness)
        await far.end()
        assert digest(await to_end(near)) == digest(taken)

    async def test_far_end_that_pauses_stops_the_near_end_and_loses_nothing(
        self, harness: ByteStreamHarness
    ) -> None:
        near, far = await pair(harness)
        taken = await until_stuck(near, harness)
        await near.end()
        assert digest(await to_end(far)) == digest(taken)

    async def test_stuck_direction_does_not_hold_up_the_other(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await until_stuck(far, harness)
        for number in range(50):
            await near.send(bytes([number]))
            assert await exactly(far, 1) == bytes([number])

    async def test_stuck_connection_does_not_hold_up_others(self, harness: ByteStreamHarness) -> None:
        _, stuck = await pair(harness)
        near, far = await pair(harness)
        await until_stuck(stuck, harness)
        await _ping_pong(near, far, 20)
        await _ping_pong(*await pair(harness), 20)

    async def test_flood_leaves_others_their_turn(self, harness: ByteStreamHarness) -> None:
        flooded, flooding = await pair(harness)
        near, far = await pair(harness)
        enough = asyncio.Event()

        async def flood() -> None:
            while not enough.is_set():
                await flooding.send(bytes(harness.much_bytes))
            await flooding.close()

        async def talk() -> None:
            try:
                await _ping_pong(near, far, 30)
            finally:
                enough.set()

        await together(flood(), to_end(flooded), talk())

    # ---- resets ------------------------------------------------------------------------------------

    @needs("resets")
    async def test_reset_of_the_near_end_reaches_the_far_end(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await near.reset()
        assert await is_reset(far)

    @needs("resets")
    async def test_reset_of_the_far_end_reaches_the_near_end(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await far.reset()
        assert await is_reset(near)

    @needs("resets")
    async def test_reset_after_traffic_is_no_end(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        await _ping_pong(near, far, 3)
        await far.reset()
        assert await is_reset(near)

    @needs("resets", "last_words")
    async def test_bytes_sent_before_a_reset_are_delivered(self, harness: ByteStreamHarness) -> None:
        near, far = await pair(harness)
        answer = Random(SEED).randbytes(min(16 << 10, harness.held_bytes // 4))
        await near.send(b"?")
        await exactly(far, 1)
        await far.send(answer)
        await far.reset()
        assert await exactly(near, len(answer)) == answer
        assert await is_reset(near)

    @needs("resets", "last_words")
    async def test_refusal_of_an_upload_is_delivered_to_who_uploads(self, harness: ByteStreamHarness) -> None:
        """A server that answers early and closes: what it has not read makes that a reset."""
        near, far = await pair(harness)
        await until_stuck(near, harness)
        await far.send(b"too large")
        await far.close()
        assert await exactly(near, 9) == b"too large"
        await _told_of_reset(near)

    @needs("resets", "half_close", "late_resets")
    async def test_reset_of_a_side_that_had_ended_reaches_the_other(self, harness: ByteStreamHarness) -> None:
        for near_first in (True, False):
            near, far = await pair(harness)
            ending, other = (near, far) if near_first else (far, near)
            await ending.end()
            assert await to_end(other) == b""
            await ending.reset()
            await _told_of_reset(other)

    @needs("resets", "half_close")
    async def test_reset_of_the_side_that_still_sends_reaches_the_one_that_had_ended(
        self, harness: ByteStreamHarness
    ) -> None:
        for near_first in (True, False):
            near, far = await pair(harness)
            ending, other = (near, far) if near_first else (far, near)
            await ending.end()
            assert await to_end(other) == b""
            await other.reset()
            assert await is_reset(ending)


# ---- steps -----------------------------------------------------------------------------------------------


async def pair(harness: ByteStreamHarness, *, small: bool = False) -> tuple[End, End]:
    """The two ends of a new connection."""
    near = await harness.connect(small=small)
    async with asyncio.timeout(DEADLINE_S):
        return near, await harness.accept()


async def exactly(end: End, size: int) -> bytes:
    """So many bytes, which there must be."""
    received = bytearray()
    async with asyncio.timeout(DEADLINE_S):
        while len(received) < size:
            data = await end.receive(size - len(received))
            assert data, f"the stream ended after {len(received)} of {size} bytes"
            received += data
    return bytes(received)


async def to_end(end: End) -> bytes:
    """Everything up to the end of the stream."""
    received = bytearray()
    async with asyncio.timeout(DEADLINE_S):
        while data := await end.receive():
            received += data
    return bytes(received)


async def is_reset(end: End) -> bool:
    """Receive until there is nothing more; tell whether the connection was reset, and not ended."""
    try:
        await to_end(end)
    except ConnectionResetError:
        return True
    return False


async def in_pieces(end: End, data: bytes) -> None:
    """Send ``data`` in pieces of all sizes."""
    rng, at = Random(SEED), 0
    while at < len(data):
        size = rng.choice([1, 100, 4_096, 70_000, 1 << 20])
        await end.send(data[at : at + size])
        at += size


async def until_stuck(end: End, harness: ByteStreamHarness) -> bytes:
    """Send until nothing more is taken, which must come about; return what was."""
    taken, rng = bytearray(), Random(SEED)
    while size := await end.offer(piece := rng.randbytes(1 << 14)):
        taken += piece[:size]
        assert len(taken) <= harness.held_bytes, f"{len(taken)} bytes were taken that nobody reads"
    assert taken, "nothing was taken"
    return bytes(taken)


async def together(*stories: Coroutine[Any, Any, Any]) -> list[Any]:
    """What they return, as with ``gather``; none goes on when one fails."""
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(story) for story in stories]
    return [task.result() for task in tasks]


def digest(data: bytes) -> str:
    """Short enough to be shown when it is not the one expected."""
    return f"{len(data)} bytes, {hashlib.blake2b(data, digest_size=8).hexdigest()}"


async def _ping_pong(near: End, far: End, times: int) -> None:
    for number in range(times):
        await near.send(bytes([number]))
        assert await exactly(far, 1) == bytes([number])
        await far.send(b"pong")
        assert await exactly(near, 4) == b"pong"


async def _ends_and_receives(ending: End, other: End, size: int) -> None:
    answer = Random(SEED).randbytes(size)
    await ending.send(b"question")
    await ending.end()
    assert await to_end(other) == b"question"

    async def send_and_close() -> None:
        await other.send(answer)
        await other.close()

    received, _ = await together(to_end(ending), send_and_close())
    assert digest(received) == digest(answer)


async def _told_of_reset(end: End) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await end.hears_reset()
