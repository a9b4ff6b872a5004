"""One TCP port of the instrument: accepts, does what state and script say, hands on what is to be served.

The socket is read raw and never beyond what a step asks for, so whoever serves it gets the rest: TLS reads
its ClientHello off the same socket behind a PROXY header.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

from mock_backend.instrument import Arrival, Instrument, State
from mock_backend.scripts import Step, Verb

BACKLOG = 4096
"""Room for the bursts of a load test; the kernel caps it at ``net.core.somaxconn``."""

_ACCEPTED_AT_ONCE = 128
_PAUSE_S = 0.1
"""Without descriptors, accepting is tried again after this long."""
_BLOCK_BYTES = 64 << 10
RESET = struct.pack("ii", 1, 0)
"""The value of ``SO_LINGER`` with which closing resets."""
_REMEDIES = {
    errno.EADDRINUSE: "stop what listens there or choose another port (0 takes any free one)",
    errno.EACCES: "ports below 1024 need a privilege: choose another",
    errno.EADDRNOTAVAIL: "the address is not one of this machine's: choose another",
}

Serve = Callable[[socket.socket, Arrival], Awaitable[None]]
"""Takes a socket over, and calls `Instrument.leave` at its end. Raises if it does not take it."""


class ListenError(Exception):
    """The address cannot be listened on; the text names it and the remedy in one line."""


class ConnectionLostError(Exception):
    """A connection ended before a script's step was done; says how."""


class Gate:
    """A port that is bound from construction until `close`, and listened on in between as the state says.

    Raises:
        ListenError: the address is taken, not allowed or not ours.
    """

    def __init__(self, name: str, host: str, port: int, instrument: Instrument, serve: Serve) -> None:
        self._name = name
        self._host = host
        self._instrument = instrument
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        # Bound and not listening, it keeps the number while nobody listens: connecting is refused then.
        self._holder = _bind(host, port)
        self.port: int = self._holder.getsockname()[1]
        try:
            self.follow_state()
        except ListenError:
            self._holder.close()
            raise

    def follow_state(self) -> None:
        """Listen, or do not, as the state says.

        Raises:
            ListenError: somebody else listens there.
        """
        if self._instrument.state is State.NOT_LISTENING or self._closed:
            self._stop_listening()
        elif self._listener is None:
            self._listener = _bind(self._host, self.port)
            try:
                self._listener.listen(BACKLOG)
            except OSError as error:
                self._listener.close()
                self._listener = None
                raise listen_error(self._host, self.port, error) from error
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._accept)

    def stop_accepting(self) -> None:
        """Close the port; what was accepted goes on."""
        self._closed = True
        self._stop_listening()
        self._holder.close()

    async def close(self) -> None:
        """Close the port and every connection that is not served."""
        self.stop_accepting()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if self._listener is None:
                return
            try:
                accepted, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                self._pause()
                return
            accepted.setblocking(False)
            arrival = self._instrument.arrive(self._name, endpoint(*address[:2]))
            task = self._loop.create_task(self._receive(accepted, arrival))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _pause(self) -> None:
        """Stop asking while there are no descriptors; the clients wait in the kernel's queue."""
        listener = self._listener
        assert listener is not None

        def go_on() -> None:
            if self._listener is listener:
                self._loop.add_reader(listener, self._accept)

        self._loop.remove_reader(listener)
        self._loop.call_later(_PAUSE_S, go_on)

    async def _receive(self, accepted: socket.socket, arrival: Arrival) -> None:
        how = "closed"
        try:
            if self._instrument.state is State.REFUSING:
                reset(accepted)  # feature: testing.mock_backend.states
                how = "reset: refusing"
            else:
                await self._instrument.running()
                how = await self._follow(accepted, arrival)
                if how == "served":
                    return
        except asyncio.CancelledError:
            how = "closed: the backend stopped"
            raise
        # Whatever ends a connection before it is served ends it alone, and is in the journal.
        except Exception as error:  # noqa: BLE001
            how = f"failed: {type(error).__name__}: {error}"
        finally:
            if how != "served":
                accepted.close()
                self._instrument.leave(arrival, how)

    async def _follow(self, accepted: socket.socket, arrival: Arrival) -> str:
        """Do what the script says, return how the connection ended; ``served``: it is somebody else's now."""
        for step in self._instrument.steps(arrival) or (Step(Verb.SERVE),):
            match step.verb:
                case Verb.SERVE:
                    await self._serve(accepted, arrival)
                    return "served"
                case Verb.ECHO:
                    await echo(accepted)
                    return "closed"
                case Verb.CLOSE:
                    return "closed"
                case Verb.RESET:
                    reset(accepted)  # feature: testing.mock_backend.scripts
                    return "reset"
                case Verb.HANG:
                    await self._instrument.until_reset()
                    return "closed: reset of the instrument"
                case _:
                    await self._do(step, accepted, arrival)
        return "closed"

    async def _do(self, step: Step, accepted: socket.socket, arrival: Arrival) -> None:
        match step.verb:
            case Verb.READ | Verb.READ_TO_THE_END:
                wanted = step.bytes_count if step.verb is Verb.READ else None
                count = await self._read(accepted, wanted)
                self._instrument.note(
                    "read", connection=arrival.number, client=arrival.client, detail=f"{count} bytes"
                )
                if wanted is not None and count < wanted:
                    raise ConnectionLostError(f"ended after {count} of {wanted} bytes")
            case Verb.SEND:
                await self._loop.sock_sendall(accepted, step.data)
            case Verb.WAIT:
                await asyncio.sleep(step.wait_s)
            case Verb.HALF_CLOSE:
                accepted.shutdown(socket.SHUT_WR)
            case _:
                assert step.verb is Verb.ACCEPT

    async def _read(self, accepted: socket.socket, wanted: int | None) -> int:
        count = 0
        while wanted is None or count < wanted:
            room = _BLOCK_BYTES if wanted is None else min(wanted - count, _BLOCK_BYTES)
            data = await self._loop.sock_recv(accepted, room)
            if not data:
                break
            count += len(data)
        return count


async def echo(accepted: socket.socket) -> None:
    """Send back what comes, until its end."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(accepted, _BLOCK_BYTES):
        await loop.sock_sendall(accepted, data)
    with suppress(OSError):
        accepted.shutdown(socket.SHUT_WR)


def reset(accepted: socket.socket) -> None:
    """Close with a reset, whatever is under way."""
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    accepted.close()


def endpoint(host: str, port: int) -> str:
    """Write an address and a port as one word, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise listen_error(host, port, error) from error
    return bound


def listen_error(host: str, port: int, error: OSError) -> ListenError:
    """Say in one line what is wrong with an address, and what to do."""
    remedy = _REMEDIES.get(error.errno or 0, "check the address")
    return ListenError(f"cannot listen on {endpoint(host, port)}: {error.strerror}; {remedy}")
