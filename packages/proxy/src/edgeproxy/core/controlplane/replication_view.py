"""Replication at one moment: what metrics, ``ctl show members`` and ``ctl show replication`` tell of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec


class ReplicationCounts(msgspec.Struct):
    """What a node has done since the start."""

    written: int = 0
    """Writes of this POP."""
    applied: int = 0
    """Writes of others that were not known."""
    store_failures: int = 0
    warnings: Counter[str] = msgspec.field(default_factory=Counter)
    """By cause."""


class MemberView(msgspec.Struct, frozen=True, kw_only=True):
    """One POP of the cluster, as this one sees it."""

    node: str
    state: str
    """``self``, or as :class:`edgeproxy.core.replication.members.State` has it, in lower case."""
    gossip: str
    transport: str
    """Where its connections arrive."""
    since_s: float
    """How long it has been in this state."""
    connected: bool = False
    dialled: bool = False
    """Whether the connection was made from here."""
    version: int | None = None
    """Of the messages on the connection."""
    heard_s_ago: float | None = None
    """When something came over the connection last."""
    drift_ms: int | None = None
    """How far its wall clock was ahead of ours at its last comparison."""
    waiting_bytes: int = 0
    unacknowledged_bytes: int = 0
    dropped: int = 0
    """Messages for want of room, since the connection began."""


class ReplicationView(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    node: str
    cluster: str
    sealed: bool
    """Whether there are keys."""
    origin: str
    running: bool
    """False while another process is this node: a predecessor that has not ended."""
    namesake: str | None
    """Where another POP of this one's name was found."""
    doubt: int
    """From 0 to 4: of this POP in itself, because members do not answer it in time."""
    members: tuple[MemberView, ...]
    known: Mapping[str, int]
    """Origin to how many of its writes are known."""
    lag: Mapping[str, int]
    """Origin to how many writes others are known to have that have not come here."""
    pulling: str | None
    """The peer from which something is being fetched."""
    store_waiting: int
    """Commands that wait for the store."""
    refused_rows: Mapping[str, str]
    """Row to why the table does not take what others wrote."""
    counts: ReplicationCounts
    frames: Mapping[str, Mapping[str, int]]
    """``sent``, ``received`` and ``dropped``, by kind of message."""
    refused_peers: Mapping[str, int]
    """Connections and frames that were refused, by reason."""
    datagrams: Mapping[str, int]
    """Of membership, sent from here, by kind."""
    refused_datagrams: Mapping[str, int]
