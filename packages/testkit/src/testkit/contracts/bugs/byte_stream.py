"""Relays of byte streams with a known bug."""

from __future__ import annotations

import asyncio

from testkit.contracts.byte_stream import ByteStreamContract
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.byte_stream import MemoryEnd, MemoryRelay

Contract = ByteStreamContract
BUGS = PlantedBugs(Contract, lambda kind: kind())


class ChangesBytes(MemoryRelay):
    """Base of those that make something else of what passes."""

    async def carry(self, source: MemoryEnd, sink: MemoryEnd) -> bool:
        try:
            while data := await source.receive(1_024):
                await self.pass_on(data, source, sink)
        except ConnectionError:
            return False
        await self.finish(sink)
        return True

    async def pass_on(self, data: bytes, source: MemoryEnd, sink: MemoryEnd) -> None:
        await sink.send(data)

    async def finish(self, sink: MemoryEnd) -> None:
        await sink.end()


@BUGS.caught_by(Contract.test_early_bytes_arrive, Contract.test_early_bytes_and_an_early_end_arrive)
class LosesEarlyBytes(MemoryRelay):
    async def serve(self, near: MemoryEnd) -> None:
        early = asyncio.ensure_future(near.receive())
        await asyncio.wait([early], timeout=0.01)
        early.cancel()
        await super().serve(near)


@BUGS.caught_by(
    Contract.test_near_end_that_has_sent_all_still_receives,
    Contract.test_far_end_that_has_sent_all_still_receives,
)
class TurnsAnEndIntoAClose(MemoryRelay):
    async def carry(self, source: MemoryEnd, sink: MemoryEnd) -> bool:
        in_order = await super().carry(source, sink)
        if in_order:
            await source.end()
        return in_order


@BUGS.caught_by(Contract.test_silent_connection_that_is_closed_has_an_end)
class KeepsTheEndToItself(ChangesBytes):
    async def finish(self, sink: MemoryEnd) -> None:
        pass


@BUGS.caught_by(
    Contract.test_reset_of_the_near_end_reaches_the_far_end,
    Contract.test_reset_of_the_far_end_reaches_the_near_end,
    Contract.test_reset_after_traffic_is_no_end,
)
class TurnsAResetIntoAnEnd(MemoryRelay):
    async def carry(self, source: MemoryEnd, sink: MemoryEnd) -> bool:
        await super().carry(source, sink)
        await sink.end()
        return True

    async def watch(self, source: MemoryEnd, carrying: asyncio.Task[bool], sink: MemoryEnd) -> None:
        pass


@BUGS.caught_by(Contract.test_reset_of_a_side_that_had_ended_reaches_the_other)
class WatchesNobodyWhoHasEnded(MemoryRelay):
    async def watch(self, source: MemoryEnd, carrying: asyncio.Task[bool], sink: MemoryEnd) -> None:
        if not await carrying:
            await sink.reset()


@BUGS.caught_by(
    Contract.test_bytes_sent_before_a_reset_are_delivered,
    Contract.test_refusal_of_an_upload_is_delivered_to_who_uploads,
)
class ThrowsTheLastWordsAway(ChangesBytes):
    async def carry(self, source: MemoryEnd, sink: MemoryEnd) -> bool:
        told = asyncio.ensure_future(source.hears_reset())
        carrying = asyncio.ensure_future(super().carry(source, sink))
        await asyncio.wait([told, carrying], return_when=asyncio.FIRST_COMPLETED)
        return carrying.done() and carrying.result()

    async def pass_on(self, data: bytes, source: MemoryEnd, sink: MemoryEnd) -> None:
        await asyncio.sleep(0.001)  # sleeps: so slow is this defect
        await sink.send(data)


@BUGS.caught_by(
    Contract.test_near_end_that_pauses_stops_the_far_end_and_loses_nothing,
    Contract.test_far_end_that_pauses_stops_the_near_end_and_loses_nothing,
)
class BuffersWithoutBound(MemoryRelay):
    async def carry(self, source: MemoryEnd, sink: MemoryEnd) -> bool:
        held = asyncio.Queue[bytes]()

        async def read() -> None:
            try:
                while data := await source.receive():
                    held.put_nowait(data)
            finally:
                held.put_nowait(b"")

        reading = asyncio.ensure_future(read())
        while data := await held.get():
            try:
                await sink.send(data)
            except ConnectionError:
                return False
        if reading.exception() is not None:
            return False
        await sink.end()
        return True


@BUGS.caught_by(
    Contract.test_stream_that_halts_and_goes_on_is_neither_short_nor_doubled,
    Contract.test_close_with_full_buffers_loses_nothing,
)
class SendsAByteAgainAfterAHalt(ChangesBytes):
    async def pass_on(self, data: bytes, source: MemoryEnd, sink: MemoryEnd) -> None:
        taken = await sink.offer(data)
        if taken < len(data):
            await sink.send(data[max(0, taken - 1) :])


@BUGS.caught_by(
    Contract.test_stream_that_halts_and_goes_on_is_neither_short_nor_doubled,
    Contract.test_near_end_that_pauses_stops_the_far_end_and_loses_nothing,
)
class ForgetsWhatWasNotTaken(ChangesBytes):
    async def pass_on(self, data: bytes, source: MemoryEnd, sink: MemoryEnd) -> None:
        await sink.offer(data)


@BUGS.caught_by(Contract.test_large_transfer_is_whole, Contract.test_full_duplex_keeps_both_streams_whole)
class LetsALaterPieceOvertake(ChangesBytes):
    async def pass_on(self, data: bytes, source: MemoryEnd, sink: MemoryEnd) -> None:
        if len(data) < 1_024:
            await sink.send(data)
            return
        await sink.send(await source.receive(1_024))
        await sink.send(data)


class SeesTheEndComing(MemoryRelay):
    """Base of those that treat what comes last in another way."""

    async def carry(self, source: MemoryEnd, sink: MemoryEnd) -> bool:
        try:
            data = await source.receive(1_024)
            while data:
                following = asyncio.ensure_future(source.receive(1_024))
                for _ in range(10):
                    await asyncio.sleep(0)
                is_last = following.done() and not following.exception() and not following.result()
                await (self.pass_last(data, sink) if is_last else sink.send(data))
                data = await following
        except ConnectionError:
            return False
        await sink.end()
        return True

    async def pass_last(self, data: bytes, sink: MemoryEnd) -> None:
        await sink.send(data)


@BUGS.caught_by(
    Contract.test_close_with_full_buffers_loses_nothing,
    Contract.test_near_end_that_pauses_stops_the_far_end_and_loses_nothing,
)
class DropsTheTailWhenTheSourceHasClosed(SeesTheEndComing):
    async def pass_last(self, data: bytes, sink: MemoryEnd) -> None:
        await sink.offer(data)


@BUGS.caught_by(Contract.test_banner_arrives_before_the_end)
class EndsAheadOfWhatCameWithTheEnd(SeesTheEndComing):
    async def pass_last(self, data: bytes, sink: MemoryEnd) -> None:
        pass


@BUGS.caught_by(Contract.test_large_transfer_is_whole)
class LosesEveryThousandthByte(ChangesBytes):
    async def pass_on(self, data: bytes, source: MemoryEnd, sink: MemoryEnd) -> None:
        await sink.send(data[:999] + data[1_000:])


@BUGS.caught_by(Contract.test_stuck_direction_does_not_hold_up_the_other)
class CarriesOneDirectionAtATime(MemoryRelay):
    async def serve(self, near: MemoryEnd) -> None:
        self.busy = asyncio.Lock()
        await super().serve(near)

    async def carry(self, source: MemoryEnd, sink: MemoryEnd) -> bool:
        try:
            while data := await source.receive(1_024):
                async with self.busy:
                    await sink.send(data)
        except ConnectionError:
            return False
        await sink.end()
        return True


@BUGS.caught_by(
    Contract.test_stuck_connection_does_not_hold_up_others,
    Contract.test_connections_at_once_are_kept_apart,
    Contract.test_flood_leaves_others_their_turn,
)
class ServesOneConnectionAtATime(MemoryRelay):
    def __init__(self) -> None:
        super().__init__()
        self.turn = asyncio.Lock()

    async def serve(self, near: MemoryEnd) -> None:
        async with self.turn:
            await super().serve(near)


@BUGS.caught_by(Contract.test_connections_at_once_are_kept_apart)
class MixesUpConnections(ChangesBytes):
    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[MemoryEnd] = []

    async def dial(self) -> MemoryEnd:
        self.dialled.append(await super().dial())
        return self.dialled[-1]

    async def pass_on(self, data: bytes, source: MemoryEnd, sink: MemoryEnd) -> None:
        await (self.dialled[-1] if sink in self.dialled else sink).send(data)


@BUGS.caught_by(Contract.test_idle_connection_is_kept_whatever_others_do)
class ForgetsTheOldestOfTen(MemoryRelay):
    def __init__(self) -> None:
        super().__init__()
        self.served: list[MemoryEnd] = []

    async def serve(self, near: MemoryEnd) -> None:
        self.served.append(near)
        if len(self.served) > 10:
            await self.served.pop(0).reset()
        await super().serve(near)


@BUGS.caught_by(Contract.test_who_sends_to_a_side_that_has_closed_is_told)
class SwallowsWhatNobodyTakes(ChangesBytes):
    async def pass_on(self, data: bytes, source: MemoryEnd, sink: MemoryEnd) -> None:
        try:
            await sink.send(data)
        except ConnectionError:
            while await source.receive():
                pass

    async def watch(self, source: MemoryEnd, carrying: asyncio.Task[bool], sink: MemoryEnd) -> None:
        pass


SUITE = Suite(
    Contract,
    "testkit.contracts.references.byte_stream:MemoryRelay",
    BUGS,
    mutate=["MemoryPipe", "MemoryEnd", "MemoryRelay"],
)
