"""The parsers of the mock backend and of testkit, which tests give what comes off the wire of a proxy."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random

from edgeproxy.core.wire.proxy_protocol import Header
from edgeproxy.core.wire.proxy_protocol import read_header as read_as_the_proxy
from mock_backend.admin import Admin, RefusedError
from mock_backend.faults import Faults
from mock_backend.instrument import Instrument
from mock_backend.language import LanguageError
from mock_backend.scripts import Script
from packages.proxy.tests.fuzz.properties import whole_parser
from testkit.proxy_protocol import (
    MAX_V2_BYTES,
    Endpoint,
    ProxyHeader,
    ProxyHeaderError,
    bytes_missing,
    encode_v1,
    encode_v2,
    read_header,
)

# ---- PROXY headers, as testkit reads them --------------------------------------------------------


def draw_header(rng: Random) -> bytes:
    kind = rng.choice((IPv4Address, IPv6Address, None))
    first = rng.random() < 0.5
    if kind is None:
        return encode_v1() if first else encode_v2()
    source, destination = _end(rng, kind), _end(rng, kind)
    if first:
        return encode_v1(source, destination)
    tlvs = [
        (rng.randrange(0xE0, 0xF0), rng.randbytes(rng.choice((0, 1, 200)))) for _ in range(rng.randrange(4))
    ]
    return encode_v2(source, destination, tuple(tlvs))


def _end(rng: Random, kind: type[IPv4Address | IPv6Address]) -> Endpoint:
    bits = 32 if kind is IPv4Address else 128
    return str(kind(rng.getrandbits(bits))), rng.getrandbits(16)


def read_from_stream(data: bytes) -> tuple[ProxyHeader, int]:
    """Read as the owner of a socket does; return how many bytes were taken, too."""
    taken = 0
    while missing := bytes_missing(data[:taken]):
        if taken + missing > len(data):
            raise ProxyHeaderError("the stream ended")
        taken += missing
    return read_header(data[:taken]), taken


def check_header(found: tuple[ProxyHeader, int], data: bytes) -> None:
    header, taken = found
    assert taken <= min(len(data), MAX_V2_BYTES)
    assert read_from_stream(data[:taken] + b"x") == found, "changed by what follows"
    theirs = read_as_the_proxy(data[:taken])
    # The proxy looks at checksums and into TLVs, and may refuse. What both take, both take for the same.
    if isinstance(theirs, Header):
        assert theirs.length == taken
        for ours, address, port in (
            (header.source, theirs.source, theirs.source_port),
            (header.destination, theirs.destination, theirs.destination_port),
        ):
            assert (ours is None) == (address is None)
            if ours is not None and address is not None:
                assert (_plain(ours[0]), ours[1]) == (_plain(address), port)


def _plain(address: str) -> IPv4Address | IPv6Address:
    parsed = ip_address(address)
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed


# ---- the mock backend's languages and calls ------------------------------------------------------

_SELECTORS = ("connection 3", "connections 4-6", "connections 7-", "every 2nd connection", "every connection")
_STEPS = ("accept", "read 10 bytes", "read to the end", 'send "a;b\\n\\u00ff"', "wait 20 ms", "half-close")
_ENDS = ("serve", "echo", "close", "reset", "hang")
_REQUESTS = ("every request", "requests to /api/*", "10 % of requests", "0.5 % of requests to /health")
_HARM = (("delay 20-80 ms", "status 503"), ("reset",), ("delay 1 s",), ("close",))


def draw_script(rng: Random) -> bytes:
    lines = []
    for _ in range(rng.randint(1, 4)):
        steps = [*rng.choices(_STEPS, k=rng.randrange(4)), rng.choice(_ENDS)]
        lines.append(f"{rng.choice(_SELECTORS)}: {', '.join(steps)}")
    return rng.choice(("\n", ";", "  # comment\n")).join(lines).encode()


def check_script(script: Script, data: bytes) -> None:
    for number in (1, 2, 3, 7, 10**9):
        steps = script.steps(number)
        assert steps is None or steps
        assert steps is None or not any(step.verb.final for step in steps[:-1])


def draw_faults(rng: Random) -> bytes:
    return "\n".join(
        f"{rng.choice(_REQUESTS)}: {', '.join(rng.choice(_HARM))}" for _ in range(rng.randint(1, 4))
    ).encode()


def check_faults(faults: Faults, data: bytes) -> None:
    fault = faults.draw(1, "/api/info")
    assert fault == faults.draw(1, "/api/info")
    assert fault.delay_s >= 0
    assert fault.status is None or fault.cut is None


def draw_call(rng: Random) -> bytes:
    bodies: tuple[tuple[str, dict[str, object]], ...] = (
        ("/state", {"state": rng.choice(("ready", "unready", "hung"))}),
        ("/script", {"script": draw_script(rng).decode()}),
        ("/faults", {"faults": draw_faults(rng).decode(), "seed": rng.getrandbits(32)}),
    )
    path, body = rng.choice(bodies)
    return f"{path} {json.dumps(body)}".encode()


def call_admin(data: bytes) -> Instrument:
    """PUT a body; the path comes before the first blank."""
    path, _, body = data.partition(b" ")
    instrument = Instrument()
    Admin(instrument, dict, None).call("PUT", path.decode("latin-1"), {}, body, None)
    return instrument


def check_instrument(instrument: Instrument, data: bytes) -> None:
    (entry,) = instrument.journal.entries()
    assert entry.event == "control"


INSTRUMENT = (
    whole_parser("testkit_proxy_header", draw_header, read_from_stream, ProxyHeaderError, check_header),
    whole_parser(
        "mock_script", draw_script, lambda data: Script(data.decode("latin-1")), LanguageError, check_script
    ),
    whole_parser(
        "mock_faults",
        draw_faults,
        lambda data: Faults(data.decode("latin-1"), 7),
        LanguageError,
        check_faults,
    ),
    whole_parser("mock_admin", draw_call, call_admin, RefusedError, check_instrument),
)
