"""What the first bytes of a stream tell before the rest has arrived.

A reader of a prefix takes all bytes that have come so far, as ``recv`` with ``MSG_PEEK`` gives them: it
consumes nothing and remembers nothing. What it answers other than :attr:`Verdict.NEED_MORE` is final, since
no further byte changes it, and once the prefix has the reader's ``MAX_PREFIX_BYTES`` the answer is final too.
So a caller peeks at no more than that, whenever more has arrived, until the answer is final or its patience
is over.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class Verdict(Enum):
    """What there is to say without any content."""

    NEED_MORE = "need_more"
    OTHER_PROTOCOL = "other_protocol"
    """These bytes begin something else than what the reader looks for."""


class Malformed(msgspec.Struct, frozen=True):
    """The beginning is that of the protocol, what follows is not; nothing after it can be trusted."""

    reason: str
    """For the log; at most one line."""
