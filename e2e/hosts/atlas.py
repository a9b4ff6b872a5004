"""Who is where in the world of the hosts: networks, addresses, countries. Nothing here does anything.

Regions are internal networks, as between the machines of a company; the internet is made of networks that are
reserved for such purposes, from which clients come with their own addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

REGIONS: Final = {
    "sa": IPv4Network("10.50.1.0/24"),
    "us": IPv4Network("10.50.2.0/24"),
    "eu": IPv4Network("10.50.3.0/24"),
    "ap": IPv4Network("10.50.4.0/24"),
}
# The first is meant for measurements, the second for documentation. Of the others for documentation one was
# seen to hold a machine's package registry, and one the machine itself.
INTERNET: Final = {"north": IPv4Network("198.18.51.0/24"), "south": IPv4Network("198.51.100.0/24")}
METADATA: Final = IPv4Network("169.254.169.0/24")
METADATA_ADDRESS: Final = "169.254.169.254"
NETWORKS: Final = {**REGIONS, **INTERNET, "metadata": METADATA}

ROUND_TRIPS_S: Final = {
    ("sa", "us"): 0.06,
    ("sa", "eu"): 0.09,
    ("sa", "ap"): 0.15,
    ("us", "eu"): 0.04,
    ("us", "ap"): 0.08,
    ("eu", "ap"): 0.08,
}
"""Between regions, about half of what it is on the way round the world: far enough to be felt."""
BACKEND_PORT: Final = 9001
_FIRST_POP: Final = 10
_FIRST_BACKEND: Final = 20


@dataclass(frozen=True, slots=True)
class PopPlace:
    """A point of presence: in a region, reachable from the whole internet and from every region."""

    region: str
    cloud_region: str
    number: int

    @property
    def name(self) -> str:
        return f"pop-{self.region}"

    @property
    def instance(self) -> str:
        """The id of the instance, which is its name among POPs that replicate."""
        return f"i-{self.number:017x}"

    @property
    def addresses(self) -> dict[str, str]:
        """Network to address."""
        return {name: str(network[_FIRST_POP + self.number]) for name, network in NETWORKS.items()}


@dataclass(frozen=True, slots=True)
class BackendPlace:
    """A machine with a backend of the same name."""

    name: str
    region: str
    number: int

    @property
    def address(self) -> str:
        return str(REGIONS[self.region][_FIRST_BACKEND + self.number])


@dataclass(frozen=True, slots=True)
class ClientPlace:
    """A machine whose addresses are those of all clients of some countries, in one network."""

    name: str
    network: str
    own_address: str
    countries: dict[str, IPv4Network]


POPS: Final = {
    region: PopPlace(region, cloud_region, number)
    for number, (region, cloud_region) in enumerate(
        {"sa": "sa-east-1", "us": "us-east-1", "eu": "eu-central-1"}.items()
    )
}
BACKENDS: Final = {
    f"mock-{region}-{number}": BackendPlace(f"mock-{region}-{number}", region, number)
    for region, count in {"sa": 2, "us": 2, "eu": 3, "ap": 2}.items()
    for number in range(1, count + 1)
}
CLIENTS: Final = (
    ClientPlace("client-br", "south", "198.51.100.20", {"BR": IPv4Network("198.51.100.64/26")}),
    ClientPlace(
        "client-us",
        "south",
        "198.51.100.21",
        {"US": IPv4Network("198.51.100.128/26"), "CA": IPv4Network("198.51.100.192/27")},
    ),
    ClientPlace(
        "client-de",
        "north",
        "198.18.51.20",
        {
            "DE": IPv4Network("198.18.51.64/26"),
            "PT": IPv4Network("198.18.51.128/27"),
            "FR": IPv4Network("198.18.51.160/27"),
        },
    ),
    ClientPlace(
        "client-jp",
        "north",
        "198.18.51.21",
        # "" is on no map: for clients whose country nobody knows.
        {"JP": IPv4Network("198.18.51.192/27"), "": IPv4Network("198.18.51.32/27")},
    ),
)
COUNTRIES: Final = {country: client for client in CLIENTS for country in client.countries}


def delays_from(region: str) -> dict[str, float]:
    """How far the other regions are, by name, in seconds there and back."""
    return {
        other: delay_s
        for pair, delay_s in ROUND_TRIPS_S.items()
        if region in pair
        for other in pair
        if other != region
    }


def gateway_of(name: str) -> str:
    """The address in a network of the machine on which all of it runs."""
    return str(NETWORKS[name][1 if name == "metadata" else -2])


def address_in(country: str, number: int) -> str:
    """The address of the client of that number, from 1, in ``country``, "" for nowhere."""
    network = COUNTRIES[country].countries[country]
    assert 1 <= number < network.num_addresses - 1, f"no client in {country!r} has number {number}"
    return str(network[number])
