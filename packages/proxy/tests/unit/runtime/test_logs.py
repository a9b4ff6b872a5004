"""Lines as they stand in the log."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeproxy.runtime import logs
from edgeproxy.runtime.logs import open_log


class StandardError:
    """A standard error that goes into a file, and may say that it is a terminal."""

    def __init__(self, path: Path, is_terminal: bool = False) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._is_terminal = is_terminal

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return self._is_terminal

    def lines(self) -> list[str]:
        return self._path.read_text().splitlines()

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandardError]:
    stream = StandardError(tmp_path / "log")
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stderr=stream))
    yield stream
    stream.close()


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandardError]:
    stream = StandardError(tmp_path / "log", is_terminal=True)
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stderr=stream))
    yield stream
    stream.close()


@pytest.mark.feature("logs.structured")
@pytest.mark.parametrize("log_format", ["json", "auto"])
def test_json_is_one_object_a_line_that_begins_with_what_one_looks_for(
    stderr: StandardError, log_format: str
) -> None:
    log = open_log("info", log_format)
    log.info("listening", address="0.0.0.0:8080", workers=2)
    log.warning("two\nlines", path="ä")
    first, second = map(json.loads, stderr.lines())
    assert list(first) == ["timestamp", "level", "event", "address", "workers"]
    assert (first["level"], first["event"], first["workers"]) == ("info", "listening", 2)
    assert abs(datetime.fromisoformat(first["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert second["event"] == "two\nlines"


def test_console_is_for_people(stderr: StandardError) -> None:
    open_log("info", "console").info("listening", workers=2, address="0.0.0.0:8080")
    (line,) = stderr.lines()
    assert re.fullmatch(r"\S+Z \[info *\] listening +workers=2 address=0\.0\.0\.0:8080", line)


def test_a_terminal_gets_console_and_colours(terminal: StandardError) -> None:
    open_log("info", "auto").info("listening")
    assert "\x1b[" in terminal.lines()[0]


def test_what_is_below_the_level_is_left_out(stderr: StandardError) -> None:
    log = open_log("warning", "json")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)(level)
    assert [json.loads(line)["event"] for line in stderr.lines()] == ["warning", "error", "critical"]


def test_an_exception_is_part_of_its_line(stderr: StandardError) -> None:
    log = open_log("info", "json")
    try:
        raise RuntimeError("broken")
    except RuntimeError as error:
        log.error("failed", exc_info=error)
    (line,) = stderr.lines()
    assert json.loads(line)["exception"].endswith("RuntimeError: broken")


def test_what_is_no_text_is_escaped(stderr: StandardError) -> None:
    open_log("info", "console").info("name \udc80")
    assert "name \\udc80" in stderr.lines()[0]


def test_a_log_that_cannot_be_written_is_no_error(
    stderr: StandardError, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log("info", "json")

    def refuse(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "write", refuse)
        log.info("lost")
    log.info("kept")
    assert [json.loads(line)["event"] for line in stderr.lines()] == ["kept"]


def test_a_line_is_written_whole_however_little_is_taken_at_once(
    stderr: StandardError, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    open_log("info", "json").info("listening", address="0.0.0.0:8080")
    (line,) = stderr.lines()
    assert json.loads(line)["address"] == "0.0.0.0:8080"


def test_logging_does_not_wait_for_libraries_that_it_has_no_use_for() -> None:
    code = "import sys, edgeproxy.runtime.logs; print('rich' in sys.modules); import rich"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
