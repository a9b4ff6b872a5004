"""A small world on the loopback interface: countries as networks of 127.0.0.0/8.

Linux lets a client connect from any loopback address without configuring it, so a client in Brazil is
one that binds 127.0.1.1 before it connects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from testkit.geo import write_country_database

_NETWORKS: Final = {
    "BR": "127.0.1",
    "CA": "127.0.2",
    "DE": "127.0.3",
    "FR": "127.0.4",
    "JP": "127.0.5",
    "PT": "127.0.6",
    "US": "127.0.7",
    # On no map: for clients whose country nobody knows.
    "": "127.0.99",
}

LAST_NUMBER: Final = 254


def address_in(country: str, number: int) -> str:
    """The address of the client of that number (1 to :data:`LAST_NUMBER`) in ``country``, "" for nowhere."""
    assert 1 <= number <= LAST_NUMBER, f"no client has number {number}"
    return f"{_NETWORKS[country]}.{number}"


def write_map(path: Path) -> None:
    """Write the country database of this world."""
    write_country_database(
        path, {f"{network}.0/24": country for country, network in _NETWORKS.items() if country}
    )
