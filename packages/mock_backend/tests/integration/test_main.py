from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mock_backend.__main__ import main
from mock_backend.driver import Driver, DriverError
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
        (["-state", "asleep"], "--state: invalid choice: 'asleep'"),
        (["-seed", "x"], "--seed: 'x' is no seed; give a number"),
        (["-script", "connection 3: explode"], "statement 1: 'explode' is none of"),
        (["-script", "@/nothing/here"], "--script: cannot read /nothing/here: "),
        (["-faults", "x"], "statement 1: no colon"),
        (["-tls-cert", "cert.pem"], "give both or neither"),
        (["-admin-port", "0", "-admin-host", "0.0.0.0"], "give an admin token"),
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


def test_further_ports_are_told_behind_the_first_line(
    mock_backend_process: Callable[..., MockBackendProcess],
) -> None:
    backend = mock_backend_process(tcp_echo=0, udp_echo=0, admin_port=0)
    first, *others = backend.process.log.splitlines()
    assert first == f"mock-backend {backend.id} (eu) listening on 127.0.0.1:{backend.port}"
    assert others == [
        f"mock-backend {backend.id} {name} on 127.0.0.1:{backend.ports[name]}"
        for name in ("tcp-echo", "udp-echo", "admin")
    ]


@pytest.mark.parametrize("flag", ["-tcp-echo", "-udp-echo", "-admin-port"])
def test_taken_further_port_is_one_line_and_1(
    mock_backend_factory: Callable[..., ThreadedMockBackend], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = mock_backend_factory(tcp_echo=0, udp_echo=0)
    port = taken.ports[flag.removeprefix("-").replace("-port", "")]
    assert main(["-host", "127.0.0.1", "-port", "0", flag, str(port)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"mock-backend: cannot listen on 127.0.0.1:{port}: ")
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_certificate_that_cannot_be_read_is_one_line_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["-tls-cert", str(tmp_path / "none.pem"), "-tls-key", str(tmp_path / "none.key")]
    assert main(["-host", "127.0.0.1", "-port", "0", *files]) == 2
    assert capsys.readouterr().err.startswith("mock-backend: --tls-cert, --tls-key, --tls-client-ca: ")


def test_proxy_headers_without_testkit_are_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "testkit.proxy_protocol", None)
    assert main(["-host", "127.0.0.1", "-port", "0", "-proxy-protocol"]) == 2
    assert capsys.readouterr().err == (
        "mock-backend: --proxy-protocol: PROXY headers are read by testkit: pip install edgeproxy-testkit\n"
    )


def test_token_may_come_from_the_environment(
    mock_backend_process: Callable[..., MockBackendProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOCK_BACKEND_ADMIN_TOKEN", "from-the-environment")
    driver = mock_backend_process().driver
    with pytest.raises(DriverError, match="401: give the admin token"):
        driver.status()
    assert Driver(driver.host, driver.port, "from-the-environment").status()["state"] == "ready"


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
