"""From a peer's address to the client that routing sees.

Addresses arrive as text, because that is what ``accept`` and the PROXY protocol give. Each new
connection passes here, so IPv4 is read with four dictionary look-ups (0.3 µs; :mod:`ipaddress` takes
1.8 µs) and IPv6 with one pass over its groups (a third of :mod:`ipaddress`'s 7 µs). Both accept and
refuse the same text as :mod:`ipaddress`; the property tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

from edgeproxy.core.geography import Geography
from edgeproxy.core.model import Client

_OCTETS: Final = {str(value): value for value in range(256)}
_MAPPED: Final = "::ffff:"
"""How a dual-stack socket shows the address of an IPv4 peer."""
_IPV6_ALPHABET: Final = "0123456789abcdefABCDEF:"
_ZERO_RUNS: Final = tuple(":" + "0:" * length for length in range(8, 1, -1))

_IPV4_NETWORKS: Final = 0xFFFF << 48
"""Where IPv4 lies among the affinity networks: within ffff::/16, multicast, which never connects."""


def normalise(address: str) -> str:
    """Return the one spelling of a numeric address.

    IPv4-mapped IPv6 becomes IPv4, IPv6 takes the form of RFC 5952 (lower case, longest run of zeros
    shortened), a zone (``%eth0``) is dropped.

    Raises:
        ValueError: ``address`` is no IP address; the message quotes it.
    """
    quad = address.removeprefix(_MAPPED)
    if _ipv4(quad) is not None:
        return quad
    groups = _ipv6_groups(address)
    mapped = _mapped_ipv4(groups)
    if mapped is not None:
        return f"{mapped >> 24}.{mapped >> 16 & 255}.{mapped >> 8 & 255}.{mapped & 255}"
    text = ":{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:".format(*groups)
    for zeros in _ZERO_RUNS:
        before, found, after = text.partition(zeros)
        if found:
            return f"{before[1:]}::{after[:-1]}"
    return text[1:-1]


def identify(address: str) -> tuple[str, int]:
    """What :func:`normalise` and :func:`affinity_network` return, of which most is the same work.

    Raises:
        ValueError: ``address`` is no IP address; the message quotes it.
    """
    quad = address.removeprefix(_MAPPED)
    ipv4 = _ipv4(quad)
    if ipv4 is not None:
        return quad, _IPV4_NETWORKS | ipv4
    return normalise(address), affinity_network(address)


def affinity_network(address: str) -> int:
    """Return the network that affinity remembers ``address`` by, as an unsigned 64-bit key.

    IPv6 counts by its /64, since privacy extensions change the lower half at will: the key is the upper
    half. IPv4 counts by the whole address: the key is ``0xffff0000_00000000 + address``, which no /64 that
    can open a connection has.

    Raises:
        ValueError: ``address`` is no IP address; the message quotes it.
    """
    ipv4 = _ipv4(address.removeprefix(_MAPPED))
    if ipv4 is not None:
        return _IPV4_NETWORKS | ipv4
    groups = _ipv6_groups(address)
    mapped = _mapped_ipv4(groups)
    if mapped is not None:
        return _IPV4_NETWORKS | mapped
    return groups[0] << 48 | groups[1] << 32 | groups[2] << 16 | groups[3]


def locate(address: str, country_of: Callable[[str], str], geography: Geography) -> Client:
    """Find out where the peer at ``address`` is.

    Args:
        address: numeric peer address, in any spelling.
        country_of: see :class:`edgeproxy.ports.CountryLookup`; asked with the normalised address.
        geography: gives the country's region.

    Raises:
        ValueError: ``address`` is no IP address.
    """
    address = normalise(address)
    country = country_of(address)
    return Client(address, country, geography.region_of(country))


def _ipv4(text: str) -> int | None:
    """The value of a dotted quad, ``None`` when ``text`` is none."""
    octets = text.split(".")
    if len(octets) != 4:
        return None
    try:
        return (
            _OCTETS[octets[0]] << 24 | _OCTETS[octets[1]] << 16 | _OCTETS[octets[2]] << 8 | _OCTETS[octets[3]]
        )
    except KeyError:
        return None


def _ipv6_groups(address: str) -> list[int]:
    """The eight 16-bit groups of ``address``, with or without a zone."""
    text, zone_mark, zone = address.partition("%")
    if zone_mark and (not zone or "%" in zone or "/" in zone):
        _refuse(address)
    if "." in text:
        text, _, quad = text.rpartition(":")
        low = _ipv4(quad)
        if low is None:
            _refuse(address)
        text = f"{text}:{low >> 16:x}:{low & 0xFFFF:x}"
    head, gap, tail = text.partition("::")
    groups = head.split(":") if head else []
    if gap:
        after = tail.split(":") if tail else []
        missing = 8 - len(groups) - len(after)
        # RFC 4291 wants at least one group behind "::"; so do ipaddress and the kernel.
        groups += ["0"] * max(missing, 1) + after
    # What strip() leaves is foreign to IPv6; int() would also take "+1", "0x1" and "1_0".
    if len(groups) != 8 or max(map(len, groups)) > 4 or text.strip(_IPV6_ALPHABET):
        _refuse(address)
    try:
        return [int(group, 16) for group in groups]
    except ValueError:
        _refuse(address)


def _mapped_ipv4(groups: list[int]) -> int | None:
    """The IPv4 address within ``::ffff:0:0/96``."""
    if groups[5] == 0xFFFF and not any(groups[:5]):
        return groups[6] << 16 | groups[7]
    return None


def _refuse(address: str) -> NoReturn:
    raise ValueError(f"not an IP address: {address!r}")
