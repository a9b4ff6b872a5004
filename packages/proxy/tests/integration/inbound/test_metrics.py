"""What a scrape of a running proxy tells, compared with what its clients did."""

from __future__ import annotations

import gzip
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from packages.proxy.tests.integration.proxies import (
    API,
    EDGEPROXY,
    Api,
    Backend,
    Proxy,
    StartProxy,
    edit,
    environment,
    greeting,
    row,
)
from testkit.process import ProcessFactory
from testkit.wait import wait_until

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
TEXT = "text/plain; version=0.0.4"


def port_of_metrics(proxy: Proxy) -> int:
    (line,) = proxy.wait_log("listening")
    host, _, port = line["metrics"].rpartition(":")
    assert host == "127.0.0.1"
    return int(port)


def fetch(port: int, path: str = "/metrics", **headers: str) -> tuple[Mapping[str, str], bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers, answer.read()


def scrape(port: int) -> Samples:
    families = text_string_to_metric_families(fetch(port)[1].decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"edgeproxy_{name}", frozenset(labels.items())))


def exchange(proxy: Proxy, source: str, size: int) -> int:
    """Send ``size`` bytes, have them echoed, end in order; return how many bytes came back."""
    with proxy.connect(source) as client:
        received = len(greeting(client)) + 1
        client.sendall(b"x" * size)
        client.shutdown(socket.SHUT_WR)
        while data := client.recv(65536):
            received += len(data)
    return received


@pytest.fixture
def metrics_proxy(start_proxy: StartProxy) -> Callable[..., Proxy]:
    def start(*rows: Mapping[str, object], **settings: object) -> Proxy:
        return start_proxy(
            rows, **{"metrics_enabled": "true", "metrics_listen_addr": "127.0.0.1:0", **settings}
        )

    return start


@pytest.fixture
def holds() -> Iterator[ExitStack]:
    """What stays open until the test is over."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that refuses connections for as long as the test runs."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


# ---- figures -------------------------------------------------------------------------------------


@pytest.mark.feature("metrics.prometheus")
def test_figures_equal_what_clients_did_to_the_byte(
    metrics_proxy: Callable[..., Proxy],
    start_backend: Callable[[str], Backend],
    dead_port: int,
    holds: ExitStack,
) -> None:
    backend = start_backend("alive")
    proxy = metrics_proxy(
        row("alive", backend.port), row("dead", dead_port, healthy=0), row("unused", 9, healthy=0), workers=2
    )
    port = port_of_metrics(proxy)
    sizes = (0, 1, 1_000, 300_000)
    received = sum(exchange(proxy, "127.0.0.1", size) for size in sizes)
    for _ in range(2):
        greeting(holds.enter_context(proxy.connect("127.0.0.2")))
    edit(proxy.db_path, "UPDATE backends SET healthy = (id = 'dead')")
    wait_until(lambda: value(scrape(port), "backend_up", backend="dead") == 1, reason="the edit to be seen")
    assert proxy.backend_of("127.0.0.3") == ""
    edit(proxy.db_path, "UPDATE backends SET healthy = 0")
    wait_until(lambda: value(scrape(port), "table_backends", state="down") == 3, reason="the edit to be seen")
    assert proxy.backend_of("127.0.0.4") == ""

    expected: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def expect(name: str, number: float, **labels: str) -> None:
        expected[f"edgeproxy_{name}", frozenset(labels.items())] = number

    expect("connections_total", 8)
    expect("connections_active", 2)
    expect("bytes_received_total", sum(sizes))
    expect("bytes_sent_total", received)
    expect("connections_closed_total", 4, reason="complete")
    expect("connections_closed_total", 1, reason="unreachable")
    expect("connections_closed_total", 1, reason="no_backend")
    expect("selections_total", 2, outcome="selection")
    expect("selections_total", 4, outcome="affinity")
    expect("selections_total", 2, outcome="refused")
    expect("country_connections_total", 6, country="unknown")
    expect("country_connections_active", 2, country="unknown")
    for name, alive, dead in (
        ("backend_connections_total", 6, 0),
        ("backend_connections_active", 2, 0),
        ("backend_errors_total", 0, 1),
        ("backend_bytes_received_total", sum(sizes), 0),
        ("backend_bytes_sent_total", received, 0),
        ("backend_rtt_seconds_count", 6, 0),
        ("backend_up", 0, 0),
    ):
        expect(name, alive, backend="alive")
        expect(name, dead, backend="dead")
    expect("workers", 2)
    expect("worker_restarts_total", 0)

    def differences() -> dict[object, object]:
        samples = scrape(port)
        return {key: samples.get(key) for key, number in expected.items() if samples.get(key) != number}

    with suppress(TimeoutError):
        wait_until(lambda: not differences(), reason="all to be right")
    assert differences() == {}


def test_connects_are_timed(
    metrics_proxy: Callable[..., Proxy], start_backend: Callable[[str], Backend]
) -> None:
    proxy = metrics_proxy(row("one", start_backend("one").port))
    port = port_of_metrics(proxy)
    for _ in range(5):
        assert proxy.backend_of("127.0.0.1") == "one"

    def histogram() -> Samples | None:
        samples = scrape(port)
        return samples if value(samples, "backend_rtt_seconds_count", backend="one") == 5 else None

    samples = wait_until(histogram, reason="five connects")
    buckets = [
        number
        for (name, labels), number in samples.items()
        if name == "edgeproxy_backend_rtt_seconds_bucket" and ("backend", "one") in labels
    ]
    assert len(buckets) == 14
    assert buckets == sorted(buckets)
    assert buckets[-1] == 5
    seconds = value(samples, "backend_rtt_seconds_sum", backend="one")
    assert seconds is not None
    assert 0 < seconds < 5


def test_a_worker_that_dies_is_counted_and_its_connections_are_not_active_any_more(
    metrics_proxy: Callable[..., Proxy], start_backend: Callable[[str], Backend]
) -> None:
    proxy = metrics_proxy(row("one", start_backend("one").port), workers=1)
    port = port_of_metrics(proxy)
    with proxy.connect() as client:
        greeting(client)
        wait_until(lambda: value(scrape(port), "connections_active") == 1, reason="it to be counted")
        (pid,) = proxy.stats()["workers"]
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
        wait_until(lambda: value(scrape(port), "worker_restarts_total") == 1, reason="a replacement")
    samples = scrape(port)
    assert value(samples, "connections_active") == 0
    assert value(samples, "connections_total") == 1


def test_the_table_is_described(metrics_proxy: Callable[..., Proxy]) -> None:
    proxy = metrics_proxy(row("one", 1, country="DE"), row("bad", 0), row("down", 1, healthy=0))
    port = port_of_metrics(proxy)
    samples = scrape(port)
    assert value(samples, "table_bad_rows") == 1
    assert value(samples, "table_version") == 1
    assert value(samples, "table_backends", state="ready") == 1
    assert value(samples, "table_backends", state="down") == 1
    assert value(samples, "backend_info", backend="one", app="test", region="eu", country="DE") == 1
    age_s = value(samples, "table_age_seconds")
    assert age_s is not None
    assert 0 <= age_s < 10
    proxy.db_path.unlink()
    wait_until(lambda: (value(scrape(port), "table_age_seconds") or 0) > 1, reason="the table to grow old")


def test_dns_is_counted_where_it_is_answered(metrics_proxy: Callable[..., Proxy]) -> None:
    proxy = metrics_proxy(row("one", 1), dns_enabled="true", dns_listen_addr="127.0.0.1:0")
    samples = scrape(port_of_metrics(proxy))
    assert value(samples, "dns_queries_total", transport="udp") == 0


# ---- the format ----------------------------------------------------------------------------------

STRANGE = 'qu"ote\\back {slash}'


@pytest.fixture(scope="module")
def strange_metrics(start_shared_proxy: StartProxy) -> int:
    """The port of a proxy with a backend whose id must be escaped."""
    proxy = start_shared_proxy(
        [row(STRANGE, 1), row("plain", 1)], metrics_enabled="true", metrics_listen_addr="127.0.0.1:0"
    )
    return port_of_metrics(proxy)


def test_labels_are_escaped(strange_metrics: int) -> None:
    assert value(scrape(strange_metrics), "backend_up", backend=STRANGE) == 1


def test_promtool_finds_nothing(strange_metrics: int) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=fetch(strange_metrics)[1],
        capture_output=True,
        check=False,
    )
    assert (checked.stdout, checked.stderr, checked.returncode) == (b"", b"", 0)


def test_every_metric_has_a_help_and_a_type_and_no_series_comes_twice(strange_metrics: int) -> None:
    text = fetch(strange_metrics)[1].decode()
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert names == [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert all(name.startswith("edgeproxy_") for name in names)
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_the_plain_format_is_the_default(strange_metrics: int) -> None:
    headers, _ = fetch(strange_metrics)
    assert headers["Content-Type"].startswith(TEXT)
    assert headers["Cache-Control"] == "no-store"


def test_openmetrics_is_given_to_who_asks_for_it(strange_metrics: int) -> None:
    headers, body = fetch(strange_metrics, Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    families = openmetrics.text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
    assert "edgeproxy_connections" in {family.name for family in families}


def test_it_is_compressed_for_who_takes_that(strange_metrics: int) -> None:
    headers, body = fetch(strange_metrics, **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).startswith(b"# HELP")


def test_other_paths_are_not_found(strange_metrics: int) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404") as told:
        fetch(strange_metrics, "/nowhere")
    assert "/metrics" in told.value.read().decode()


# ---- the control plane -------------------------------------------------------------------------------


def test_what_the_control_plane_does_is_counted(
    metrics_proxy: Callable[..., Proxy], start_backend: Callable[[str], Backend], port: int
) -> None:
    proxy = metrics_proxy(
        row("dead", port), **API, circuit_breaker_enabled=1, circuit_failure_threshold=1,
        rate_limit_enabled=1, rate_limit_burst=2, rate_limit_max_requests=1, rate_limit_window_secs=3600,
    )  # fmt: skip
    api, metrics = Api(proxy), port_of_metrics(proxy)
    api.register(start_backend("self-made"), app="other")
    assert api.ask("DELETE", "/api/v1/backends/nobody")[0] == 404
    assert api.ask("GET", "/what/ever")[0] == 404
    assert api.ask("DELETE", "/api/v1/backends/self-made")[0] == 200
    for _ in range(3):
        proxy.backend_of("127.0.0.1")

    def counted(name: str, **labels: str) -> float | None:
        return value(scrape(metrics), name, **labels)

    wait_until(lambda: counted("health_transitions_total", to="ejected") == 1, reason="the ejection")
    wait_until(lambda: counted("rate_limit_decisions_total", outcome="refused") == 1, reason="the refusal")
    assert counted("rate_limit_decisions_total", outcome="allowed") == 2
    assert counted("circuits", state="open") == 1
    assert counted("circuits", state="closed") == 0
    route = "/api/v1/backends/{id}"
    assert counted("api_requests_total", method="DELETE", route=route, status="200") == 1
    assert counted("api_requests_total", method="DELETE", route=route, status="404") == 1
    assert counted("api_requests_total", method="other", route="other", status="404") == 1
    assert counted("api_requests_total", method="POST", route="/api/v1/register", status="201") == 1
    assert counted("registrations_total", change="registered") == 1
    assert counted("registrations_total", change="deregistered") == 1
    assert counted("registered_backends") == 0
    assert counted("store_up") == 1
    assert (counted("events_total", topic="registry") or 0) >= 2
    assert counted("events_dropped_total", priority="normal") == 0
    proxy.db_path.rename(proxy.db_path.with_suffix(".away"))
    wait_until(lambda: counted("store_up") == 0, reason="the store to be missed")
    assert counted("store_failures_total") == 1


# ---- where it is served --------------------------------------------------------------------------


def test_the_path_is_taken_to_the_letter(metrics_proxy: Callable[..., Proxy]) -> None:
    proxy = metrics_proxy(metrics_path="/a/{b}/c%20d")
    assert fetch(port_of_metrics(proxy), "/a/{b}/c%20d")[1].startswith(b"# HELP")


def test_a_port_that_is_taken_ends_the_start(process_factory: ProcessFactory, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        settings = {"metrics_enabled": "true", "metrics_listen_addr": address, "listen_addr": "127.0.0.1:0"}
        process = process_factory([*EDGEPROXY, "run"], env=environment(settings), cwd=tmp_path)
        assert process.wait_exit() == 5
    assert process.log.startswith(
        f"edgeproxy: error: cannot serve metrics on {address}: another process has the port"
    )
    assert process.log.endswith("set EDGEPROXY_METRICS_LISTEN_ADDR\n")
