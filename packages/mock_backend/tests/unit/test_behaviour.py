from __future__ import annotations

import json

import pytest

from mock_backend.behaviour import Answer, Backend, Identity, Moment, check_label

MOMENT = Moment(unix_ns=1_765_152_703_999_999_999, uptime_s=3600.9)
HEADERS = {"X-Backend-ID": "mock-eu-1", "X-Region": "eu"}


@pytest.fixture
def backend() -> Backend:
    return Backend(Identity(backend_id="mock-eu-1", region="eu", hostname="ip-172-31-29-183", port=9001))


def ask(backend: Backend, path: str, method: str = "GET") -> Answer:
    return backend.answer(method, path, client="192.0.2.7:40000", moment=MOMENT)


def test_health_is_one_line_byte_for_byte(backend: Backend) -> None:
    assert ask(backend, "/health") == Answer(
        200, {**HEADERS, "Content-Type": "text/plain; charset=utf-8"}, b"OK - mock-eu-1 (eu)"
    )


def test_info_has_exactly_the_documented_fields_in_order(backend: Backend) -> None:
    for _ in range(41):
        ask(backend, "/api/info")
    answer = ask(backend, "/api/info")
    assert answer.headers == {**HEADERS, "Content-Type": "application/json"}
    assert answer.body == (
        b'{"backend_id":"mock-eu-1","region":"eu","hostname":"ip-172-31-29-183","port":"9001",'
        b'"request_count":42,"uptime_secs":3600,"timestamp":"2025-12-08T00:11:43Z",'
        b'"message":"Hello from mock backend!"}\n'
    )


def test_latency_tells_nanoseconds(backend: Backend) -> None:
    answer = ask(backend, "/api/latency")
    assert answer.headers == {**HEADERS, "Content-Type": "application/json"}
    assert answer.body == b'{"backend_id":"mock-eu-1","region":"eu","ts":1765152703999999999}\n'


def test_banner_tells_all_there_is(backend: Backend) -> None:
    answer = ask(backend, "/")
    assert answer.headers == {**HEADERS, "Content-Type": "text/plain; charset=utf-8"}
    assert answer.body.decode().splitlines() == [
        "Mock backend",
        "Backend ID: mock-eu-1",
        "Region:     eu",
        "Hostname:   ip-172-31-29-183",
        "Port:       9001",
        "Request:    #1",
        "Uptime:     3600 s",
        "Client:     192.0.2.7:40000",
        "Timestamp:  2025-12-08T00:11:43Z",
    ]


@pytest.mark.parametrize("path", ["/", "/api/info", "/api/latency"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_request_counts(backend: Backend, method: str, path: str) -> None:
    ask(backend, path, method)
    assert json.loads(ask(backend, "/api/info").body)["request_count"] == 2


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("HEAD", "/health"), ("POST", "/"), ("GET", "/nothing")]
)
def test_request_does_not_count(backend: Backend, method: str, path: str) -> None:
    ask(backend, path, method)
    assert backend.request_count == 0


def test_head_is_answered_like_get(backend: Backend) -> None:
    assert ask(backend, "/health", "HEAD") == ask(backend, "/health", "GET")


@pytest.mark.parametrize("path", ["", "*", "/health/", "/api", "/API/info"])
def test_unknown_path_names_the_known_ones(backend: Backend, path: str) -> None:
    answer = ask(backend, path, "POST")
    assert answer.status == 404
    assert answer.headers.items() >= HEADERS.items()
    assert answer.body == b"404 Not Found: try /, /health, /api/info, /api/latency\n"


@pytest.mark.parametrize("path", ["/", "/health", "/api/info", "/api/latency"])
def test_other_method_names_the_allowed_ones(backend: Backend, path: str) -> None:
    answer = ask(backend, path, "DELETE")
    assert answer.status == 405
    assert answer.headers.items() >= {**HEADERS, "Allow": "GET, HEAD"}.items()
    assert answer.body == b"405 Method Not Allowed: try GET, HEAD\n"


def test_refusal_carries_the_identity(backend: Backend) -> None:
    answer = backend.refuse(400, "no such thing")
    assert answer == Answer(
        400,
        {**HEADERS, "Content-Type": "text/plain; charset=utf-8"},
        b"400 Bad Request: no such thing\n",
    )


@pytest.mark.parametrize(("given", "used"), [(None, "mock-ap-9005"), ("tokyo", "tokyo")])
def test_id_defaults_to_region_and_port(given: str | None, used: str) -> None:
    assert Identity.of(backend_id=given, region="ap", hostname="h", port=9005).backend_id == used


@pytest.mark.parametrize("label", ["eu", "mock-eu-1", "a:b/c", "!~"])
def test_printable_word_is_a_label(label: str) -> None:
    assert check_label(label) == label


@pytest.mark.parametrize("label", ["", "a b", "a\r\nX-Evil: 1", "a\n", "ü", "\x7f", "\t"])
def test_label_that_breaks_a_header_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="is empty or holds blanks, control or non-ASCII characters"):
        check_label(label)
