"""Commands, run in this process as a shell would run them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from edgeproxy.__main__ import main

NEEDED = ("--app", "test", "--region", "eu", "--host", "127.0.0.1", "--port", "9001")
"""What `edgeproxy backends add` must be told."""

Run = Callable[..., "Result"]
"""Runs a command with these arguments."""


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    errors: list[str]
    """Lines on standard error, without `edgeproxy: error: `."""


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A way to run commands, in an environment without settings."""
    for name in [name for name in os.environ if name.startswith("EDGEPROXY_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["edgeproxy", *arguments])
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Result(code, out, [line.removeprefix("edgeproxy: error: ") for line in err.splitlines()])

    return run
