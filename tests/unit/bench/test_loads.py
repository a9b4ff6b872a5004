"""Sans processes: what other programs print, and choosing."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from bench import own
from bench.__main__ import main
from bench.loads import Effort, handshakes
from bench.machine import busy_s, cpu_s, describe, descriptors, pss_bytes
from bench.peers import refusal_of_kernel
from bench.profile import counts, functions
from bench.wrk import WrkError

S_TIME = """\
Collecting connection statistics for 2 seconds
{marks}

812 connections in 0.55s; 1476.36 connections/user sec, bytes read 186760
812 connections in 3 real seconds, 230 bytes read per connection
"""


def test_handshakes_are_counted_over_the_real_time() -> None:
    assert handshakes(S_TIME.format(marks="*" * 40)) == (812, 3)


def test_resumed_handshakes_are_no_handshakes() -> None:
    with pytest.raises(WrkError, match="resumed"):
        handshakes(S_TIME.format(marks="*" * 40 + "r" * 3))


def test_a_client_that_measured_nothing_is_noticed() -> None:
    with pytest.raises(WrkError, match="connect: Connection refused"):
        handshakes("connect: Connection refused")


def test_choosing_is_measured_for_each_size() -> None:
    sample = own.choosing(Effort(seconds=0.01))
    assert list(sample.details) == ["10 backends", "1000 backends", "10000 backends"]
    assert 0.1 < sample.figure == max(sample.details.values())


def test_every_row_changes_in_each_transaction(tmp_path: Path) -> None:
    path = tmp_path / "routing.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE backends (weight INTEGER)")
        database.executemany("INSERT INTO backends VALUES (?)", [(1,), (2,), (3,)])
    assert own.change_rows(path, seconds=0.01) == 1
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT weight FROM backends").fetchall() == [(2,), (3,), (1,)]


def test_functions_of_all_workers_are_added_up() -> None:
    told = functions([{"loop.py:run": 60, "ledger.py:opened": 1}, {"loop.py:run": 39}])
    assert " 99.0%  loop.py:run\n  1.0%  ledger.py:opened\n" in told
    assert functions([]) == "The sampler saw nothing.\n\n"


def test_system_calls_are_told_for_each_thing_done() -> None:
    said = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 51.10    0.100000           1      2000       500 recvfrom
 48.90    0.090000           2      1000           close
------ ----------- ----------- --------- --------- ----------------
100.00    0.190000           1      3000       500 total
"""
    assert counts(said, 1000) == (
        "System calls of the workers, 3.0 each time:\n\n```\n    2.00  recvfrom\n    1.00  close\n```\n"
    )
    assert "counted nothing" in counts("strace: attach: Operation not permitted", 1000)


def test_an_unknown_row_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rows", "k64,warp"])
    assert "no such row: warp; there are k64, c1, kernel-c1" in capsys.readouterr().err


def test_a_log_tells_why_the_kernel_relays_nothing() -> None:
    said = '{"event": "the kernel relays no connections, workers do", "worker": 0, "why": "not permitted"}'
    assert refusal_of_kernel(f'{{"event": "listening"}}\n{said}\n') == "not permitted"
    assert refusal_of_kernel('{"event": "listening", "why": "not"}') is None


def test_proc_tells_of_processes_and_of_the_machine() -> None:
    assert cpu_s([1]) >= 0
    before_s = busy_s()
    began_s = time.process_time()
    while time.process_time() < began_s + 0.05:
        pass
    assert busy_s() > before_s
    assert cpu_s([2**22 + 1]) == 0, "no process has this id"
    with closing(sqlite3.connect(":memory:")):
        assert pss_bytes(["self"]) > 1 << 20  # type: ignore[list-item]
    assert sum(descriptors("self").values()) > 0  # type: ignore[arg-type]
    assert int(describe()["cores"]) >= 1
