"""Small country databases in the shape of GeoLite2-Country, for tests and demos."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPSet


def write_country_database(
    path: str | os.PathLike[str],
    countries: Mapping[str, str],
    *,
    database_type: str = "GeoLite2-Country",
) -> None:
    """Write ``countries``, network in CIDR form to ISO 3166-1 alpha-2 code, as an ``.mmdb`` file.

    Networks may be IPv4 and IPv6 and may overlap: the most specific one wins. IPv4 lies below ``::/96``,
    where all readers look for it. The file appears in one step (written aside, then renamed), so a
    process that has the old file mapped keeps a whole one.

    Raises:
        ValueError: a key is not a network, or has bits set to the right of its prefix.
        OSError: the file cannot be written.
    """
    writer = MMDBWriter(
        ip_version=6,
        ipv4_compatible=True,
        database_type=database_type,
        languages=["en"],
        description="Made for a test; not a map of the world",
    )
    # The writer lets the last insertion win, whatever the prefix length: widest first.
    for cidr in sorted(countries, key=_depth):
        writer.insert_network(IPSet([cidr]), {"country": {"iso_code": countries[cidr]}})
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.new")
    writer.to_db_file(str(aside))
    aside.replace(target)


def _depth(cidr: str) -> int:
    """Bits of the search tree that lead to a network: IPv4 starts 96 bits down."""
    network = ipaddress.ip_network(cidr)
    return network.prefixlen + (96 if network.version == 4 else 0)
