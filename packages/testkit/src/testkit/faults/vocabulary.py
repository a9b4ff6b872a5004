"""The words for what goes wrong: links that delay, cut, lose, alter; nodes that stop, die, misread the clock.

A fault says what happens, not how: a simulated network, a fault link before a port and a container each have
ways of their own, and say of each fault whether they have one (`Unavailable` gives the reason). All say the
same when it is asked what a fault *means*:

- A **link** leads from who connects to who listens; `UP` is that way, `DOWN` the way of the answers.
- ``probability`` is that of a connection (of a datagram, for datagrams) being struck, drawn once for each by
  the seed. It is not drawn again while the fault is in force.
- A fault that is injected while connections are open strikes those too.
- Recovering ends a fault. What it held is let through; what it broke stays broken. Wherever it is offered,
  `recover` returns when that has taken effect.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Direction(enum.Enum):
    """Which way of a link."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"

    def covers(self, way: Direction) -> bool:
        return self in (Direction.BOTH, way)


UP, DOWN, BOTH = Direction


class UnavailableError(Exception):
    """A fault was asked for that the substrate does not have; says which, where, and why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong until it is recovered."""


# ---- links -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkFault(Fault):
    """Something that goes wrong between two nodes."""

    direction: Direction = field(default=BOTH, kw_only=True)
    probability: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{name} is {value}, but nothing of a fault is negative")
        for name in ("probability", "share"):
            if getattr(self, name, 0) > 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but at most all is struck: 1")


@dataclass(frozen=True, slots=True)
class Latency(LinkFault):
    """Everything arrives later, each piece by ``delay_s``, give or take ``jitter_s``. Streams keep order."""

    delay_s: float
    jitter_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Bandwidth(LinkFault):
    """No more than so much gets through; who sends more finds the link full."""

    bytes_per_s: float

    def __post_init__(self) -> None:
        LinkFault.__post_init__(self)
        if self.bytes_per_s == 0:
            raise ValueError("nothing at all gets through: say Partition, or Blackhole")


@dataclass(frozen=True, slots=True)
class SlowClose(LinkFault):
    """The end of a stream arrives so much later than its last byte."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Reset(LinkFault):
    """Connections end with RST at once, new ones as soon as they are made. One way: for whom it leads to."""


@dataclass(frozen=True, slots=True)
class HalfClose(LinkFault):
    """The receiver sees the end of the stream and goes on sending; what the sender says is lost."""


@dataclass(frozen=True, slots=True)
class Blackhole(LinkFault):
    """Connecting works and sending too, but nothing arrives, not even after the recovery."""


@dataclass(frozen=True, slots=True)
class Partition(LinkFault):
    """As an unplugged cable: connecting waits, what is sent waits, and goes on when the link is whole again.

    One way: it is enough to keep connections from being made. Datagrams do not wait, but are lost.
    """


@dataclass(frozen=True, slots=True)
class Slicing(LinkFault):
    """Everything arrives in pieces of so many bytes, with a pause between them."""

    size_bytes: int
    pause_s: float = 0.0

    def __post_init__(self) -> None:
        LinkFault.__post_init__(self)
        if self.size_bytes == 0:
            raise ValueError("a piece of 0 bytes is none")


@dataclass(frozen=True, slots=True)
class Corruption(LinkFault):
    """One bit is turned in this share of all pieces."""

    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Loss(LinkFault):
    """This share of all packets does not arrive. Streams have no packets of their own: see who offers it."""

    share: float


@dataclass(frozen=True, slots=True)
class LimitBytes(LinkFault):
    """After so many bytes in a direction the connection is cut: closed in order, or ``reset``."""

    size_bytes: int
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Refuse(LinkFault):
    """Nobody listens: connecting is refused. Connections that are open stay."""


@dataclass(frozen=True, slots=True)
class AcceptThenHang(LinkFault):
    """New connections are accepted, and then nobody reads or answers; after the recovery they are served."""


# ---- nodes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeFault(Fault):
    """Something that goes wrong with a node."""


@dataclass(frozen=True, slots=True)
class Pause(NodeFault):
    """Everything on it stands still; its kernel goes on accepting connections."""


@dataclass(frozen=True, slots=True)
class Kill(NodeFault):
    """It is gone without a word. Recovering starts it anew.

    A process that is killed leaves a kernel that refuses and resets; a machine that is killed falls silent.
    """


@dataclass(frozen=True, slots=True)
class ClockJump(NodeFault):
    """Its wall clock is off by so much (negative: back); recovering sets it right."""

    by_s: float
