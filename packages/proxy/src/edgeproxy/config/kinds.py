"""What a setting's value can be: one strict parser for each kind, from text and from TOML.

All sources meet in text: a flag and an environment variable are text anyway, and a TOML value is
checked for its type and then written as text. So there is one parser for each kind and one meaning for each
value. ``parse(format(value)) == value`` holds for every value that ``parse`` returns.
"""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    Network = IPv4Network | IPv6Network

T = TypeVar("T")

UNIX_SOCKET_PATH_MAX_BYTES = 107
"""``sun_path`` holds 108 bytes, of which the last is NUL."""


class InvalidValueError(Exception):
    """Text that cannot be this kind of value.

    Its message continues a sentence that begins with the value, says what is expected, and never
    repeats the value, which may be a secret.
    """


class Address(NamedTuple):
    """Where to listen, or whom to call: a host without brackets, and a port.

    Being a tuple, it goes straight into :meth:`socket.socket.bind`.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How values of one kind are read, written and described."""

    values: str
    """What may be written, for people, e.g. ``whole number, 1 to 256``."""
    parse: Callable[[str], T]
    """Text to value. Raises :class:`InvalidValueError` and nothing else."""
    format: Callable[[T], str] = str
    """Value to the text that parses to it."""
    toml_types: tuple[type, ...] = (str,)
    """Types that this kind may have in a TOML file."""


_TOML_TYPE_NAMES = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    list: "array",
    dict: "table",
}


def text_from_toml(kind: Kind[T], value: object) -> str:
    """Return ``value``, as ``tomllib`` read it, in the form that ``kind.parse`` takes.

    Raises:
        InvalidValueError: a TOML type that this kind is not written in.
    """
    # Compared exactly, not by isinstance: a boolean is an integer to Python, but not to people.
    if type(value) not in kind.toml_types:
        found = _TOML_TYPE_NAMES.get(type(value), "date or time")
        wanted = " or ".join(_TOML_TYPE_NAMES[allowed] for allowed in kind.toml_types)
        raise InvalidValueError(f"is of the TOML type {found}; write the type {wanted} ({kind.values})")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        if not all(isinstance(item, str) and item and "," not in item for item in value):
            raise InvalidValueError(f"must hold strings only; expected is: {kind.values}")
        return ",".join(value)
    try:
        return str(value)
    except ValueError:  # Python reads a hexadecimal number of any length, but does not write every one.
        raise InvalidValueError(f"is out of bounds; expected is: {kind.values}") from None


_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def _parse_flag(text: str) -> bool:
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise InvalidValueError("is neither true nor false; write true, 1, yes or on, or false, 0, no or off")


flag = Kind("true or false", _parse_flag, lambda value: str(value).lower(), (bool,))

_WHOLE = re.compile(r"[+-]?[0-9]+")
_WHOLE_DIGITS_MAX = 20
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def whole(minimum: int, maximum: int, unit: str = "") -> Kind[int]:
    """Return the kind of whole numbers from ``minimum`` to ``maximum``, both included."""
    bounds = f"{minimum} to {maximum}"

    def parse(text: str) -> int:
        # int() alone would take "1_000", " 7 " and digits of other scripts.
        if not _WHOLE.fullmatch(text):
            raise InvalidValueError(f"is not a whole number; write one from {bounds}")
        # Python refuses to read numbers of thousands of digits.
        if len(text) > _WHOLE_DIGITS_MAX or not minimum <= (number := int(text)) <= maximum:
            raise InvalidValueError(f"is out of bounds; write a whole number from {bounds}")
        return number

    return Kind(f"{unit or 'whole number'}, {bounds}", parse, toml_types=(int,))


def _format_decimal(number: float) -> str:
    return str(int(number)) if number % 1 == 0 else repr(number)


def seconds(minimum: float = 0.01, maximum: float = 31_536_000) -> Kind[float]:
    """Return the kind of durations in seconds, fractions allowed; at most a year by default."""
    bounds = f"{_format_decimal(minimum)} to {_format_decimal(maximum)}"

    def parse(text: str) -> float:
        # float() alone would take "nan", "infinity" and "1_0".
        if not _DECIMAL.fullmatch(text):
            raise InvalidValueError(f"is not a number; write seconds from {bounds}, without a unit")
        if not minimum <= (number := float(text)) <= maximum:
            raise InvalidValueError(f"is out of bounds; write seconds from {bounds}")
        return number

    return Kind(f"seconds, {bounds}", parse, _format_decimal, (int, float))


def choice(*words: str) -> Kind[str]:
    """Return the kind of ``words``, taken in any case and kept in lower case."""
    listed = ", ".join(words[:-1]) + " or " + words[-1]

    def parse(text: str) -> str:
        if (word := text.lower()) not in words:
            raise InvalidValueError(f"is not a choice; write {listed}")
        return word

    return Kind(listed, parse)


def matching(pattern: str, values: str, *, lower: bool = False) -> Kind[str]:
    """Return the kind of text that matches ``pattern`` as a whole, in lower case where that is the same."""
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise InvalidValueError(f"is empty or malformed; expected is: {values}")
        return text.lower() if lower else text

    return Kind(values, parse)


region = matching("[A-Za-z][A-Za-z0-9-]{0,31}", "name of a region", lower=True)
# No blanks and no control characters, so that a name can stand in a log line and in a DNS or SNI look-up key.
name = matching(r"[!-~]{1,253}", "name without blanks")
# Short enough for names of 253 characters to have room below it.
domain = matching(
    r"(?!-)(?=.{1,200}\Z)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*",
    "domain name of at most 200 characters",
    lower=True,
)
url_path = matching(r"/[!-~]*", "path that begins with /")
_HOST_AND_PORT = r"([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?"
# What is refused here is not shown, unlike what the driver would say of it.
archive_url = matching(
    r"file:///[!-~]+|s3://[a-z0-9][a-z0-9.-]+(/[!-~]*)?",
    "file:///FOLDER or s3://BUCKET/PREFIX",
)

postgres_url = matching(
    # The user's part may hold any character that can be typed but / ? and #, which would end it.
    rf"postgres(ql)?://([!\"$-.0->@-~]*@)?({_HOST_AND_PORT}(,{_HOST_AND_PORT})*)?(/[!\"$->@-~]*)?(\?[!\"$-~]*)?",
    "postgresql://user:password@host:port/database",
)


def _parse_path(text: str) -> Path:
    if not text:
        raise InvalidValueError("is empty; write the path of a file or folder")
    # Paths are echoed in one-line messages, and a newline in one is always a slip of a script.
    if any(character < " " for character in text):
        raise InvalidValueError("holds a control character; write the path of a file or folder")
    if _is_undecodable(text):
        raise InvalidValueError("is not UTF-8; write the path of a file or folder whose name is")
    return Path(text)


def _is_undecodable(text: str) -> bool:
    # Bytes of the environment that are not UTF-8 arrive as lone surrogates.
    return any("\ud800" <= character <= "\udfff" for character in text)


path = Kind("path", _parse_path)


def _parse_socket_path(text: str) -> Path:
    parsed = _parse_path(text)
    if (length := len(str(parsed).encode())) > UNIX_SOCKET_PATH_MAX_BYTES:
        raise InvalidValueError(
            f"is too long for a Unix socket ({length} bytes); write a path of at most "
            f"{UNIX_SOCKET_PATH_MAX_BYTES} bytes"
        )
    return parsed


socket_path = Kind(f"path of at most {UNIX_SOCKET_PATH_MAX_BYTES} bytes", _parse_socket_path)

_ADDRESS_REMEDY = "write an IP address and a port, such as 0.0.0.0:8080 or [::]:8080"
_PORT = re.compile("[0-9]{1,5}")


def _split_port(text: str, remedy: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not _PORT.fullmatch(port):
        raise InvalidValueError(f"has no port; {remedy}")
    if int(port) > 65535:
        raise InvalidValueError(f"has a port above 65535; {remedy}")
    return host, int(port)


def _numeric_host(host: str) -> str | None:
    """Return the IP address in ``host`` in its usual spelling, ``None`` when it is none."""
    bracketed = host.startswith("[") and host.endswith("]")
    family = socket.AF_INET6 if bracketed else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, host[1:-1] if bracketed else host))
    except (OSError, ValueError):
        return None


def _parse_address(text: str) -> Address:
    host, port = _split_port(text, _ADDRESS_REMEDY)
    if not host:
        raise InvalidValueError(f"has no IP address; {_ADDRESS_REMEDY}")
    if (numeric := _numeric_host(host)) is not None:
        return Address(numeric, port)
    if ":" in host and not host.startswith("["):
        raise InvalidValueError("is an IPv6 address without brackets, or malformed; write it as [::]:8080")
    raise InvalidValueError(f"does not begin with an IP address; {_ADDRESS_REMEDY}")


address = Kind("IP address and port", _parse_address)

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_PEERS = "peers as host:port, separated by commas"


def _parse_peer(text: str) -> Address:
    host, port = _split_port(text, f"write {_PEERS}")
    if (numeric := _numeric_host(host)) is not None:
        return Address(numeric, port)
    if not _HOST_NAME.fullmatch(host):
        raise InvalidValueError(f"holds something that is no host; write {_PEERS}")
    return Address(host, port)


def _parse_peers(text: str) -> tuple[Address, ...]:
    return tuple(_parse_peer(item.strip(" ")) for item in text.split(",")) if text else ()


peers = Kind(_PEERS, _parse_peers, lambda items: ",".join(map(str, items)), (list, str))


_KEYS = "keys of 32 bytes in base64, separated by commas"
_KEY_BYTES = 32


def _parse_keys(text: str) -> tuple[bytes, ...]:
    found = []
    for item in text.split(","):
        try:
            key = base64.b64decode(item.strip(" "), validate=True)
        except ValueError:
            raise InvalidValueError(f"holds something that is no base64; write {_KEYS}") from None
        if len(key) != _KEY_BYTES:
            raise InvalidValueError(f"holds a key of {len(key)} bytes; write {_KEYS}")
        found.append(key)
    return tuple(found)


keys = Kind(_KEYS, _parse_keys, lambda found: ",".join(base64.b64encode(key).decode() for key in found))


_NETWORKS = "networks such as 192.0.2.0/24, separated by commas"


def _parse_networks(text: str) -> tuple[Network, ...]:
    from ipaddress import ip_network  # only who sets one needs it

    try:
        return tuple(ip_network(item.strip(" ")) for item in text.split(",")) if text else ()
    except ValueError:
        raise InvalidValueError(
            f"holds something that is no network, or has bits set behind its prefix; write {_NETWORKS}"
        ) from None


networks = Kind(_NETWORKS, _parse_networks, lambda items: ",".join(map(str, items)), (list, str))


_COUNTRIES = "codes of countries such as DE, separated by commas"
_COUNTRY = re.compile(r"[A-Z]{2}")


def _parse_countries(text: str) -> tuple[str, ...]:
    codes = tuple(item.strip(" ").upper() for item in text.split(",")) if text else ()
    if not all(map(_COUNTRY.fullmatch, codes)):
        raise InvalidValueError(f"holds something that is no code of two letters; write {_COUNTRIES}")
    return codes


countries = Kind(_COUNTRIES, _parse_countries, ",".join, (list, str))


class RegionalAddress(NamedTuple):
    """An IP address in its usual spelling, and the region where it is."""

    region: str
    address: str

    def __str__(self) -> str:
        return f"{self.region}={self.address}"


_REGIONAL_ADDRESSES = "addresses as region=address, separated by commas"


def _parse_regional_address(text: str) -> RegionalAddress:
    name, separator, written = text.partition("=")
    if not separator:
        raise InvalidValueError(f"holds something without a region; write {_REGIONAL_ADDRESSES}")
    bracketed = f"[{written}]" if ":" in written else written
    if (numeric := _numeric_host(bracketed)) is None:
        raise InvalidValueError(f"holds something that is no IP address; write {_REGIONAL_ADDRESSES}")
    return RegionalAddress(region.parse(name), numeric)


def _parse_regional_addresses(text: str) -> tuple[RegionalAddress, ...]:
    return tuple(_parse_regional_address(item.strip(" ")) for item in text.split(",")) if text else ()


regional_addresses = Kind(
    _REGIONAL_ADDRESSES, _parse_regional_addresses, lambda items: ",".join(map(str, items)), (list, str)
)


_PROTOCOLS = "protocols such as h2, separated by commas"
_PROTOCOL = re.compile(r"[!-+\--~]{1,255}")


def _parse_protocols(text: str) -> tuple[str, ...]:
    names = tuple(item.strip(" ") for item in text.split(",")) if text else ()
    if not all(_PROTOCOL.fullmatch(name) for name in names):
        raise InvalidValueError(f"holds something that is no name of a protocol; write {_PROTOCOLS}")
    return names


protocols = Kind(_PROTOCOLS, _parse_protocols, ",".join, (list, str))


def optional(kind: Kind[T]) -> Kind[T | None]:
    """Return ``kind`` with "none", written as empty text, besides its values."""
    return Kind(
        kind.values,
        lambda text: kind.parse(text) if text else None,
        lambda value: "" if value is None else kind.format(value),
        kind.toml_types,
    )
