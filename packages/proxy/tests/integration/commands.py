"""Commands of ``edgeproxy`` run in this process, which takes a tenth of the time of a new one."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from edgeproxy.__main__ import main


class Result(NamedTuple):
    """What a command left: its exit code, standard output, and the errors without what all begin with."""

    code: int
    out: str
    errors: list[str]


def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Result:
    """Run ``edgeproxy ARGUMENTS`` in the working directory and environment that this process has."""
    monkeypatch.setattr(sys, "argv", ["edgeproxy", *arguments])
    try:
        code = main()
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return Result(code, out, [line.removeprefix("edgeproxy: error: ") for line in err.splitlines()])
