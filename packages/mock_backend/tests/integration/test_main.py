from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable

import pytest

from mock_backend.__main__ import main
from mock_backend.process import MockBackendProcess
from mock_backend.threaded import ThreadedMockBackend
from testkit.process import Process, ProcessFactory

COMMAND = [sys.executable, "-m", "mock_backend"]


@pytest.mark.parametrize(
    "flags",
    [
        ["-port", "{port}", "-region", "us", "-id", "one", "-host", "127.0.0.1"],
        ["--port", "{port}", "--region", "us", "--id", "one", "--host", "127.0.0.1"],
        ["-port={port}", "-region=us", "-id=one", "-host=127.0.0.1"],
        ["--port={port}", "--region=us", "--id=one", "--host=127.0.0.1"],
    ],
)
def test_flags_take_one_dash_or_two(process_factory: ProcessFactory, port: int, flags: list[str]) -> None:
    process = process_factory([*COMMAND, *(flag.format(port=port) for flag in flags)])
    process.wait_output(rf"^mock-backend one \(us\) listening on 127\.0\.0\.1:{port}$")


def test_listens_everywhere_by_default(process_factory: ProcessFactory) -> None:
    process = process_factory([*COMMAND, "-port", "0"])
    port = process.wait_output(r"\(eu\) listening on 0\.0\.0\.0:(\d+)$")[1]
    assert f"mock-backend mock-eu-{port} (eu)" in process.log


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_0_although_a_connection_is_open(
    mock_backend_process: Callable[..., MockBackendProcess], stop: signal.Signals
) -> None:
    backend = mock_backend_process()
    with socket.create_connection((backend.address, backend.port), timeout=10) as kept_alive:
        kept_alive.sendall(b"GET /api/info HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept_alive.recv(15) == b"HTTP/1.1 200 OK"
        backend.process.kill(stop)
        assert backend.process.wait_exit() == 0
    assert backend.process.log.endswith(f"mock-backend {backend.id} stopped after 1 requests\n")


def test_request_that_arrived_before_the_signal_is_answered(
    mock_backend_process: Callable[..., MockBackendProcess],
) -> None:
    backend = mock_backend_process()
    process: Process = backend.process
    process.kill(signal.SIGSTOP)
    with socket.create_connection((backend.address, backend.port), timeout=10) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        process.kill(signal.SIGTERM)
        process.kill(signal.SIGCONT)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.endswith(b"OK - " + f"{backend.id} (eu)".encode())
    assert process.wait_exit() == 0


def test_taken_port_is_one_line_and_1(
    mock_backend: ThreadedMockBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-host", "127.0.0.1", "-port", str(mock_backend.port)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"mock-backend: cannot listen on 127.0.0.1:{mock_backend.port}: Address already in use; "
        "stop what listens there or choose another port (0 takes any free one)\n"
    )


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["-port", "x"], "--port: 'x' is no port; give a number from 0 to 65535"),
        (["-port", "65536"], "--port: '65536' is no port"),
        (["-port=-1"], "--port: '-1' is no port"),
        (["-port", "\N{SUPERSCRIPT TWO}"], "is no port"),
        (["-port"], "--port: expected one argument"),
        (["-region="], "--region: '' is empty or holds blanks"),
        (["-id", "a\r\nX-Evil: 1"], "--id: 'a\\r\\nX-Evil: 1' is empty or holds blanks"),
        (["-host", "localhost"], "--host: 'localhost' is no IP address; give one such as 127.0.0.1 or ::"),
        (["-por", "9001"], "unrecognized arguments: --por 9001"),
        (["--verbose"], "unrecognized arguments: --verbose"),
        (["9001"], "unrecognized arguments: 9001"),
    ],
)
def test_wrong_flag_is_one_line_and_2(
    flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    said = capsys.readouterr()
    assert said.err.startswith("mock-backend: ")
    assert complaint in said.err
    assert said.err.endswith("; see mock-backend --help\n")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help_lists_the_flags(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([flag])
    said = capsys.readouterr().out
    assert all(name in said for name in ("--port", "--region", "--id", "--host", "9001"))


def test_arguments_default_to_those_of_this_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mock-backend", "-port", "nine"])
    assert main() == 2
    assert "'nine' is no port" in capsys.readouterr().err
