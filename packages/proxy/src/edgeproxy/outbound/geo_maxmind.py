"""Countries of addresses, read from a database in MaxMind's ``.mmdb`` format.

The C reader is required: it answers in about a microsecond from a memory map that all processes share,
where the pure Python one takes 48. The price of the map is that the file must be replaced by renaming
(``mv``), never written in place; docs/geoip.md tells users so. A map of a renamed-over file stays whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import maxminddb
import msgspec

from edgeproxy.errors import GeoDatabaseError

if TYPE_CHECKING:
    from maxminddb.types import Record

STARTER_PATH: Final = Path(__file__).parent.parent / "data" / "starter-country.mmdb"
"""The embedded database, made by ``tools/make_starter_geoip.py``."""

_REMEDY: Final = (
    "set EDGEPROXY_GEOIP_PATH to a Country or City database (.mmdb), or unset it to use the embedded one"
)

_PROBED_NETWORKS: Final = 1000
"""How many networks to look at before a database is said to hold no countries; the first few suffice."""


class Description(msgspec.Struct, frozen=True):
    """What a country database says about itself."""

    path: str
    database_type: str
    built_on: date

    def __str__(self) -> str:
        return f"{self.database_type} of {self.built_on} ({self.path})"


class CountryDatabase:
    """An open database; satisfies :class:`edgeproxy.ports.CountryLookup`."""

    def __init__(self, reader: maxminddb.Reader, description: Description) -> None:
        self._reader = reader
        self._has_ipv6 = reader.metadata().ip_version == 6
        self.description = description

    @classmethod
    def open(cls, path: Path | None = None) -> CountryDatabase:
        """Open the database at ``path``, the embedded one when ``path`` is ``None``.

        Accepted are GeoLite2, GeoIP2 and DB-IP Country and City databases, and those of ip-location-db.

        Raises:
            GeoDatabaseError: the file is missing, unreadable, corrupt or without countries, or the C
                reader is not installed.
        """
        try:
            import_module("maxminddb.extension")
        except ImportError as error:
            raise GeoDatabaseError(
                "the C reader of maxminddb is not installed: install maxminddb from a wheel, "
                "or with a C compiler at hand"
            ) from error
        path = STARTER_PATH if path is None else path
        try:
            description, holds_countries = _examine(path)
            reader = maxminddb.open_database(path, maxminddb.MODE_MMAP_EXT)
        except FileNotFoundError as error:
            raise GeoDatabaseError(f"country database {path} does not exist: {_REMEDY}") from error
        except OSError as error:
            raise GeoDatabaseError(
                f"country database {path} cannot be read ({error.strerror}): {_REMEDY}"
            ) from error
        # The pure reader lets through whatever bad bytes cause: IndexError, KeyError, RecursionError …
        except Exception as error:
            raise GeoDatabaseError(
                f"country database {path} is not an .mmdb file, or a damaged one: {_REMEDY}"
            ) from error
        if not holds_countries:
            reader.close()
            raise GeoDatabaseError(
                f"country database {path} is of type {description.database_type!r} and holds no countries: "
                f"{_REMEDY}"
            )
        return cls(reader, description)

    def country(self, address: str) -> str:
        """Return the upper-case ISO 3166-1 alpha-2 code of ``address``, ``""`` when unknown.

        Addresses that the database cannot hold or whose record is corrupt are unknown too: where a
        client is must never decide whether it is served.

        Raises:
            ValueError: ``address`` is no IP address.
        """
        if not self._has_ipv6 and ":" in address:
            return ""
        try:
            return iso_code(self._reader.get(address))  # feature: geography.country
        except (maxminddb.InvalidDatabaseError, UnicodeDecodeError):
            return ""

    def close(self) -> None:
        """Release the memory map; no look-up may follow."""
        self._reader.close()


def _examine(path: Path) -> tuple[Description, bool]:
    """Describe the database at ``path`` and tell whether it holds a country.

    By the pure Python reader: bad bytes make the C reader read out of bounds (maxminddb 3.2.0, on
    iterating over a corrupt tree and on map keys that are no strings), and a crash names no file.
    """
    with maxminddb.open_database(path, maxminddb.MODE_MMAP) as reader:
        metadata = reader.metadata()
        built_on = datetime.fromtimestamp(metadata.build_epoch, UTC).date()
        description = Description(str(path), metadata.database_type, built_on)
        return description, any(map(iso_code, islice(_records(reader), _PROBED_NETWORKS)))


def _records(reader: maxminddb.Reader) -> Iterator[Record | None]:
    """What ``reader`` holds for each network in turn, ``None`` for gaps; iteration would pass over these."""
    address_type, bits = (IPv6Address, 128) if reader.metadata().ip_version == 6 else (IPv4Address, 32)
    address = 0
    while address < 1 << bits:
        record, prefix_bits = reader.get_with_prefix_len(address_type(address))
        yield record
        size = 1 << (bits - prefix_bits)
        address = (address // size + 1) * size


def iso_code(record: Record | None) -> str:
    """Return the upper-case country code in a record, ``""`` when there is none.

    ``country.iso_code`` is where the address is used. MaxMind leaves ``country`` out where it only knows
    who holds the address (``registered_country``); ip-location-db has a flat ``country_code``.
    """
    if not isinstance(record, dict):
        return ""
    for key in ("country", "registered_country"):
        place = record.get(key)
        if isinstance(place, dict) and (code := _two_letters(place.get("iso_code"))):
            return code
    return _two_letters(record.get("country_code"))


def _two_letters(value: Record | None) -> str:
    if isinstance(value, str) and len(value) == 2 and value.isascii() and value.isalpha():
        return value.upper()
    return ""


def signature(path: Path) -> tuple[int, ...]:
    """What changes when the file at ``path`` is replaced or written; ``()`` when there is none.

    Device, inode, size and modification time in ns. Not only a newer time counts: an older release
    moved into place is a change too. Take it before opening, so that a change meanwhile is seen next time.
    """
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
