"""A client comes back to the backend it had.

A binding belongs to (app, client network) and names a backend. It counts from its last use, and an
open connection keeps it in use; whoever holds the connection renews it every
:func:`renewal_interval`, so that a holder that dies leaves nothing to clean up. A binding whose
client has since moved to another country is void: what was the nearest backend no longer is.

Bindings are stored under a *tag*, 64 bits hashed with a secret of the segment, so that nobody can
choose addresses that crowd each other out of the table.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

import msgspec

TAG_BITS = 64
_TAG_MASK = (1 << TAG_BITS) - 1


class Binding(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of a client network."""

    backend_key: int
    """:func:`stable_key` of the backend's id."""
    country_code: int
    """:func:`country_code` of the client when it was bound."""
    last_use_s: float
    """On the clock of the caller."""


def stable_key(text: str) -> int:
    """64 bits that stand for an app or a backend id in the shared segment, over restarts too."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


@lru_cache(1024)
def country_code(country: str) -> int:
    """A country as a small integer, 0 for the unknown one."""
    return int.from_bytes(country.encode("ascii"), "big")


def binding_tag(secret: int, app_key: int, network: int) -> int:
    """Where the binding of (app, network) is kept; never 0, which marks a free place."""
    return hash((secret, app_key, network)) & _TAG_MASK or 1


def holds(binding: Binding, code: int, now_s: float, ttl_s: float) -> bool:
    """Whether the binding still speaks for a client of country ``code``."""
    return binding.country_code == code and now_s - binding.last_use_s < ttl_s


def worth_renewing(last_use_s: float, now_s: float, ttl_s: float) -> bool:
    """Whether a binding's last use is so long ago that a newer one should be noted.

    A thousandth of its time to live is not: most connections end within it, and need not note their end.
    """
    return now_s - last_use_s > ttl_s / 1000


def renewal_interval(ttl_s: float) -> float:
    """How often, in seconds, an open connection renews its binding: three times within the TTL."""
    return max(ttl_s / 3, 0.1)
