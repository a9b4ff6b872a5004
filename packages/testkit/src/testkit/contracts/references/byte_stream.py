"""A relay of byte streams in memory: pipes that hold so many bytes, and somebody who carries between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_ROOM_BYTES = 4_096
_SMALL_BYTES = 256
_PIECE_BYTES = 1_024
_QUIET_S = 0.2
_CONNECT_S = 0.05


class MemoryPipe:
    """One direction: what was written and not read yet."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._bytes = bytearray()
        self._is_ended = False
        self._is_abandoned = False
        self.is_broken = False
        self._changed = asyncio.Event()

    # ---- the writer's ----------------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        while data:
            await self.until(lambda: self._free() > 0)
            if self.is_broken:
                raise ConnectionResetError
            free = self._free()
            self._bytes += data[:free]
            data = data[free:]
            self.change()

    async def offer(self, data: bytes) -> int:
        try:
            async with asyncio.timeout(_QUIET_S):
                await self.until(lambda: self._free() > 0)
        except TimeoutError:
            return 0
        taken = data[: self._free()]
        await self.write(taken)
        return len(taken)

    def end(self) -> None:
        self._is_ended = True
        self.change()

    # ---- the reader's ----------------------------------------------------------------------------------

    async def read(self, size: int) -> bytes:
        await self.until(lambda: bool(self._bytes) or self._is_ended)
        data = bytes(self._bytes[:size])
        if not data and self.is_broken:
            raise ConnectionResetError
        del self._bytes[:size]
        self.change()
        return data

    def abandon(self) -> bool:
        """Read no more; tell whether there was something."""
        self._is_abandoned = True
        return bool(self._bytes)

    # ---- both ------------------------------------------------------------------------------------------

    def break_off(self) -> None:
        self.is_broken = True
        self.change()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, or the pipe is broken."""
        while not condition() and not self.is_broken:
            await self._changed.wait()

    def change(self) -> None:
        """Let those look who wait."""
        if self._is_abandoned and self._bytes:
            self.is_broken = True
        self._changed.set()
        self._changed = asyncio.Event()

    def _free(self) -> int:
        return self._room - len(self._bytes)


class MemoryEnd:
    """One end of a connection: a pipe to write to, and one to read from."""

    def __init__(self, out: MemoryPipe, into: MemoryPipe) -> None:
        self._out = out
        self._into = into

    async def send(self, data: bytes) -> None:
        await self._out.write(data)

    async def offer(self, data: bytes) -> int:
        return await self._out.offer(data)

    async def receive(self, size: int = 1 << 16) -> bytes:
        return await self._into.read(size)

    async def hears_reset(self) -> None:
        await self._into.until(lambda: False)

    async def end(self) -> None:
        self._out.end()

    async def close(self) -> None:
        self._out.end()
        if self._into.abandon():
            await self.reset()

    async def reset(self) -> None:
        self._out.break_off()
        self._into.break_off()


def connection(room: int = _ROOM_BYTES) -> tuple[MemoryEnd, MemoryEnd]:
    """Both ends of a connection; ``room`` is that of the first for what it has not received."""
    there, back = MemoryPipe(_ROOM_BYTES), MemoryPipe(room)
    return MemoryEnd(there, back), MemoryEnd(back, there)


class MemoryRelay:
    """Each connection of a near end is one to a far end, and two that carry."""

    much_bytes = 60_000
    held_bytes = 2 * _ROOM_BYTES + _PIECE_BYTES

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[MemoryEnd] = asyncio.Queue()
        self._serving: set[asyncio.Task[None]] = set()

    async def connect(self, *, small: bool = False) -> MemoryEnd:
        near, ours = connection(_SMALL_BYTES if small else _ROOM_BYTES)
        task = asyncio.get_running_loop().create_task(self.serve(ours))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return near

    async def accept(self) -> MemoryEnd:
        return await self.waiting.get()

    async def serve(self, near: MemoryEnd) -> None:
        """Relay one connection until it is over."""
        far = await self.dial()
        async with asyncio.TaskGroup() as group:
            up = group.create_task(self.carry(near, far))
            down = group.create_task(self.carry(far, near))
            watching = [
                group.create_task(self.watch(near, up, far)),
                group.create_task(self.watch(far, down, near)),
            ]
            in_order = [await up, await down]
            if not all(in_order):
                await near.reset()
                await far.reset()
            for task in watching:
                task.cancel()

    async def dial(self) -> MemoryEnd:
        """A connection to a far end, which takes a moment."""
        await asyncio.sleep(_CONNECT_S)  # sleeps: connecting takes a moment, and tests must stand it
        ours, far = connection()
        self.waiting.put_nowait(far)
        return ours

    async def carry(self, source: MemoryEnd, sink: MemoryEnd) -> bool:
        """Relay one direction until it is over; tell whether it ended in order."""
        try:
            while data := await source.receive(_PIECE_BYTES):
                await sink.send(data)
        except ConnectionError:
            return False
        await sink.end()
        return True

    async def watch(self, source: MemoryEnd, carrying: asyncio.Task[bool], sink: MemoryEnd) -> None:
        """Pass a reset on, behind what was sent before it."""
        await source.hears_reset()
        await asyncio.wait([carrying])
        await sink.reset()
