"""Load by ``wrk``, and what it says about it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


class WrkError(Exception):
    """What came from wrk is not a measurement of answered requests."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk measured."""

    requests: int
    """Answered in full; 0 when the time was too short for one large answer."""
    requests_per_s: float
    seconds: float
    """How long it took."""
    received_bytes: float
    p50_s: float
    p99_s: float
    errors: int
    """Connections refused, cut off or timed out, and answers other than 2xx and 3xx."""


def run(url: str, *, threads: int, connections: int, seconds: float, headers: tuple[str, ...] = ()) -> Load:
    """Load ``url`` for ``seconds``, rounded up to whole ones.

    Raises:
        WrkError: it failed, or nothing came.
    """
    argv = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}", "--latency"]
    argv += ["--timeout", "9"]
    for header in headers:
        argv += ["-H", header]
    ended = subprocess.run(
        [*argv, url], capture_output=True, text=True, check=False, timeout=seconds + 60, env={"LC_ALL": "C"}
    )
    if ended.returncode:
        raise WrkError(f"wrk exited {ended.returncode}: {ended.stdout}{ended.stderr}")
    return parse(ended.stdout)


def parse(said: str) -> Load:
    """Read what ``wrk --latency`` prints.

    Raises:
        WrkError: nothing came, or this is something else.
    """
    received_bytes = _quantity(_find(r"requests in \S+, (\S+) read", said), _BYTES)
    if not received_bytes:
        raise WrkError(f"nothing was answered:\n{said}")
    errors = 0
    if (found := re.search(r"Socket errors: (.*)$", said, re.MULTILINE)) is not None:
        errors += sum(map(int, re.findall(r"\d+", found[1])))
    if (found := re.search(r"Non-2xx or 3xx responses: (\d+)", said)) is not None:
        errors += int(found[1])
    return Load(
        requests=int(_find(r"^\s*(\d+) requests in", said)),
        requests_per_s=float(_find(r"^Requests/sec:\s*([\d.]+)", said)),
        seconds=_quantity(_find(r"requests in (\S+),", said), _SECONDS),
        received_bytes=received_bytes,
        p50_s=_quantity(_find(r"^\s*50%\s+(\S+)", said), _SECONDS),
        p99_s=_quantity(_find(r"^\s*99%\s+(\S+)", said), _SECONDS),
        errors=errors,
    )


def _find(pattern: str, said: str) -> str:
    found = re.search(pattern, said, re.MULTILINE)
    if found is None:
        raise WrkError(f"nothing like {pattern!r} in:\n{said}")
    return found[1]


def _quantity(text: str, units: dict[str, float] | dict[str, int]) -> float:
    found = re.fullmatch(r"([\d.]+)([A-Za-z]+)", text)
    if found is None or found[2] not in units:
        raise WrkError(f"not a quantity: {text!r}")
    return float(found[1]) * units[found[2]]
