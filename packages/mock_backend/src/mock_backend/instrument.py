"""What can be set and read of a running mock backend. Does no I/O: the shell is told of changes.

======================= =====================================================================================
``ready``               serves
``unready``             serves, but ``/health`` answers 503
``draining``            like unready, and every answer closes its connection
``hung``                accepts and answers nothing; what waits is answered when another state is set
``refusing``            accepts and resets
``not-listening``       connecting is refused; what is open goes on
======================= =====================================================================================
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mock_backend.faults import Fault, Faults
from mock_backend.journal import Entry, Journal
from mock_backend.scripts import Script, Step

MAX_CLIENTS = 10_000
"""Addresses that are counted by themselves; what comes from further ones is counted under `OTHERS`."""
OTHERS = "others"
_MAX_PATH_CHARS = 512


class State(Enum):
    """What the backend does as a whole."""

    READY = "ready"
    UNREADY = "unready"
    DRAINING = "draining"
    HUNG = "hung"
    REFUSING = "refusing"
    NOT_LISTENING = "not-listening"


@dataclass(slots=True)
class Arrival:
    """One accepted connection; ``client`` becomes what a PROXY header says."""

    number: int
    peer: str
    client: str
    port_name: str
    proxy: dict[str, Any] | None = None
    requests: int = 0
    over: bool = False


class Instrument:
    """State, script, faults, counters and journal of one mock backend, in the event loop that serves it."""

    def __init__(
        self, *, state: State = State.READY, script: str = "", faults: str = "", seed: int = 0
    ) -> None:
        self._started_s = time.monotonic()
        self._state = state
        self._script = Script(script)
        self._first_of_script = 0
        self._faults = Faults(faults, seed)
        self._first_of_faults = 0
        self._resets = 0
        self.connections = 0
        self.open_connections = 0
        self.requests = 0
        self.clients: Counter[str] = Counter()
        self.journal = Journal()
        self._changed = asyncio.Event()
        self.on_state: Callable[[], None] = lambda: None
        """Called when the state has changed."""

    # ---- what is set -----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state

    def set_state(self, state: State) -> None:
        self._state = state
        self.on_state()
        self.note("control", detail=f"state {state.value}")

    @property
    def script(self) -> str:
        return self._script.text

    def set_script(self, text: str) -> None:
        """Have connections from now on done with as the text says; see `scripts`.

        Raises:
            LanguageError: the text cannot be understood; the old script stays.
        """
        self._script = Script(text)
        self._first_of_script = self.connections
        self.note("control", detail="script")

    @property
    def faults(self) -> tuple[str, int]:
        """Text and seed."""
        return self._faults.text, self._faults.seed

    def set_faults(self, text: str, seed: int = 0) -> None:
        """Put these into answers from now on; see `faults`.

        Raises:
            LanguageError: the text cannot be understood; the old faults stay.
        """
        self._faults = Faults(text, seed)
        self._first_of_faults = self.requests
        self.note("control", detail=f"faults with seed {seed}")

    def reset(self) -> None:
        """Be ready, without script, faults, counts and entries.

        Connections that a script has hang are closed, all others stay open.
        """
        self._resets += 1
        self.set_script("")
        self.set_faults("")
        self.set_state(State.READY)
        self.clients.clear()
        self.journal.clear()

    # ---- what the shell reports ------------------------------------------------------------------------

    def arrive(self, port_name: str, peer: str) -> Arrival:
        """A connection was accepted."""
        self.connections += 1
        self.open_connections += 1
        self.note("open", connection=self.connections, client=peer, detail=port_name)
        return Arrival(self.connections, peer, peer, port_name)

    def steps(self, arrival: Arrival) -> tuple[Step, ...] | None:
        """Return what its script says to do with a connection; ``None``: serve it."""
        return self._script.steps(arrival.number - self._first_of_script)

    def leave(self, arrival: Arrival, how: str) -> None:
        """A connection is over; of those who say so, the first counts."""
        if arrival.over:
            return
        arrival.over = True
        self.open_connections -= 1
        self.note("close", connection=arrival.number, client=arrival.client, detail=how)

    def request(self, arrival: Arrival, method: str, path: str) -> Fault:
        """A request came; returns what is to happen to it."""
        self.requests += 1
        arrival.requests += 1
        address = arrival.client.rpartition(":")[0]
        self.clients[address if address in self.clients or len(self.clients) < MAX_CLIENTS else OTHERS] += 1
        self._note_exchange("request", arrival, method, path)
        return self._faults.draw(self.requests - self._first_of_faults, path)

    def answered(self, arrival: Arrival, method: str, path: str, status: int, detail: str = "") -> None:
        """A request was answered, or cut off with status 0."""
        self._note_exchange("answer", arrival, method, path, status=status, detail=detail)

    def note(self, event: str, **values: Any) -> None:
        """Write an entry, and wake who waits for one; ``values`` are fields of `journal.Entry`."""
        self.journal.note(time.monotonic() - self._started_s, event, **values)
        if not self._changed.is_set():
            self._changed.set()

    def _note_exchange(self, event: str, arrival: Arrival, method: str, path: str, **values: Any) -> None:
        self.note(
            event,
            connection=arrival.number,
            client=arrival.client,
            method=method,
            path=path[:_MAX_PATH_CHARS],
            **values,
        )

    # ---- who waits -------------------------------------------------------------------------------------

    async def running(self) -> None:
        """Wait while the state is hung."""
        while self._state is State.HUNG:
            await self._next_entry()

    async def until_reset(self) -> None:
        """Wait for the next `reset`."""
        resets = self._resets
        while self._resets == resets:
            await self._next_entry()

    async def entries_after(self, number: int, timeout_s: float) -> list[Entry]:
        """Return the entries after this number: at once if there are any, else the next to come."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.journal.last_number <= number:
                    await self._next_entry()
        except TimeoutError:
            pass
        return self.journal.entries(number)

    async def _next_entry(self) -> None:
        # Everybody who waits is woken by the one event; the next to wait needs a new one.
        if self._changed.is_set():
            self._changed = asyncio.Event()
        await self._changed.wait()
