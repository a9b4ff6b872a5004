"""Checks, circuits, slow start, panic and rate limits of a running proxy, by where its clients end up."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.errors import EdgeproxyError
from mock_backend.process import MockBackendProcess
from packages.proxy.tests.integration.proxies import Backend, Proxy, StartProxy, edit, row
from testkit.faults.listeners import refusing_port
from testkit.wait import wait_until

CHECKS = {
    "health_check_enabled": 1,
    "health_check_interval_secs": 0.2,
    "health_check_fast_interval_secs": 0.1,
    "health_check_timeout_secs": 0.2,
}
HTTP_CHECKS = {**CHECKS, "health_check_type": "http"}
CIRCUITS = {
    "circuit_breaker_enabled": 1,
    "circuit_failure_threshold": 2,
    "circuit_success_threshold": 2,
    "circuit_timeout_secs": 0.5,
}


@contextmanager
def serving(port: int, name: str) -> Iterator[None]:
    """A backend on a port that :func:`refusing` holds, which says its name to whoever connects."""

    class Greeter(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(f"{name}\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", port), Greeter) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def verdict(proxy: Proxy, backend_id: str) -> dict[str, Any]:
    found: dict[str, Any] = proxy.stats()["verdicts"][backend_id]
    return found


def left_out(proxy: Proxy) -> dict[str, str]:
    """Why each backend is left out, of those that are."""
    candidates = proxy.ask("explain", client="127.0.0.1")["candidates"]
    return {each["backend"]: each["left_out"] for each in candidates if each["left_out"]}


# ---- checks --------------------------------------------------------------------------------------


@pytest.mark.feature("health.slow_start")
def test_a_hung_backend_is_left_out_and_comes_back_with_a_slow_start(
    start_proxy: StartProxy, mock_backend_process: Callable[..., MockBackendProcess]
) -> None:
    near, far = mock_backend_process(id="near"), mock_backend_process(id="far")
    proxy = start_proxy(
        [row("near", near.port), row("far", far.port, region="us"), row("far-2", far.port, region="us")],
        **HTTP_CHECKS,
        slow_start_secs=2,
    )
    wait_until(lambda: verdict(proxy, "near")["check"] == "healthy", reason="the first checks")
    assert proxy.ask("events", topic="health")["events"] == [], "nothing has happened yet"

    near.process.kill(signal.SIGSTOP)
    wait_until(lambda: left_out(proxy), reason="the hung backend to be left out")
    assert left_out(proxy) == {"near": "failing its checks: no answer within 0.2 s"}

    near.process.kill(signal.SIGCONT)
    wait_until(lambda: not left_out(proxy), reason="the backend to come back")
    factors: list[float] = []

    def is_warm() -> bool:
        factors.append(verdict(proxy, "near")["weight_factor"])
        return factors[-1] == 1

    wait_until(is_warm, reason="its full weight")
    assert factors[0] < 1
    assert factors == sorted(factors)
    told = [event["name"] for event in proxy.ask("events", topic="health")["events"]]
    assert told == ["a backend fails its checks", "a backend passes its checks again"]
    (failed,) = proxy.log("a backend fails its checks")
    assert (failed["level"], failed["backend"]) == ("warning", "near")


@pytest.mark.feature("health.checks")
def test_clients_are_not_sent_to_a_backend_that_fails_its_checks(
    start_proxy: StartProxy,
    mock_backend_process: Callable[..., MockBackendProcess],
    new_client: Callable[[], str],
) -> None:
    """Not even bound ones; and a client that is not sent there need not wait for a connect to fail."""
    near, far = mock_backend_process(id="near"), mock_backend_process(id="far")
    proxy = start_proxy(
        [row("near", near.port), row("far", far.port, region="us"), row("far-2", far.port, region="us")],
        **HTTP_CHECKS,
    )
    client = new_client()
    near.process.kill(signal.SIGSTOP)
    wait_until(lambda: left_out(proxy), reason="the hung backend to be left out")
    with proxy.connect(client) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"X-Backend-ID: far" in connection.recv(4096)
    assert proxy.stats()["connect_errors"] == {}
    near.process.kill(signal.SIGCONT)


def test_a_replaced_worker_knows_the_verdicts(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend], new_client: Callable[[], str]
) -> None:
    good, other = start_backend("good"), start_backend("other")
    with refusing_port() as port:
        proxy = start_proxy(
            [
                row("bad", port),
                row("good", good.port, region="us"),
                row("other", other.port, region="us"),
            ],
            **CHECKS,
            workers=1,
        )
        wait_until(lambda: left_out(proxy), reason="the bad backend to be left out")
        (pid,) = proxy.stats()["workers"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: proxy.stats()["workers"] not in ([], [pid]), reason="another worker")
        assert {proxy.backend_of(new_client()) for _ in range(10)} <= {"good", "other"}
        assert proxy.stats()["connect_errors"] == {}


def test_names_and_ipv6_are_checked(start_proxy: StartProxy, start_backend: Callable[[str], Backend]) -> None:
    backend = start_backend("one")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        proxy = start_proxy(
            [
                row("name", backend.port, wg_ip="localhost"),
                row("six", six.getsockname()[1], wg_ip="::1"),
                row("nowhere", backend.port, wg_ip="nowhere.invalid"),
            ],
            **CHECKS,
        )
        wait_until(
            lambda: (
                {name: each["check"] for name, each in proxy.stats()["verdicts"].items()}
                == {"name": "healthy", "six": "healthy", "nowhere": "unhealthy"}
            ),
            reason="all three to be checked",
        )
    assert left_out(proxy)["nowhere"] == "failing its checks: its host name does not resolve"


@pytest.mark.feature("health.panic")
def test_when_all_fail_their_checks_clients_are_sent_to_all(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend], new_client: Callable[[], str]
) -> None:
    """The checks ask for HTTP, which these backends do not speak: they are wrong, not the backends."""
    names = ("one", "two")
    rows = [row(name, start_backend(name).port) for name in names]
    proxy = start_proxy([*rows, row("out", 9, healthy=0)], **HTTP_CHECKS)
    wait_until(lambda: not any(verdict(proxy, name)["is_good"] for name in names), reason="both to fail")
    (panic, *_) = proxy.wait_log("too few backends are good, clients are sent to all of them")
    assert panic["level"] == "error"
    assert {proxy.backend_of(new_client()) for _ in range(30)} == set(names)
    explanation = proxy.ask("explain", client="127.0.0.1")
    assert explanation["is_panicking"] is True
    assert left_out(proxy) == {"out": "healthy = 0 in the routing table"}


def test_without_panic_clients_are_refused_instead(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend]
) -> None:
    proxy = start_proxy(
        [row("one", start_backend("one").port)], **HTTP_CHECKS, panic_threshold_percent=0, workers=1
    )
    wait_until(lambda: left_out(proxy), reason="the backend to be left out")
    wait_until(lambda: proxy.backend_of("127.0.0.1") == "", reason="clients to be refused")
    wait_until(lambda: proxy.stats()["closes"].get("no_backend"), reason="the reason to be counted")


# ---- circuits ------------------------------------------------------------------------------------


@pytest.mark.feature("health.circuit")
def test_a_backend_that_refuses_clients_is_ejected_and_readmitted_by_its_trial(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend], new_client: Callable[[], str]
) -> None:
    with refusing_port() as port:
        proxy = start_proxy(
            [row("bad", port), row("good", start_backend("good").port, region="us")],
            **CIRCUITS,
            slow_start_secs=0,
        )
        for _ in range(3):
            assert proxy.backend_of(new_client()) == "good", "a failed connect costs no client anything"
        (ejected, *_) = proxy.wait_log("a backend is ejected")
        assert (ejected["backend"], ejected["why"]) == ("bad", "2 failed connects")
        proxy.wait_log("a backend is on trial")
        with serving(port, "bad"):
            wait_until(
                lambda: (proxy.backend_of(new_client()), proxy.log("a backend is readmitted"))[1],
                reason="the trial to succeed",
            )
            wait_until(lambda: proxy.backend_of(new_client()) == "bad", reason="clients to come back")
        assert verdict(proxy, "good")["circuit"]["ejections"] == 0
    assert "ejected" not in proxy.ask("explain", client="127.0.0.1")["decision"]


def test_an_ejected_backend_gets_no_client_and_explain_says_for_how_long(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend], new_client: Callable[[], str]
) -> None:
    with refusing_port() as port:
        proxy = start_proxy(
            [row("bad", port), row("good", start_backend("good").port, region="us")],
            **{**CIRCUITS, "circuit_timeout_secs": 300, "circuit_failure_threshold": 1},
        )
        proxy.backend_of(new_client())
        proxy.wait_log("a backend is ejected")
        wait_until(lambda: left_out(proxy), reason="the ejection to be published")
        errors = proxy.stats()["connect_errors"]["bad"]
        assert {proxy.backend_of(new_client()) for _ in range(20)} == {"good"}
        assert proxy.stats()["connect_errors"]["bad"] == errors
        assert left_out(proxy)["bad"].endswith(" s more: 1 failed connect")


def test_a_backend_that_drops_its_clients_is_ejected(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend], new_client: Callable[[], str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as dropping:

        def drop_all() -> None:
            while True:
                try:
                    client, _ = dropping.accept()
                except OSError:
                    return
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()

        thread = threading.Thread(target=drop_all)
        thread.start()
        proxy = start_proxy(
            [
                row("bad", dropping.getsockname()[1]),
                row("good", start_backend("good").port, region="us"),
            ],
            **{**CIRCUITS, "circuit_timeout_secs": 300},
        )
        # Each of them is sent elsewhere; so is everybody after the ejection, without the detour. A reset may
        # come so soon that the connect itself seems to fail.
        for _ in range(3):
            assert proxy.backend_of(new_client()) == "good"
        wait_until(lambda: left_out(proxy), reason="the backend to be ejected")
        assert left_out(proxy)["bad"].startswith("ejected for ")
        dropping.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_of_a_small_pool_only_one_is_ejected(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend], new_client: Callable[[], str]
) -> None:
    with refusing_port() as first, refusing_port() as second:
        proxy = start_proxy(
            [
                row("bad-1", first),
                row("bad-2", second),
                row("good", start_backend("good").port, region="us"),
            ],
            **{**CIRCUITS, "circuit_timeout_secs": 300},
        )
        for _ in range(20):
            assert proxy.backend_of(new_client()) == "good"
        proxy.wait_log("a backend keeps failing, but its pool can spare no more")
        assert len(left_out(proxy)) == 1
        assert len(proxy.log("a backend is ejected")) == 1


# ---- rate limit ----------------------------------------------------------------------------------


@pytest.fixture
def limited(start_proxy: StartProxy, start_backend: Callable[[str], Backend]) -> Proxy:
    """Two workers that let each client open ten connections, and one more in an hour."""
    return start_proxy(
        [row("one", start_backend("one").port)],
        rate_limit_enabled=1,
        rate_limit_burst=10,
        rate_limit_max_requests=1,
        rate_limit_window_secs=3600,
        workers=2,
    )


def knock(proxy: Proxy, source: str) -> str:
    try:
        return proxy.backend_of(source)
    except OSError:  # the reset overtook the connect
        return ""


@pytest.mark.feature("admission.rate_limit")
def test_of_fifty_simultaneous_connections_exactly_the_burst_passes(
    limited: Proxy, new_client: Callable[[], str]
) -> None:
    client, others = new_client(), [new_client() for _ in range(20)]
    with ThreadPoolExecutor(25) as pool:
        sources = [client] * 50 + others
        served = Counter(
            source
            for source, name in zip(
                sources, pool.map(lambda each: knock(limited, each), sources), strict=True
            )
            if name == "one"
        )
    assert served[client] == 10
    assert all(served[other] == 1 for other in others)
    wait_until(lambda: limited.stats()["closes"].get("rate_limited") == 40, reason="all to be counted")


def test_the_operator_sees_and_clears_what_a_client_has_left(
    limited: Proxy, new_client: Callable[[], str]
) -> None:
    client, other = new_client(), new_client()
    for _ in range(10):
        assert knock(limited, client) == "one"
    assert knock(limited, client) == ""
    assert limited.ask("rate_limit", client=client)["connections_allowed"] < 0.1
    explanation = limited.ask("explain", client=client)
    refusal = "No backend: the client opens more connections than the rate limit allows"
    assert explanation["decision"] == refusal
    assert limited.ask("rate_limit", client=other)["connections_allowed"] == 10

    cleared = limited.ask("rate_limit", client=client, clear=True)
    assert cleared == {"client": client, "connections_allowed": 10}
    assert knock(limited, client) == "one"
    assert knock(limited, other) == "one"
    assert limited.ask("rate_limit", clear=True) == {"cleared": 2}
    assert limited.ask("rate_limit", client=client)["connections_allowed"] == 10


def test_malformed_questions_about_limits_are_refused(limited: Proxy) -> None:
    questions: list[dict[str, object]] = [{}, {"client": 7}, {"client": "nobody"}, {"clear": "yes"}]
    for question in questions:
        with pytest.raises(EdgeproxyError, match=r"rate_limit needs a client|not an IP address"):
            limited.ask("rate_limit", **question)


# ---- reloading -----------------------------------------------------------------------------------


def test_limits_circuits_and_checks_change_without_a_restart(
    start_proxy: StartProxy,
    start_backend: Callable[[str], Backend],
    new_client: Callable[[], str],
    tmp_path: Path,
) -> None:
    config = tmp_path / "edgeproxy.toml"
    switches = "rate_limit_enabled = true\nhealth_check_enabled = true\ncircuit_breaker_enabled = true\n"
    config.write_text(
        f"{switches}rate_limit_burst = 2\nrate_limit_window_secs = 3600\nrate_limit_max_requests = 1\n"
        "health_check_interval_secs = 3600\nhealth_check_fast_interval_secs = 0.1\n"
    )
    proxy = start_proxy([row("one", start_backend("one").port)], config=config)
    client = new_client()
    assert [knock(proxy, client) for _ in range(3)] == ["one", "one", ""]

    config.write_text(
        f"{switches}rate_limit_burst = 5\nrate_limit_window_secs = 0.01\nrate_limit_max_requests = 1000\n"
        "health_check_interval_secs = 0.1\nhealth_check_fast_interval_secs = 0.1\n"
        'health_check_type = "http"\nhealth_check_timeout_secs = 0.1\nhealth_unhealthy_threshold = 1\n'
        "circuit_failure_threshold = 7\npanic_threshold_percent = 0\nslow_start_secs = 0\n"
    )
    changed = proxy.ask("reload")
    assert changed["needs_restart"] == {}
    assert changed["changed"]["rate_limit_burst"] == ["2", "5"]
    assert proxy.ask("rate_limit", client=client)["connections_allowed"] == 5
    # It does not speak HTTP, and without panic there is nobody else.
    wait_until(lambda: left_out(proxy), reason="the check by HTTP to fail")
    wait_until(lambda: knock(proxy, client) == "", reason="the workers to go without panic")
    assert proxy.ask("explain", client=client)["is_panicking"] is False


# ---- events --------------------------------------------------------------------------------------


def test_events_of_every_kind_are_kept_for_who_asks(
    start_proxy: StartProxy, start_backend: Callable[[str], Backend]
) -> None:
    proxy = start_proxy([row("one", start_backend("one").port), row("two", 9)])
    edit(proxy.db_path, "UPDATE backends SET healthy = 0 WHERE id = 'two'")
    proxy.wait_log("a backend takes no more clients")
    told = proxy.ask("events")
    assert [(event["topic"], event["name"]) for event in told["events"]] == [
        ("registry", "routing table changed"),
        ("config", "listening"),
        ("registry", "routing table changed"),
        ("drain", "a backend takes no more clients"),
    ]
    assert told["events"][3]["fields"] == {"backend": "two", "connections": 0}
    assert told["statistics"]["published"] == {"registry": 2, "config": 1, "drain": 1}
    assert told["statistics"]["failures"] == {}
    assert proxy.stats()["events"] == told["statistics"]
    (last,) = proxy.ask("events", count=1, topic="config")["events"]
    assert last["fields"]["address"] == proxy.address
    with pytest.raises(EdgeproxyError, match="there is no topic 'weather'"):
        proxy.ask("events", topic="weather")
    with pytest.raises(EdgeproxyError, match="events takes a count"):
        proxy.ask("events", count=-1)
    with pytest.raises(EdgeproxyError, match="there is no rate limit"):
        proxy.ask("rate_limit", client="127.0.0.1")
    assert proxy.stats()["verdicts"] is None
