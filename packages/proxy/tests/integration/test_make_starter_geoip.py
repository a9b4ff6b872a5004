"""The tool that makes the embedded database, on a made-up source."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import random
import runpy
import subprocess
import sys
from pathlib import Path

import geoip2.database
import maxminddb
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from edgeproxy.outbound.geo_maxmind import iso_code

TOOL = Path(__file__).parents[4] / "tools" / "make_starter_geoip.py"

COUNTRIES = ("BR", "DE", "US", "JP", "ZA")


def write_source(path: Path, countries: dict[str, str], *, ip_version: int = 6) -> None:
    """Write a database in the flat shape of ip-location-db."""
    writer = MMDBWriter(ip_version, "country ipvAll", ["en"], "for a test", ipv4_compatible=ip_version == 6)
    for cidr, country in countries.items():
        writer.insert_network(IPSet([cidr]), {"country_code": country})
    writer.to_db_file(str(path))


main = runpy.run_path(str(TOOL))["main"]


def run_tool(source: Path, output: Path) -> tuple[int, str]:
    """Run the tool in this process; return its exit code and what it said on standard error."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as scene, contextlib.redirect_stderr(said):
        scene.setattr(sys, "argv", [str(TOOL), str(source), str(output)])
        return main(), said.getvalue()


def convert(source: Path, output: Path) -> None:
    code, said = run_tool(source, output)
    assert code == 0, said


def open_database(path: Path) -> maxminddb.Reader:
    return maxminddb.open_database(path, maxminddb.MODE_MMAP_EXT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source.mmdb"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "starter.mmdb"


def test_it_is_a_command(source: Path, output: Path) -> None:
    write_source(source, {"200.160.0.0/20": "BR"})
    command = [sys.executable, str(TOOL), str(source), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{output}: 1 networks, ")


def test_agrees_with_the_source_on_every_address(source: Path, output: Path, rng: random.Random) -> None:
    networks: dict[str, str] = {}
    for _ in range(150):
        ipv4_bits, ipv6_bits = rng.randint(4, 32), rng.randint(16, 64)
        ipv4 = ipaddress.IPv4Network((rng.getrandbits(32), ipv4_bits), strict=False)
        ipv6 = ipaddress.IPv6Network((0x2A << 120 | rng.getrandbits(120), ipv6_bits), strict=False)
        networks |= {str(ipv4): rng.choice(COUNTRIES), str(ipv6): rng.choice(COUNTRIES)}
    write_source(source, networks)
    convert(source, output)
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for cidr in networks:
        network = ipaddress.ip_network(cidr)
        addresses += [network[0], network[-1], network[rng.randrange(network.num_addresses)]]
    addresses += [ipaddress.IPv4Address(rng.getrandbits(32)) for _ in range(500)]
    # What is nobody's has no country, see below.
    addresses = [address for address in addresses if address.is_global and not address.is_multicast]
    with open_database(source) as expected, open_database(output) as actual:
        for address in addresses:
            assert iso_code(actual.get(address)) == iso_code(expected.get(address)), address


def test_satisfies_geoip2(source: Path, output: Path) -> None:
    write_source(source, {"200.160.0.0/20": "BR", "2a00::/16": "DE"})
    convert(source, output)
    with geoip2.database.Reader(output) as reader:
        assert reader.country("200.160.2.3").country.iso_code == "BR"
        assert reader.country("2a00::1").country.iso_code == "DE"


def test_gives_the_same_bytes_for_the_same_source(source: Path, output: Path, tmp_path: Path) -> None:
    write_source(source, {"200.160.0.0/20": "BR", "1.0.0.0/8": "AU", "2a00::/16": "DE"})
    convert(source, output)
    again = tmp_path / "again.mmdb"
    convert(source, again)
    assert again.read_bytes() == output.read_bytes()


def test_keeps_the_build_date_of_the_source(source: Path, output: Path) -> None:
    write_source(source, {"200.160.0.0/20": "BR"})
    # As if it had been made in 2001: the writer knows only the present.
    content = source.read_bytes()
    mark = b"build_epoch\x04\x02"
    at = content.index(mark) + len(mark)
    source.write_bytes(content[:at] + (10**9).to_bytes(4, "big") + content[at + 4 :])
    convert(source, output)
    with open_database(output) as reader:
        assert reader.metadata().build_epoch == 10**9


def test_merges_neighbours_of_one_country_and_shares_equal_subtrees(source: Path, output: Path) -> None:
    # Alternating /24s of two countries: 256 times the same pair.
    networks = {f"8.{high}.{low}.0/24": COUNTRIES[low % 2] for high in range(2) for low in range(256)}
    networks |= {f"9.0.{low}.0/24": "JP" for low in range(256)}
    write_source(source, networks)
    convert(source, output)
    with open_database(source) as before, open_database(output) as after:
        assert after.get_with_prefix_len("9.0.77.1") == ({"country": {"iso_code": "JP"}}, 16)
        assert after.get_with_prefix_len("8.1.77.1") == ({"country": {"iso_code": "DE"}}, 24)
        # Most of what is left leads to the IPv6 ranges that stand for IPv4 and to the special-purpose ones.
        assert after.metadata().node_count < before.metadata().node_count / 2


@pytest.mark.parametrize("address", ["::ffff:200.160.2.3", "64:ff9b::200.160.2.3", "2002:c8a0:203::1"])
def test_finds_ipv4_inside_of_ipv6(source: Path, output: Path, address: str) -> None:
    # What registries say about 6to4 is a typing error of theirs.
    write_source(source, {"200.160.0.0/20": "BR", "2002:5a0:3602::/112": "CA"})
    convert(source, output)
    with open_database(output) as reader:
        assert iso_code(reader.get(address)) == "BR"
        assert reader.get("2002:5a0:3602::1") is None


def test_leaves_teredo_alone(source: Path, output: Path) -> None:
    write_source(source, {"200.160.0.0/20": "BR"})
    convert(source, output)
    with open_database(output) as reader:
        assert reader.get("2001:0:c8a0:203::1") is None


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "100.64.0.1", "127.0.0.1", "172.17.0.2", "192.168.0.1", "::1", "fd00::1", "fe80::1"],
)
def test_gives_private_addresses_no_country(source: Path, output: Path, address: str) -> None:
    write_source(source, {"::/1": "AU", "8000::/1": "AU", "0.0.0.0/0": "AU"})
    convert(source, output)
    with open_database(output) as reader:
        assert reader.get(address) is None
        assert iso_code(reader.get("1.1.1.1")) == iso_code(reader.get("2a00::1")) == "AU"


def test_takes_a_source_without_ipv6(source: Path, output: Path) -> None:
    write_source(source, {"200.160.0.0/20": "BR"}, ip_version=4)
    convert(source, output)
    with open_database(output) as reader:
        assert iso_code(reader.get("200.160.2.3")) == iso_code(reader.get("::ffff:200.160.2.3")) == "BR"


def test_drops_networks_without_a_country(source: Path, output: Path) -> None:
    write_source(source, {"200.160.0.0/20": "BR", "201.0.0.0/8": "-"})
    convert(source, output)
    with open_database(output) as reader:
        assert reader.get("201.1.1.1") is None


def test_says_in_one_line_what_is_wrong_with_the_source(source: Path, output: Path) -> None:
    code, said = run_tool(source, output)
    assert code == 1
    assert said.startswith("make_starter_geoip: ")
    assert said.count("\n") == 1
    source.write_text("hello")
    assert run_tool(source, output)[0] == 1
    write_source(source, {"200.160.0.0/20": "-"})
    assert "no network of the source has a country" in run_tool(source, output)[1]
    assert not output.exists()
