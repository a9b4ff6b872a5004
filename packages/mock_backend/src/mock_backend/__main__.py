"""``mock-backend``: arguments in, exit code out.

Exit codes: 0 stopped by SIGTERM or SIGINT, 1 an address cannot be listened on, 2 a flag is wrong.
Each error is one line on standard error that names the thing and the remedy.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from mock_backend.behaviour import check_label
from mock_backend.instrument import State
from mock_backend.server import ListenError, MissingTestkitError, MockBackend, endpoint

_TOKEN_VARIABLE = "MOCK_BACKEND_ADMIN_TOKEN"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a mock backend until SIGTERM or SIGINT and return the exit code.

    ``argv`` holds the words after the program's name, by default those this process was started with.
    """
    if argv is None:
        argv = sys.argv[1:]
    try:
        flags = _parser().parse_args([_two_dashes(word) for word in argv])
        backend = MockBackend(**vars(flags))
    except (_FlagError, ValueError) as error:
        print(f"mock-backend: {error}; see mock-backend --help", file=sys.stderr)
        return 2
    try:
        asyncio.run(_serve(backend))
    except ListenError as error:
        print(f"mock-backend: {error}", file=sys.stderr)
        return 1
    except MissingTestkitError as error:
        print(f"mock-backend: --proxy-protocol: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"mock-backend: --tls-cert, --tls-key, --tls-client-ca: {error}", file=sys.stderr)
        return 2
    return 0


async def _serve(backend: MockBackend) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with backend:
        where = endpoint(backend.address, backend.port)
        opened = [f"mock-backend {backend.id} ({backend.region}) listening on {where}"]
        for name, port in backend.ports.items():
            if name != "http":
                host = backend.admin_address if name == "admin" else backend.address
                opened.append(f"mock-backend {backend.id} {name} on {endpoint(host, port)}")
        print("\n".join(opened), flush=True)
        await stopping.wait()
    print(f"mock-backend {backend.id} stopped after {backend.request_count} requests", flush=True)


class _FlagError(Exception):
    """A flag is unknown, incomplete or has a bad value."""


class _Parser(argparse.ArgumentParser):
    """Reports the first error as an exception, instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise _FlagError(message.removeprefix("argument "))


def _two_dashes(word: str) -> str:
    # argparse takes one-dash words for bundles of one-letter flags and abbreviations: -por would be -port.
    return f"-{word}" if re.match(r"-[a-z]{2}", word) else word


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mock-backend",
        description="A small HTTP backend that says which backend it is, for testing proxies.",
        epilog="Flags take one dash or two, and their value after a blank or '='.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("-h", "--help", action="help", help="show this and exit")
    parser.add_argument(
        "--port",
        type=_port,
        default=9001,
        help="TCP port to listen on, 0 for any free one (default 9001)",
    )
    parser.add_argument("--region", type=_label, default="eu", help="region it says it is in (default eu)")
    parser.add_argument("--id", type=_label, help="id it goes by (default mock-{region}-{port})")
    parser.add_argument(
        "--host",
        type=_address,
        default="0.0.0.0",
        help="IP address to listen on (default 0.0.0.0: all)",
    )
    parser.add_argument("--tcp-echo", type=_port, metavar="PORT", help="also echo TCP on this port")
    parser.add_argument("--udp-echo", type=_port, metavar="PORT", help="also echo UDP on this port")
    tls = parser.add_argument_group("TLS")
    tls.add_argument("--tls-cert", metavar="FILE", help="serve HTTP over TLS with this certificate (PEM)")
    tls.add_argument("--tls-key", metavar="FILE", help="and this key")
    tls.add_argument(
        "--tls-client-ca", metavar="FILE", help="demand clients' certificates, of these authorities"
    )
    parser.add_argument(
        "--proxy-protocol", action="store_true", help="demand a PROXY header, version 1 or 2; needs testkit"
    )
    instrument = parser.add_argument_group("instrument (README.md has the languages)")
    instrument.add_argument(
        "--state",
        choices=[state.value for state in State],
        default="ready",
        help="to begin in (default ready)",
    )
    instrument.add_argument("--script", type=_text, default="", metavar="TEXT|@FILE", help="by connection")
    instrument.add_argument("--faults", type=_text, default="", metavar="TEXT|@FILE", help="by request")
    instrument.add_argument("--seed", type=_seed, default=0, help="of what faults draw (default 0)")
    instrument.add_argument(
        "--admin-port", type=_port, metavar="PORT", help="open the admin API on this port"
    )
    instrument.add_argument(
        "--admin-host",
        type=_address,
        default="127.0.0.1",
        help="IP address of the admin API (default 127.0.0.1)",
    )
    instrument.add_argument(
        "--admin-token",
        type=_label,
        default=os.environ.get(_TOKEN_VARIABLE) or None,
        help=f"that the admin API demands (default ${_TOKEN_VARIABLE}); needed off loopback",
    )
    return parser


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 0 to 65535")


def _seed(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no seed; give a number")


def _text(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {text[1:]}: {error}") from error


def _label(text: str) -> str:
    try:
        return check_label(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; give a word such as eu or mock-eu-1") from error


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no IP address; give one such as 127.0.0.1 or ::"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
