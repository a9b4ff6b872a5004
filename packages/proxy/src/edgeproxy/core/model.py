"""The nouns of routing, shared by the data plane and the control plane."""

from __future__ import annotations

import msgspec


class Backend(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One valid row of the routing table.

    Values are normalised: ``region`` is lower case, ``country`` is an upper-case ISO 3166-1
    alpha-2 code or ``""`` when neither the row nor its region names one. ``weight``,
    ``soft_limit`` and ``hard_limit`` are kept as the operator wrote them; what 0 means is the
    business of :mod:`edgeproxy.core.dataplane.selection`.
    """

    id: str
    app: str
    region: str
    country: str
    host: str
    """IP address (v4 or v6, without brackets) or host name; the ``wg_ip`` column."""
    port: int
    healthy: bool
    """The operator's word. It always excludes; it is not this POP's verdict."""
    weight: int
    soft_limit: int
    hard_limit: int


class Verdict(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What this POP has found out about a backend by itself: by checks, and by how connections went.

    It stays with this POP, is never stored or replicated, and is all that panic may ignore.
    """

    is_good: bool = True
    """Whether the backend takes clients as any other."""
    trial: int = 0
    """Number of the trial on which a backend that is not good is given a few connections, 0 for none."""
    weight_factor: float = 1.0
    """Scales ``weight``, above 0 and at most 1: less while the backend warms up after a recovery."""


GOOD = Verdict()
"""The verdict on a backend of which nothing is known."""


class Client(msgspec.Struct, frozen=True, gc=False):
    """Who connects, as far as routing cares."""

    address: str
    """Numeric address; an IPv4-mapped IPv6 address has been turned into IPv4."""
    country: str
    """Upper-case ISO 3166-1 alpha-2 code, ``""`` when unknown."""
    region: str
    """Region of the country, ``""`` when unknown."""
