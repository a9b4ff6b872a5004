"""What Prometheus would scrape is what clients did, to the connection and to the byte."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.clients import Client
from e2e.pop import Pop, Proxy
from testkit.wait import wait_until

_REQUEST = b"GET /api/latency HTTP/1.1\r\nHost: backend\r\nConnection: close\r\n\r\n"


def _scrape(client: Client, proxy: Proxy, port: int) -> dict[str, float]:
    """The samples, by name and the values of their labels."""
    with client.connect(proxy, port) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return {
        "/".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _exchange(client: Client, proxy: Proxy) -> tuple[str, int]:
    """Send a request of known size; return who answered, and the size of all that came back, in bytes."""
    with client.socket(proxy) as sock:
        sock.sendall(_REQUEST)
        received = b""
        while piece := sock.recv(65536):
            received += piece
    name = next(line for line in received.split(b"\r\n") if line.lower().startswith(b"x-backend-id:"))
    return name.split(b":")[1].strip().decode(), len(received)


@pytest.mark.feature("metrics.prometheus")
@pytest.mark.planted("traffic counts twice")
def test_every_connection_and_byte_is_counted_where_it_went(pop: Pop) -> None:
    address, port = pop.listen()
    pop.configure(metrics_enabled="true", metrics_listen_addr=address)
    pop.start_backends({"mock-sa-1": "BR", "mock-eu-1": "DE"})
    proxy = pop.start_proxy()

    pop.step("clients of two countries send requests")
    seen = [
        (country, *_exchange(pop.client(country), proxy)) for country in ("BR", "BR", "BR", "DE", "DE", "PT")
    ]
    wanted: dict[str, float] = {
        "edgeproxy_connections_total": len(seen),
        "edgeproxy_connections_active": 0,
        "edgeproxy_bytes_received_total": len(seen) * len(_REQUEST),
        "edgeproxy_bytes_sent_total": sum(size for _, _, size in seen),
    }
    for backend in ("mock-sa-1", "mock-eu-1"):
        of_backend = [size for _, answered, size in seen if answered == backend]
        wanted[f"edgeproxy_backend_connections_total/{backend}"] = len(of_backend)
        wanted[f"edgeproxy_backend_bytes_sent_total/{backend}"] = sum(of_backend)
        wanted[f"edgeproxy_backend_bytes_received_total/{backend}"] = len(of_backend) * len(_REQUEST)
    for country in ("BR", "DE", "PT"):
        wanted[f"edgeproxy_country_connections_total/{country}"] = sum(each[0] == country for each in seen)
    assert wanted["edgeproxy_backend_connections_total/mock-sa-1"] == 3

    pop.step("the metrics are scraped")
    scraper = pop.client("DE", 9)
    wait_until(
        lambda: {name: _scrape(scraper, proxy, port).get(name) for name in wanted} == wanted,
        reason=f"the metrics to tell {wanted}",
        interval_s=0.1,
    )
