"""One of three nodes that keep a log together: agreed on is what a majority has written down (Raft).

There is one leader in a term. It writes an entry, sends it to the others, and acknowledges it when most have
it. Whoever hears of no leader for a while asks to be one, and gets the vote of those whose log is no longer
than its own. Members are fixed, and a node that has lost its disk must not vote in terms that it may have
voted in: `Disk.lose` therefore forgets entries, not votes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from examples.log.patience import Patience
from examples.log.wire import (
    Answer,
    Append,
    Appended,
    Done,
    Entry,
    Propose,
    Read,
    Refused,
    Request,
    Unknown,
    Vote,
    Voted,
)

HEARTBEAT_S = 0.5
CALL_TIMEOUT_S = 2 * HEARTBEAT_S
# All in heartbeats.
_ELECTION = (4.0, 8.0)
_SHORTEST_CALL, _LONGEST_CALL = 0.4, 2.0
_PROPOSAL = 10.0

Call = Callable[[str, Request], Awaitable[Answer]]
"""Ask a peer; raises ``OSError`` or ``TimeoutError``."""


@dataclass
class Disk:
    """What a node still has after a crash. Index 1 is the first entry."""

    term: int = 0
    voted_for: str | None = None
    entries: list[Entry] = field(default_factory=list)

    def last(self) -> tuple[int, int]:
        """Index and term of the last entry, 0 and 0 without one."""
        return len(self.entries), self.term_at(len(self.entries))

    def term_at(self, index: int) -> int:
        return self.entries[index - 1].term if index else 0

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)

    def cut(self, index: int) -> None:
        """Forget the entry of that index and all behind it."""
        del self.entries[index - 1 :]

    def lose(self) -> None:
        """Forget the log."""
        self.cut(1)


class LogNode:
    """``handle`` answers requests, :meth:`run` does what nobody asks for; both in one event loop."""

    def __init__(
        self,
        name: str,
        peers: Iterable[str],
        call: Call,
        disk: Disk,
        rng: Random,
        *,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """``heartbeat_s`` is the same for all nodes; whoever hears none for four to eight asks for votes."""
        self.name = name
        self.leader: str | None = None
        self.agreed = 0
        self._peers = [*peers]
        self._call = call
        self._disk = disk
        self._rng = rng
        self._heartbeat_s = heartbeat_s
        self._patience = {
            peer: Patience(
                initial_s=_LONGEST_CALL * heartbeat_s,
                least_s=_SHORTEST_CALL * heartbeat_s,
                most_s=_LONGEST_CALL * heartbeat_s,
            )
            for peer in self._peers
        }
        self._heard = asyncio.Event()
        self._progress = asyncio.Event()
        self._next: dict[str, int] = {}
        self._has: dict[str, int] = {}

    @property
    def leads(self) -> bool:
        return self.leader == self.name

    async def run(self) -> None:
        """Lead, or wait to hear of a leader and ask for votes when there is none."""
        while True:
            if self.leads:
                await self._replicate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._heard.wait(), self._heartbeat_s)
            else:
                silent_s = self._rng.uniform(*_ELECTION) * self._heartbeat_s
                try:
                    await asyncio.wait_for(self._heard.wait(), silent_s)
                except TimeoutError:
                    await self._campaign()
            self._heard.clear()

    async def handle(self, request: Request) -> Answer:
        match request:
            case Vote():
                return self._vote(request)
            case Append():
                return self._append(request)
            case Propose(payload):
                return await self._propose(payload)
            case Read():
                return await self._read()

    # ---- elections -----------------------------------------------------------------------------------

    def _vote(self, asked: Vote) -> Voted:
        self._follow(asked.term)
        disk = self._disk
        has_as_much = (asked.last_term, asked.last_index) >= (disk.last()[1], disk.last()[0])
        granted = asked.term == disk.term and disk.voted_for in {None, asked.candidate} and has_as_much
        if granted:
            disk.voted_for = asked.candidate
            self._heard.set()
        return Voted(disk.term, granted)

    async def _campaign(self) -> None:
        disk = self._disk
        disk.term += 1
        disk.voted_for, self.leader = self.name, None
        term = disk.term
        index, last_term = disk.last()
        answers = await self._ask_all(Vote(term, self.name, index, last_term))
        votes = sum(isinstance(answer, Voted) and answer.granted for answer in answers)
        if disk.term == term and self._is_majority(1 + votes):
            self.leader = self.name
            self._next = dict.fromkeys(self._peers, len(disk.entries) + 1)
            self._has = dict.fromkeys(self._peers, 0)
            # An entry of its own term shows how far the older ones are agreed on.
            disk.append(Entry(term, None))

    def _follow(self, term: int) -> None:
        """Somebody is in a later term: whatever this node was, it is no longer."""
        if term > self._disk.term:
            self._disk.term, self._disk.voted_for, self.leader = term, None, None
            self._wake()

    # ---- the log -------------------------------------------------------------------------------------

    def _append(self, told: Append) -> Appended:
        self._follow(told.term)
        disk = self._disk
        if told.term < disk.term:
            return Appended(disk.term, False)
        self.leader = told.leader
        self._heard.set()
        if told.after_index > len(disk.entries) or disk.term_at(told.after_index) != told.after_term:
            return Appended(disk.term, False)
        for index, entry in enumerate(told.entries, start=told.after_index + 1):
            if index > len(disk.entries) or disk.term_at(index) != entry.term:
                # From here on, a leader that is gone had written what nobody agreed on.
                disk.cut(index)
                disk.append(entry)
        self.agreed = max(self.agreed, min(told.agreed, told.after_index + len(told.entries)))
        return Appended(disk.term, True)

    async def _replicate(self) -> bool:
        """Send everybody what is missing there; return whether a majority still follows."""
        term = self._disk.term
        followed = await asyncio.gather(*(self._send(peer, term) for peer in self._peers))
        if not self.leads or self._disk.term != term:
            return False
        everywhere = sorted([len(self._disk.entries), *self._has.values()], reverse=True)
        most_have = everywhere[len(everywhere) // 2]
        # Entries of earlier terms are agreed on only together with one of this.
        if most_have > self.agreed and self._disk.term_at(most_have) == term:
            self.agreed = most_have
            self._wake()
        return self._is_majority(1 + sum(followed))

    async def _send(self, peer: str, term: int) -> bool:
        disk, first = self._disk, self._next[peer]
        entries = disk.entries[first - 1 :]
        told = Append(term, self.name, first - 1, disk.term_at(first - 1), entries, self.agreed)
        answer = await self._ask(peer, told)
        if not isinstance(answer, Appended) or not self.leads or disk.term != term:
            return False
        if answer.matches:
            self._has[peer] = max(self._has[peer], first - 1 + len(entries))
            self._next[peer] = self._has[peer] + 1
        else:
            # Its log is shorter, or another one: look further back.
            self._next[peer] = max(1, first // 2)
        return answer.term == term

    # ---- clients -------------------------------------------------------------------------------------

    async def _propose(self, payload: bytes) -> Answer:
        if not self.leads:
            return Refused(self.leader)
        term = self._disk.term
        self._disk.append(Entry(term, payload))
        index = len(self._disk.entries)
        self._heard.set()
        try:
            async with asyncio.timeout(_PROPOSAL * self._heartbeat_s):
                while self.agreed < index and self._disk.term == term:
                    await self._progress.wait()
        except TimeoutError:
            return Unknown()
        return Done(index) if self._disk.term == term else Unknown()

    async def _read(self) -> Answer:
        # Somebody else may lead by now: only a majority that still follows proves that nobody does.
        begins = self.leads and self._disk.term_at(self.agreed) == self._disk.term
        if not begins or not await self._replicate():
            return Refused(self.leader if not self.leads else None)
        agreed = self._disk.entries[: self.agreed]
        return Done(self.agreed, [entry.payload for entry in agreed if entry.payload is not None])

    # ---- peers ---------------------------------------------------------------------------------------

    async def _ask_all(self, request: Request) -> list[Answer | None]:
        return await asyncio.gather(*(self._ask(peer, request) for peer in self._peers))

    async def _ask(self, peer: str, request: Request) -> Answer | None:
        try:
            answer = await self._patience[peer].call(lambda: self._call(peer, request))
        except (OSError, TimeoutError, EOFError, ValueError):
            return None
        if isinstance(answer, Voted | Appended):
            self._follow(answer.term)
        return answer

    def _is_majority(self, votes: int) -> bool:
        return votes > (len(self._peers) + 1) // 2

    def _wake(self) -> None:
        """Have proposals look again."""
        self._progress.set()
        self._progress = asyncio.Event()
