"""Convert a country database to the starter database that edgeproxy embeds.

    python tools/make_starter_geoip.py SOURCE OUTPUT

SOURCE is any ``.mmdb`` file with a country in its records. OUTPUT gets the shape that ``geoip2`` and
edgeproxy read, ``{"country": {"iso_code": "BR"}}``, and nothing else. The same source gives the same
bytes: the build date is the source's, and nothing depends on the clock or on hashing.

The file is small because equal subtrees are stored once. The format permits it, a node being nothing
but two record numbers, and readers already follow such sharing where IPv6 ranges stand for IPv4.
A third of the nodes remain.
"""

from __future__ import annotations

import argparse
import sys
from bisect import bisect_left
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

import maxminddb
from mmdb_writer import SearchTreeLeaf, SearchTreeNode, TreeWriter

from edgeproxy.outbound.geo_maxmind import iso_code

DATABASE_TYPE: Final = "edgeproxy-starter-Country"
"""``geoip2.Reader.country()`` wants the word Country in it."""

BITS: Final = 128

SPECIAL_PURPOSE: Final = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/3", "2001::/23", "2001:db8::/32", "3fff::/20", "fc00::/7", "fe80::/10"),
)
"""Ranges that belong to nobody (IANA's registries of special-purpose addresses, RFC 6890).

Registries list some of them under the country of their own office; whoever connects from a private
network would be taken for an Australian.
"""

IPV4_EMBEDDINGS: Final = ((0xFFFF << 32, 96), (0x64FF9B << 96, 96), (0x2002 << 112, 16))
"""IPv6 ranges whose next 32 bits are the client's IPv4 address, as (first address, prefix length).

IPv4-mapped (RFC 4291), the well-known prefix of NAT64 (RFC 6052) and 6to4 (RFC 3056). What the source
holds there is replaced. Teredo is missing on purpose: its plain IPv4 address is the relay's.
"""

Network = tuple[int, int, str]
"""First address, prefix length (both as of IPv6, IPv4 lying in ::/96) and country code."""

Child = SearchTreeNode | SearchTreeLeaf | None


class Tree:
    """The search tree over 128 bits in its smallest form: no two equal subtrees, no two equal leaves."""

    def __init__(self, networks: list[Network]) -> None:
        self._networks = networks
        self._starts = [start for start, _, _ in networks]
        self._nodes: dict[tuple[int, int], SearchTreeNode] = {}
        self._leaves: dict[str, SearchTreeLeaf] = {}
        root = self._subtree(0, len(networks), 0, 0)
        for cidr in SPECIAL_PURPOSE:
            network = ip_network(cidr)
            root = self._graft(root, None, int(network.network_address), _depth(network), 0)
        ipv4 = root
        for _ in range(96):
            ipv4 = ipv4.left if isinstance(ipv4, SearchTreeNode) else ipv4
        for start, prefix_bits in IPV4_EMBEDDINGS:
            root = self._graft(root, ipv4, start, prefix_bits, 0)
        if not isinstance(root, SearchTreeNode):
            raise ValueError("no network of the source has a country")
        self.root = root

    def _subtree(self, first: int, last: int, base: int, depth: int) -> Child:
        """Of the networks ``first`` to ``last`` (exclusive), all within ``base``/``depth``."""
        if first == last:
            return None
        _, prefix_bits, country = self._networks[first]
        if prefix_bits == depth:
            return self._leaf(country)
        middle = base | 1 << (BITS - 1 - depth)
        split = bisect_left(self._starts, middle, first, last)
        return self._node(
            self._subtree(first, split, base, depth + 1), self._subtree(split, last, middle, depth + 1)
        )

    def _leaf(self, country: str) -> SearchTreeLeaf:
        leaf = self._leaves.get(country)
        if leaf is None:
            leaf = self._leaves[country] = SearchTreeLeaf({"country": {"iso_code": country}})
        return leaf

    def _node(self, left: Child, right: Child) -> Child:
        # Children are unique, so their identity stands for their contents; equal halves merge.
        if left is right and not isinstance(left, SearchTreeNode):
            return left
        key = (id(left), id(right))
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = SearchTreeNode(left, right)
        return node

    def _graft(self, child: Child, scion: Child, start: int, prefix_bits: int, depth: int) -> Child:
        """``child`` with ``scion`` in the place of the network ``start``/``prefix_bits``."""
        if depth == prefix_bits:
            return scion
        # A leaf or a gap covers the place: both halves inherit it.
        left, right = (child.left, child.right) if isinstance(child, SearchTreeNode) else (child, child)
        if start >> (BITS - 1 - depth) & 1:
            return self._node(left, self._graft(right, scion, start, prefix_bits, depth + 1))
        return self._node(self._graft(left, scion, start, prefix_bits, depth + 1), right)


def _depth(network: IPv4Network | IPv6Network) -> int:
    """Bits from the root of the tree to ``network``."""
    return network.prefixlen + (96 if network.version == 4 else 0)


def read_networks(reader: maxminddb.Reader) -> list[Network]:
    """All networks of ``reader`` that have a country, in the order of their addresses."""
    networks = []
    for network, record in reader:
        country = iso_code(record)
        if country:
            networks.append((int(network.network_address), _depth(network), country))
    return networks


def convert(source: Path, output: Path) -> None:
    """Write the starter database made from ``source`` to ``output``."""
    with maxminddb.open_database(source, maxminddb.MODE_MMAP_EXT) as reader:
        networks = read_networks(reader)
        metadata = reader.metadata()
    TreeWriter(
        Tree(networks).root,
        {
            "ip_version": 6,
            "database_type": DATABASE_TYPE,
            "languages": ["en"],
            "binary_format_major_version": 2,
            "binary_format_minor_version": 0,
            "description": {"en": "Countries by registry records; statistics CC BY 4.0 by nro.net"},
            "build_epoch": metadata.build_epoch,
        },
    ).write(str(output))
    print(f"{output}: {len(networks)} networks, {output.stat().st_size} bytes, epoch {metadata.build_epoch}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Convert a country database to the embedded starter database."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="an .mmdb file with countries")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the file to write")
    arguments = parser.parse_args()
    try:
        convert(arguments.source, arguments.output)
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        print(f"make_starter_geoip: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
