from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from mock_backend.plugin import RunningMockBackend
from mock_backend.process import MockBackendProcess
from mock_backend.server import ListenError
from mock_backend.threaded import ThreadedMockBackend

pytest_plugins = ["pytester"]

StartBackend = Callable[..., RunningMockBackend]


@pytest.fixture(params=["thread", "process"])
def start(
    request: pytest.FixtureRequest,
    mock_backend_factory: Callable[..., ThreadedMockBackend],
    mock_backend_process: Callable[..., MockBackendProcess],
) -> StartBackend:
    """Start a mock backend of either kind: the tests below hold for both."""
    return mock_backend_factory if request.param == "thread" else mock_backend_process


def health(backend: RunningMockBackend) -> str:
    host = f"[{backend.address}]" if ":" in backend.address else backend.address
    with urllib.request.urlopen(f"http://{host}:{backend.port}/health", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def test_serves_at_its_address_and_port(start: StartBackend) -> None:
    backend = start(region="us", id="mock-us-1")
    assert (backend.id, backend.region, backend.address) == ("mock-us-1", "us", "127.0.0.1")
    assert health(backend) == "OK - mock-us-1 (us)"


def test_is_in_europe_and_named_by_its_port_by_default(start: StartBackend) -> None:
    backend = start()
    assert backend.id == f"mock-eu-{backend.port}"
    assert health(backend) == f"OK - {backend.id} (eu)"


def test_takes_the_port_it_is_told(start: StartBackend, port: int) -> None:
    assert start(port=port).port == port


def test_listens_on_ipv6(start: StartBackend) -> None:
    assert health(start(host="::1")).startswith("OK - ")


def test_stop_frees_the_port_and_may_be_called_again(start: StartBackend) -> None:
    backend = start()
    backend.stop()
    backend.stop()
    with pytest.raises(urllib.error.URLError, match="refused"):
        health(backend)
    assert start(port=backend.port).port == backend.port


def test_several_run_side_by_side(start: StartBackend) -> None:
    backends = [start(region=region) for region in ("eu", "eu", "us")]
    assert len({backend.port for backend in backends}) == 3
    assert [health(backend) for backend in backends] == [f"OK - {b.id} ({b.region})" for b in backends]


def test_mock_backend_runs_and_counts(mock_backend: ThreadedMockBackend) -> None:
    health(mock_backend)
    with urllib.request.urlopen(f"http://127.0.0.1:{mock_backend.port}/", timeout=10):
        assert mock_backend.request_count == 1


def test_taken_port_reaches_the_thread_that_asked(mock_backend: ThreadedMockBackend) -> None:
    with pytest.raises(ListenError, match="already in use"):
        ThreadedMockBackend(port=mock_backend.port)


def test_taken_port_fails_the_start_of_a_process_with_what_it_said(
    mock_backend: ThreadedMockBackend, mock_backend_process: Callable[..., MockBackendProcess]
) -> None:
    with pytest.raises(AssertionError, match=r"(?s)exited 1 .*already in use"):
        mock_backend_process(port=mock_backend.port)


def test_loading_imports_neither_the_server_nor_aiohttp() -> None:
    show = "import sys, mock_backend.plugin; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True)
    loaded = set(shown.stdout.split())
    assert {name for name in loaded if name.startswith("mock_backend")} == {
        "mock_backend",
        "mock_backend.plugin",
    }
    assert "aiohttp" not in loaded


def test_all_backends_are_stopped_at_the_end(pytester: pytest.Pytester) -> None:
    pytester.makeini("""
        [pytest]
        addopts = -p no:schemathesis -p no:anyio
        asyncio_default_fixture_loop_scope = function
    """)
    pytester.makepyfile("""
        from pathlib import Path

        def test_starts_two(mock_backend, mock_backend_process):
            Path("ports").write_text(f"{mock_backend.port} {mock_backend_process().port}")
    """)
    pytester.runpytest().assert_outcomes(passed=1)
    for port in pytester.path.joinpath("ports").read_text().split():
        with pytest.raises(urllib.error.URLError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10)
