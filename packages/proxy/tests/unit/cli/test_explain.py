"""What ``edgeproxy explain`` prints of an explanation."""

from __future__ import annotations

import msgspec
import pytest

from edgeproxy.cli import explain
from edgeproxy.core.controlplane.explain import Candidate, Explanation
from edgeproxy.core.model import Client

BEST = Candidate(
    backend="eu-1",
    app="test",
    region="eu",
    country="DE",
    address="127.0.0.1:9001",
    connections=3,
    place="same country",
    score=0.015,
    left_out=None,
    is_best=True,
)
EXPLANATION = Explanation(
    client=Client("203.0.113.7", "DE", "eu"),
    app="*",
    pop_region="eu",
    bound_to=None,
    decision="eu-1, with the lowest score",
    candidates=(BEST,),
    counts_known=True,
)


def printed(capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    explain._print(msgspec.structs.replace(EXPLANATION, **changes))
    return capsys.readouterr().out


def test_a_candidate_is_a_line_with_its_score(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys)
    assert "Client   203.0.113.7, DE (region eu)" in out
    (line,) = [line for line in out.splitlines() if line.startswith("*")]
    assert line.split()[:4] == ["*", "eu-1", "0.0150", "3"]
    for absent in ("Limit", "Panic", "No running proxy", "verdict"):
        assert absent not in out


def test_what_is_not_usual_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(
        capsys,
        client=Client("203.0.113.7", "", ""),
        counts_known=False,
        is_panicking=True,
        connections_allowed=2.5,
    )
    assert "unknown country" in out
    assert "No running proxy was found" in out
    assert "Panic: too few backends are good" in out
    assert "Limit    2.5 connections at this moment" in out


def test_a_verdict_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    warming = msgspec.structs.replace(BEST, verdict="slow start at 40 %")
    ejected = msgspec.structs.replace(
        BEST, backend="eu-2", is_best=False, left_out="ejected for 12 s more", verdict="ejected for 12 s more"
    )
    out = printed(capsys, candidates=(warming, ejected))
    assert out.count("slow start at 40 %") == 1
    assert out.count("ejected for 12 s more") == 1


def test_an_empty_table_is_said_to_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert "The routing table has no usable row." in printed(capsys, candidates=())
