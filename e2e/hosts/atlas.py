"""Who is where in the worlds of the hosts: networks, addresses, countries. Nothing here does anything.

Regions are internal networks, as between the machines of a company; the internet is made of networks that are
reserved for such purposes, from which clients come with their own addresses. Worlds of different numbers have
no address in common, so that they can stand side by side on one engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

METADATA_ADDRESS: Final = "169.254.169.254"
"""Every instance has it to itself."""
BACKEND_PORT: Final = 9001

ROUND_TRIPS_S: Final = {
    ("sa", "us"): 0.06,
    ("sa", "eu"): 0.09,
    ("sa", "ap"): 0.15,
    ("us", "eu"): 0.04,
    ("us", "ap"): 0.08,
    ("eu", "ap"): 0.08,
}
"""Between regions, about half of what it is on the way round the world: far enough to be felt."""

_REGIONS: Final = ("sa", "us", "eu", "ap")
_POPS: Final = {"sa": "sa-east-1", "us": "us-east-1", "eu": "eu-central-1"}
"""Region to what the cloud calls it."""
_BACKENDS: Final = {"sa": 2, "us": 2, "eu": 3, "ap": 2}
_CLIENTS: Final = {
    "client-br": ("south", {"BR": (64, 26)}),
    "client-us": ("south", {"US": (128, 26), "CA": (192, 27)}),
    "client-de": ("north", {"DE": (64, 26), "PT": (128, 27), "FR": (160, 27)}),
    # "" is on no map: for clients whose country nobody knows.
    "client-jp": ("north", {"JP": (192, 27), "": (32, 27)}),
}
"""Machine to its network, and where in that each of its countries begins and how wide it is."""
# One is for documentation, the others are for measurements. Of the others for documentation one was seen to
# hold a machine's package registry, and one the machine itself.
_INTERNETS: Final = (
    {"north": IPv4Network("198.18.51.0/24"), "south": IPv4Network("198.51.100.0/24")},
    {"north": IPv4Network("198.19.51.0/24"), "south": IPv4Network("198.19.100.0/24")},
)
WORLDS: Final = len(_INTERNETS)
"""How many there is room for."""
_FIRST_REGIONS: Final = 50
_FIRST_POP: Final = 10
_FIRST_BACKEND: Final = 20
_FIRST_CLIENT: Final = 20


@dataclass(frozen=True, slots=True)
class PopPlace:
    """A point of presence: in a region, reachable from the whole internet and from every region."""

    region: str
    cloud_region: str
    instance: str
    """The id of the instance, which is its name among POPs that replicate."""
    addresses: dict[str, str]
    """By network."""

    @property
    def name(self) -> str:
        return f"pop-{self.region}"


@dataclass(frozen=True, slots=True)
class BackendPlace:
    """A machine with a backend of the same name."""

    name: str
    region: str
    address: str


@dataclass(frozen=True, slots=True)
class ClientPlace:
    """A machine whose addresses are those of all clients of some countries, in one network."""

    name: str
    network: str
    own_address: str
    countries: dict[str, IPv4Network]


class Atlas:
    """The world of one number, from 0."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.regions = {
            region: IPv4Network(f"10.{_FIRST_REGIONS + number}.{third}.0/24")
            for third, region in enumerate(_REGIONS, 1)
        }
        self.networks = {**self.regions, **_INTERNETS[number]}
        self.pops = {
            region: PopPlace(
                region,
                cloud_region,
                f"i-{place:017x}",
                {name: str(network[_FIRST_POP + place]) for name, network in self.networks.items()},
            )
            for place, (region, cloud_region) in enumerate(_POPS.items())
        }
        """By region."""
        self.backends = {
            name: BackendPlace(name, region, str(self.regions[region][_FIRST_BACKEND + place]))
            for region, count in _BACKENDS.items()
            for place in range(1, count + 1)
            for name in [f"mock-{region}-{place}"]
        }
        """By name, which is the id of the backend."""
        self.clients = [
            ClientPlace(
                name,
                network,
                str(self.networks[network][_FIRST_CLIENT + place]),
                {
                    country: IPv4Network((self.networks[network][first], bits))
                    for country, (first, bits) in countries.items()
                },
            )
            for place, (name, (network, countries)) in enumerate(_CLIENTS.items())
        ]
        self.countries = {country: client for client in self.clients for country in client.countries}

    def called(self, name: str) -> str:
        """What the engine calls a container or a network of this world."""
        return f"edgeproxy{self.number or ''}-{name}"

    def gateway_of(self, network: str) -> str:
        """The address in a network of the machine on which all of it runs."""
        return str(self.networks[network][-2])

    def address_in(self, country: str, number: int) -> str:
        """The address of the client of that number, from 1, in ``country``, "" for nowhere."""
        network = self.countries[country].countries[country]
        assert 1 <= number < network.num_addresses - 1, f"no client in {country!r} has number {number}"
        return str(network[number])


def delays_from(region: str) -> dict[str, float]:
    """How far the other regions are, by name, in seconds there and back."""
    return {
        other: delay_s
        for pair, delay_s in ROUND_TRIPS_S.items()
        if region in pair
        for other in pair
        if other != region
    }
