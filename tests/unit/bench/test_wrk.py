"""What wrk prints is read for what it is."""

from __future__ import annotations

import pytest

from bench.wrk import WrkError, parse

SAID = """\
Running 2s test @ http://127.0.0.1:9000/s
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.18ms    2.29ms  31.42ms   96.63%
    Req/Sec    25.69k     2.93k   31.61k    65.00%
  Latency Distribution
     50%  860.00us
     75%    1.33ms
     90%    1.90ms
     99%   11.97ms
  102345 requests in 2.10s, 23.42MB read
{trouble}Requests/sec:  48735.71
Transfer/sec:     11.15MB
"""


def test_reads_rates_and_latencies_in_base_units() -> None:
    load = parse(SAID.format(trouble=""))
    assert load.requests == 102345
    assert load.requests_per_s == 48735.71
    assert load.p50_s == pytest.approx(860e-6)
    assert load.p99_s == pytest.approx(11.97e-3)
    assert load.seconds == 2.1
    assert load.received_bytes == pytest.approx(23.42 * (1 << 20))
    assert load.errors == 0


def test_counts_every_kind_of_error() -> None:
    trouble = "  Socket errors: connect 1, read 2, write 0, timeout 4\n  Non-2xx or 3xx responses: 8\n"
    assert parse(SAID.format(trouble=trouble)).errors == 15


def test_part_of_a_large_answer_is_a_measurement() -> None:
    said = SAID.format(trouble="").replace("102345 requests", "0 requests")
    assert parse(said).requests == 0


@pytest.mark.parametrize(
    "said",
    ["", "unable to connect to 127.0.0.1:9000", SAID.format(trouble="").replace("23.42MB", "0.00B")],
    ids=["nothing", "a refusal", "no answers"],
)
def test_anything_else_is_refused(said: str) -> None:
    with pytest.raises(WrkError):
        parse(said)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(WrkError, match=r"11\.97parsec"):
        parse(SAID.format(trouble="").replace("11.97ms", "11.97parsec"))
