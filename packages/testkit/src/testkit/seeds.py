"""A random seed for each test, and the command that replays it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

SEED_VARIABLE = "TESTKIT_SEED"


def choose_seed(option: int | None, environ: Mapping[str, str]) -> int:
    """Return the seed asked for on the command line, else in ``TESTKIT_SEED``, else a fresh one.

    Fresh seeds come from the system, not from ``random``: pytest-randomly reseeds that before each
    test, so all tests of a run would get the same.

    Raises:
        ValueError: ``TESTKIT_SEED`` is no whole number.
    """
    if option is not None:
        return option
    text = environ.get(SEED_VARIABLE, "")
    if not text:
        return secrets.randbits(32)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{SEED_VARIABLE}={text!r} is no whole number; unset it or give one") from None


def replay_hint(node_id: str, seed: int) -> str:
    """Say which seed a test had and how to run it with the same one again."""
    return f"seed {seed}; replay with: pytest '{node_id}' --testkit-seed {seed}"
