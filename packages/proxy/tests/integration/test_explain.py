"""``edgeproxy explain``, with a proxy and without one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.__main__ import main
from edgeproxy.errors import EdgeproxyError
from packages.proxy.tests.integration.proxies import (
    Backend,
    Proxy,
    StartProxy,
    environment,
    row,
    write_rows,
)
from testkit.geo import write_country_database
from testkit.wait import wait_until

BRAZILIAN = "200.160.2.3"


@pytest.fixture(scope="module")
def proxy(
    start_shared_proxy: StartProxy,
    start_backend: Callable[[str], Backend],
    tmp_path_factory: pytest.TempPathFactory,
) -> Proxy:
    countries = tmp_path_factory.mktemp("geo") / "countries.mmdb"
    write_country_database(countries, {"127.30.0.0/16": "BR", "200.160.0.0/16": "BR"})
    return start_shared_proxy(
        [
            row("brazil", start_backend("brazil").port, region="sa", country="BR"),
            row("germany", start_backend("germany").port, region="eu", country="DE"),
            row("blog", 9, region="sa", country="BR", app="blog"),
            row("sick", 9, healthy=0),
            # Square brackets and colons mean something to who draws the table.
            row("v6 [bold] :star:", 9, wg_ip="fd00::1", region="us"),
        ],
        geoip_path=countries,
    )


class Answer:
    """What the command printed and how it ended."""

    def __init__(self, exit_code: int, out: str, err: str) -> None:
        self.exit_code = exit_code
        self.out = out
        self.err = err

    def json(self) -> Any:
        assert (self.exit_code, self.err) == (0, "")
        return json.loads(self.out)


Explain = Callable[..., Answer]


@pytest.fixture
def explain(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Explain:
    """Run the command in this process, for the running proxy unless settings say otherwise."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **settings: object) -> Answer:
        with monkeypatch.context() as command:
            command.setattr(sys, "argv", ["edgeproxy", "explain", *arguments])
            for name, value in environment({"admin_socket": proxy.admin_path, **settings}).items():
                command.setenv(name, value)
            try:
                exit_code = main()
            except SystemExit as ended:
                exit_code = int(ended.code or 0)
        return Answer(exit_code, *capfd.readouterr())

    return run


@pytest.fixture
def explain_offline(explain: Explain, tmp_path: Path) -> Explain:
    """The same without a proxy, on a database in the working directory."""
    write_rows(
        tmp_path / "routing.db",
        [row("brazil", 9001, region="sa", country="BR", app="shop"), row("germany", 9002)],
    )
    return lambda *arguments, **settings: explain(
        *arguments, **{"admin_socket": tmp_path / "no.sock", "db_path": tmp_path / "routing.db", **settings}
    )


@pytest.mark.feature("explain")
def test_shows_client_decision_and_every_candidate(explain: Explain) -> None:
    answer = explain("--client", BRAZILIAN, "--app", "test")
    assert (answer.exit_code, answer.err) == (0, "")
    lines = [line.rstrip() for line in answer.out.splitlines()]
    assert lines[:4] == [
        "Client   200.160.2.3, BR (region sa)",
        "POP      region eu, app test",
        "Backend  brazil, with the lowest score of 0 (same country)",
        "",
    ]
    table = [line.split() for line in lines[4:]]
    assert table[0] == ["backend", "score", "conns", "place", "region", "country", "address", "left", "out"]
    names = [line.lstrip(" *").split()[0] for line in lines[5:]]
    assert names == ["brazil", "germany", "v6", "blog", "sick"]
    assert lines[5].startswith("*")
    assert "v6 [bold] :star:" in lines[7]
    assert "[fd00::1]:9" in lines[7]
    assert lines[8].endswith("serves app 'blog', not 'test'")
    assert lines[9].endswith("healthy = 0 in the routing table")


def test_shows_connections_and_affinity_of_the_moment(proxy: Proxy, explain: Explain) -> None:
    with proxy.connect("127.30.0.1") as client:
        assert client.recv(100) == b"brazil\n"
        answer = explain("--client", "127.30.0.1", "--json").json()
    assert answer["counts_known"] is True
    assert answer["bound_to"] == "brazil"
    assert answer["decision"] == "brazil, because the client is bound to it (affinity)"
    brazil = next(each for each in answer["candidates"] if each["backend"] == "brazil")
    assert (brazil["connections"], brazil["score"]) == (1, 0.01)


def test_json_is_what_the_proxy_answers(proxy: Proxy, explain: Explain) -> None:
    assert explain("--client", BRAZILIAN, "--json").json() == proxy.ask("explain", client=BRAZILIAN)


def test_any_spelling_of_an_address_is_taken(explain: Explain) -> None:
    assert explain("--client", f"::ffff:{BRAZILIAN}", "--json").json()["client"] == {
        "address": BRAZILIAN,
        "country": "BR",
        "region": "sa",
    }


def test_without_a_proxy_it_says_that_it_assumes_no_connections(explain_offline: Explain) -> None:
    answer = explain_offline("--client", BRAZILIAN, "--app", "shop")
    assert answer.exit_code == 0
    assert "No running proxy was found: connections are taken for 0, affinity for empty." in answer.out
    # The embedded country database knows the address; rows of other apps are left out.
    assert "Client   200.160.2.3, BR (region sa)" in answer.out
    assert "Backend  brazil, with the lowest score of 0 (same country)" in answer.out


def test_without_a_proxy_json_says_so_too(explain_offline: Explain) -> None:
    answer = explain_offline("--client", "127.0.0.1", "--json", region="eu").json()
    assert answer["counts_known"] is False
    assert answer["app"] == "*"
    assert answer["client"] == {"address": "127.0.0.1", "country": "", "region": ""}
    assert answer["decision"] == "germany, with the lowest score of 200 (region of this POP)"


def test_an_unknown_country_and_an_empty_table_are_said(explain_offline: Explain, tmp_path: Path) -> None:
    write_rows(tmp_path / "routing.db", [])
    answer = explain_offline("--client", "127.0.0.1")
    assert "Client   127.0.0.1, unknown country" in answer.out
    assert "Backend  No backend: the connection is reset" in answer.out
    assert "The routing table has no usable row." in answer.out


@pytest.mark.parametrize("address", ["somewhere", "300.0.0.1", "", "1.2.3.4:80"])
def test_an_address_that_is_none_is_refused(explain: Explain, address: str) -> None:
    answer = explain("--client", address)
    assert (answer.exit_code, answer.out) == (2, "")
    assert answer.err == f"edgeproxy: error: --client: not an IP address: {address!r}\n"


def test_without_a_proxy_and_a_database_it_says_what_is_missing(
    explain_offline: Explain, tmp_path: Path
) -> None:
    answer = explain_offline("--client", BRAZILIAN, db_path=tmp_path / "no.db")
    assert (answer.exit_code, answer.out) == (3, "")
    assert answer.err.startswith(f"edgeproxy: error: routing database {tmp_path}/no.db does not exist; ")
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, "explain needs a client, an IP address as text"),
        ({"client": 7}, "explain needs a client, an IP address as text"),
        ({"client": "somewhere"}, "not an IP address: 'somewhere'"),
        ({"client": BRAZILIAN, "app": 7}, "explain takes an app as text"),
    ],
)
def test_the_proxy_says_what_is_wrong_with_a_question(
    proxy: Proxy, arguments: dict[str, object], error: str
) -> None:
    with pytest.raises(EdgeproxyError) as refusal:
        proxy.ask("explain", **arguments)
    assert str(refusal.value) == error


def test_shows_limit_panic_and_verdicts(
    explain: Explain, start_proxy: StartProxy, start_backend: Callable[[str], Backend]
) -> None:
    """The checks ask for HTTP, which the backend does not speak."""
    proxy = start_proxy(
        [row("one", start_backend("one").port), row("two", 9, healthy=0)],
        rate_limit_enabled=1,
        health_check_enabled=1,
        health_check_type="http",
        health_check_interval_secs=0.1,
        health_check_timeout_secs=0.1,
    )
    panic = "Panic: too few backends are good, so this POP's own verdicts are ignored."
    answer = wait_until(
        lambda: (
            found
            if panic in (found := explain("--client", BRAZILIAN, admin_socket=proxy.admin_path)).out
            else None
        ),
        reason="the checks to fail",
    )
    lines = [line.rstrip() for line in answer.out.splitlines()]
    assert lines[3:5] == ["Limit    10.0 connections at this moment", panic]
    header, one, two = lines[6:]
    assert header.endswith("verdict")
    assert one.endswith("failing its checks: does not answer in HTTP")
    assert one.startswith("*")
    # Its own check fails too, sooner or later than that of the other.
    assert "healthy = 0 in the routing table" in two
