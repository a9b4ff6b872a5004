"""Where clients are sent, by a running proxy: geography, limits, names, and what is told of it."""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from packages.proxy.tests.integration.proxies import Backend, Proxy, StartProxy, edit, greeting, row
from testkit.geo import write_country_database
from testkit.wait import wait_until

StartBackend = Callable[[str], Backend]
NewClient = Callable[[], str]

COUNTRIES = {"127.10.0.0/16": "BR", "127.11.0.0/16": "AR", "127.12.0.0/16": "JP"}
BRAZILIAN, ARGENTINE, JAPANESE, UNKNOWN = "127.10.0.{}", "127.11.0.{}", "127.12.0.{}", "127.13.0.{}"


@pytest.fixture
def open_clients() -> Iterator[ExitStack]:
    with ExitStack() as clients:
        yield clients


@pytest.fixture(scope="module")
def countries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("geo") / "countries.mmdb"
    write_country_database(path, COUNTRIES)
    return path


@pytest.fixture(scope="module")
def geo_proxy(start_shared_proxy: StartProxy, start_backend: StartBackend, countries: Path) -> Proxy:
    """A POP in the EU with a backend in each place."""
    return start_shared_proxy(
        [
            row("brazil", start_backend("brazil").port, region="sa", country="BR"),
            row("chile", start_backend("chile").port, region="sa", country="CL"),
            row("germany", start_backend("germany").port, region="eu", country="DE"),
            row("us", start_backend("us").port, region="us", country="US"),
        ],
        geoip_path=countries,
    )


@pytest.mark.feature("selection.nearest")
@pytest.mark.parametrize(
    ("network", "backend"),
    [(BRAZILIAN, "brazil"), (JAPANESE, "germany"), (UNKNOWN, "germany")],
    ids=["own country", "POP's region", "unknown country"],
)
def test_a_client_reaches_the_nearest_backend(geo_proxy: Proxy, network: str, backend: str) -> None:
    assert {geo_proxy.backend_of(network.format(last)) for last in range(1, 9)} == {backend}


def test_a_country_without_a_backend_is_served_by_its_region(geo_proxy: Proxy) -> None:
    served = Counter(geo_proxy.backend_of(ARGENTINE.format(last)) for last in range(1, 41))
    # Both of the region have one score, and a draw decides.
    assert set(served) == {"brazil", "chile"}


def test_explain_says_what_happens_to_each_client(geo_proxy: Proxy) -> None:
    for network in (BRAZILIAN, JAPANESE, UNKNOWN):
        client = network.format(200)
        explanation = geo_proxy.ask("explain", client=client)
        best = {each["backend"] for each in explanation["candidates"] if each["is_best"]}
        assert {geo_proxy.backend_of(client)} == best


def test_explain_shows_the_binding_of_a_client_that_was_here(geo_proxy: Proxy) -> None:
    client = ARGENTINE.format(201)
    assert geo_proxy.ask("explain", client=client)["bound_to"] is None
    bound = geo_proxy.backend_of(client)
    explanation = geo_proxy.ask("explain", client=client)
    assert explanation["bound_to"] == bound
    assert explanation["decision"] == f"{bound}, because the client is bound to it (affinity)"
    # A binding belongs to one app.
    assert geo_proxy.ask("explain", client=client, app="test")["bound_to"] is None


def test_a_client_falls_back_place_by_place_as_backends_go(
    start_proxy: StartProxy, start_backend: StartBackend, countries: Path
) -> None:
    places = {"own": ("sa", "BR"), "region": ("sa", "CL"), "pop": ("eu", "DE"), "far": ("us", "US")}
    proxy = start_proxy(
        [
            row(name, start_backend(name).port, region=region, country=country)
            for name, (region, country) in places.items()
        ],
        geoip_path=countries,
        db_reload_secs=0.05,
    )
    client = BRAZILIAN.format(1)

    def wait_until_moved(left: str) -> None:
        wait_until(lambda: proxy.backend_of(client) != left, reason=f"{left} to be left")

    left = "own"
    assert proxy.backend_of(client) == left
    for name in ("region", "pop", "far", ""):
        edit(proxy.db_path, f"UPDATE backends SET healthy = 0 WHERE id = '{left}'")
        wait_until_moved(left)
        assert proxy.backend_of(client) == name
        left = name


@pytest.mark.feature("connecting.elsewhere")
def test_a_client_tries_the_next_best_backends_when_connecting_fails(
    start_proxy: StartProxy, start_backend: StartBackend, countries: Path, new_client: NewClient
) -> None:
    backends = {name: start_backend(name) for name in ("first", "second")}
    proxy = start_proxy(
        [
            row("first", backends["first"].port, region="eu", country="DE"),
            row("second", backends["second"].port, region="sa"),
        ],
        geoip_path=countries,
    )
    backends["first"].stop()
    assert proxy.backend_of(new_client()) == "second"
    backends["second"].stop()
    assert proxy.backend_of(new_client()) == ""
    wait_until(
        lambda: proxy.stats()["closes"] == {"complete": 1, "unreachable": 1}, reason="both to be counted"
    )
    assert proxy.stats()["connect_errors"] == {"first": 2, "second": 1}


@pytest.mark.feature("selection.hard_limit")
def test_a_hard_limit_is_exact_over_all_workers(
    start_proxy: StartProxy, start_backend: StartBackend, countries: Path, open_clients: ExitStack
) -> None:
    proxy = start_proxy(
        [
            row("small", start_backend("small").port, region="sa", country="BR", hard_limit=5),
            row("large", start_backend("large").port, region="sa", country="CL", hard_limit=30),
        ],
        geoip_path=countries,
        workers=2,
    )

    def connect(last: int) -> str:
        try:
            return greeting(open_clients.enter_context(proxy.connect(BRAZILIAN.format(last))))
        except ConnectionResetError:
            return ""

    with ThreadPoolExecutor(50) as burst:
        served = Counter(burst.map(connect, range(1, 51)))

    assert served == {"small": 5, "large": 30, "": 15}
    wait_until(lambda: proxy.stats()["closes"] == {"at_limit": 15}, reason="the refusals to be counted")
    assert proxy.stats()["backends"] == {"small": 5, "large": 30}
    explanation = proxy.ask("explain", client=BRAZILIAN.format(99))
    assert explanation["decision"] == "No backend: the connection is reset"
    assert {each["left_out"] for each in explanation["candidates"]} == {
        "at its hard_limit of 5",
        "at its hard_limit of 30",
    }
    # A place that is given back can be taken again.
    open_clients.close()
    wait_until(lambda: not any(proxy.stats()["backends"].values()), reason="all places to be given back")
    assert proxy.backend_of(BRAZILIAN.format(99)) == "small"


def test_an_app_of_the_listener_leaves_other_apps_rows_out(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: NewClient
) -> None:
    proxy = start_proxy(
        [row("mine", start_backend("mine").port, app="shop"), row("other", start_backend("other").port)],
        app="shop",
    )
    assert {proxy.backend_of(new_client()) for _ in range(10)} == {"mine"}
    explanation = proxy.ask("explain", client="192.0.2.1")
    assert explanation["app"] == "shop"
    assert explanation["candidates"][1]["left_out"] == "serves app 'test', not 'shop'"


def test_a_backend_that_goes_by_a_host_name_is_reached(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: NewClient
) -> None:
    backend = start_backend("named")
    proxy = start_proxy([row("named", backend.port, wg_ip="localhost", hard_limit=1)])
    (line,) = proxy.wait_log("resolved")
    assert line["host"] == "localhost"
    assert "127.0.0.1" in line["addresses"]
    assert proxy.backend_of(new_client()) == "named"


def test_a_host_name_that_comes_with_an_edit_is_reached(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: NewClient
) -> None:
    proxy = start_proxy([row("named", start_backend("named").port, wg_ip="no-such-host.invalid")])
    (line,) = proxy.wait_log("a backend's host name does not resolve")
    assert line["host"] == "no-such-host.invalid"
    assert proxy.backend_of(new_client()) == ""
    edit(proxy.db_path, "UPDATE backends SET wg_ip = 'localhost'")
    wait_until(lambda: proxy.backend_of(new_client()) == "named", reason="the new name to be used")


# ---- clients that want nothing, and no backend at all --------------------------------------------


@pytest.fixture(scope="module")
def empty_proxy(start_shared_proxy: StartProxy) -> Proxy:
    return start_shared_proxy([row("dead", 9, healthy=0)])


def test_without_a_backend_clients_are_reset_and_the_reason_is_counted(
    empty_proxy: Proxy, new_client: NewClient
) -> None:
    before = empty_proxy.stats()["closes"].get("no_backend", 0)
    assert [empty_proxy.backend_of(new_client()) for _ in range(3)] == ["", "", ""]
    wait_until(
        lambda: empty_proxy.stats()["closes"].get("no_backend", 0) == before + 3, reason="all to be counted"
    )


def test_clients_that_are_silent_or_reset_at_once_harm_nobody(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: NewClient, open_clients: ExitStack
) -> None:
    proxy = start_proxy([row("one", start_backend("one").port)])
    workers = proxy.stats()["workers"]
    for _ in range(50):
        open_clients.enter_context(proxy.connect(new_client()))
        reset_at_once(proxy, new_client())
    assert proxy.backend_of(new_client()) == "one"
    open_clients.close()
    wait_until(lambda: proxy.stats()["backends"] == {"one": 0}, reason="no lease to be left")
    assert proxy.stats()["workers"] == workers


def reset_at_once(proxy: Proxy, source: str) -> None:
    client = proxy.connect(source)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


# ---- what is told --------------------------------------------------------------------------------


def exchange(proxy: Proxy, source: str, size_bytes: int) -> tuple[str, int]:
    """Send so many bytes and read to the end; return the backend's name and the bytes that came."""
    with proxy.connect(source) as client:
        client.sendall(os.urandom(size_bytes))
        client.shutdown(socket.SHUT_WR)
        received = b""
        while data := client.recv(65536):
            received += data
    return received.partition(b"\n")[0].decode(), len(received)


@pytest.fixture(scope="module")
def logging_proxy(start_shared_proxy: StartProxy, start_backend: StartBackend, countries: Path) -> Proxy:
    gone = start_backend("gone")
    gone.stop()
    return start_shared_proxy(
        [
            row("one", start_backend("one").port, region="sa", country="CL"),
            row("gone", gone.port, region="ap", country="AR"),
        ],
        geoip_path=countries,
        access_log="all",
    )


def line_of(proxy: Proxy, client: str, count: int = 1) -> dict[str, Any]:
    """The last of the client's ``count`` lines in the access log."""

    def found() -> list[dict[str, Any]] | None:
        lines = [line for line in proxy.log("session") if line["client"] == client]
        return lines if len(lines) == count else None

    return wait_until(found, reason=f"{count} lines of {client}")[-1]


def test_the_access_log_tells_what_the_client_saw(logging_proxy: Proxy) -> None:
    client = BRAZILIAN.format(7)
    name, received_bytes = exchange(logging_proxy, client, 12_345)
    assert name == "one"
    line = line_of(logging_proxy, client)
    duration_s = line.pop("duration_s")
    assert 0 < duration_s < 10
    del line["timestamp"]
    assert line == {
        "level": "info",
        "event": "session",
        "client": client,
        "country": "BR",
        "backend": "one",
        "score": 100.0,
        "affinity": False,
        "bytes_received": 12_345,
        "bytes_sent": received_bytes,
        "reason": "complete",
        "tries": 1,
    }
    assert received_bytes == 12_345 + len("one\n")
    traffic = [each for each in logging_proxy.stats()["traffic"] if each["country"] == "BR"]
    assert traffic == [
        {
            "country": "BR",
            "backend": "one",
            "opened": 1,
            "active": 0,
            "score_mean": 100.0,
            "bytes_received": 12_345,
            "bytes_sent": received_bytes,
        }
    ]


def test_the_access_log_tells_what_affinity_decided(logging_proxy: Proxy) -> None:
    client = UNKNOWN.format(8)
    exchange(logging_proxy, client, 1)
    assert line_of(logging_proxy, client)["affinity"] is False
    exchange(logging_proxy, client, 1)
    assert line_of(logging_proxy, client, count=2)["affinity"] is True


def test_the_access_log_tells_how_often_connecting_was_tried(logging_proxy: Proxy) -> None:
    client = ARGENTINE.format(9)
    before = logging_proxy.stats()["connect_errors"].get("gone", 0)
    exchange(logging_proxy, client, 1)
    line = line_of(logging_proxy, client)
    assert (line["backend"], line["reason"], line["tries"]) == ("one", "complete", 2)
    assert logging_proxy.stats()["connect_errors"]["gone"] == before + 1


def test_the_access_log_is_off_unless_asked_for(geo_proxy: Proxy) -> None:
    before = geo_proxy.stats()["closes"].get("complete", 0)
    exchange(geo_proxy, UNKNOWN.format(10), 1)
    wait_until(
        lambda: geo_proxy.stats()["closes"].get("complete", 0) > before, reason="the session to be counted"
    )
    assert geo_proxy.log("session") == []


def test_a_sampled_access_log_holds_one_session_in_so_many(
    start_proxy: StartProxy, start_backend: StartBackend, new_client: NewClient
) -> None:
    proxy = start_proxy([row("one", start_backend("one").port)], access_log="sampled", access_log_sample=5)
    for _ in range(23):
        exchange(proxy, new_client(), 1)
    proxy.process.terminate()
    assert len(proxy.log("session")) == 4


@pytest.mark.feature("logs.structured")
def test_the_console_log_tells_the_same_in_a_line_for_people(
    start_proxy: StartProxy, start_backend: StartBackend
) -> None:
    port = start_backend("one").port
    proxy = start_proxy([row("one", port)], access_log="all", log_format="console")
    exchange(proxy, "127.0.0.1", 10)
    line = proxy.process.wait_output(r"^.* session .*$")[0]
    for part in ("client=127.0.0.1", "backend=one", "bytes_received=10", "bytes_sent=14", "reason=complete"):
        assert part in line
