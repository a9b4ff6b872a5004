"""Rules for backends in the TOML file."""

from __future__ import annotations

import pytest

from edgeproxy.config.backend_rules import parse_backend_rules
from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendTls, ProxyVersion


def test_a_document_without_rules_has_none() -> None:
    assert parse_backend_rules({}) == ((), [])


def test_rules_are_kept_in_their_order() -> None:
    tables = [
        {"match": "mock-eu-*", "proxy_protocol": "v2"},
        {"app": "shop", "proxy_protocol": "v1"},
        {"match": "eu-1", "app": "shop", "proxy_protocol": "v2"},
    ]
    rules, problems = parse_backend_rules({"backend_rules": tables})
    assert rules == (
        BackendRule(ProxyVersion.V2, match="mock-eu-*"),
        BackendRule(ProxyVersion.V1, app="shop"),
        BackendRule(ProxyVersion.V2, match="eu-1", app="shop"),
    )
    assert problems == []


def test_a_rule_may_ask_for_tls() -> None:
    tables = [
        {"match": "a", "tls": True},
        {
            "match": "b",
            "tls": True,
            "tls_server_name": "shop.internal",
            "tls_ca": "ca.pem",
            "tls_cert": "us.pem",
            "tls_key": "us.key",
        },
    ]
    rules, problems = parse_backend_rules({"backend_rules": tables})
    assert rules == (
        BackendRule(match="a", tls=BackendTls()),
        BackendRule(match="b", tls=BackendTls("shop.internal", "ca.pem", "us.pem", "us.key")),
    )
    assert problems == []


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ({"match": "a"}, "backend_rules: must be tables; write [[backend_rules]]"),
        (["a"], "[[backend_rules]] 1: must be a table"),
        ([{"proxy_protocol": "v1"}], "[[backend_rules]] 1: match: missing, and so is app"),
        ([{"match": "", "proxy_protocol": "v1"}], "[[backend_rules]] 1: match: ''"),
        ([{"match": 7, "proxy_protocol": "v1"}], "[[backend_rules]] 1: match: 7"),
        ([{"app": "a b", "proxy_protocol": "v1"}], "[[backend_rules]] 1: app: 'a b'"),
        ([{"match": "a"}], "[[backend_rules]] 1: proxy_protocol: missing, and so is tls"),
        ([{"match": "a", "tls": False}], "[[backend_rules]] 1: proxy_protocol: missing, and so is tls"),
        ([{"match": "a", "proxy_protocol": 2}], "[[backend_rules]] 1: proxy_protocol: 2 is not a choice"),
        ([{"match": "a", "proxy_protocol": "v1", "more": 1}], "[[backend_rules]] 1: more: unknown key"),
        ([{"match": "a", "tls": 1}], "[[backend_rules]] 1: tls: 1 must be true or false"),
        ([{"match": "a", "proxy_protocol": "v1", "tls_ca": "a"}], "[[backend_rules]] 1: tls: missing"),
        ([{"match": "a", "tls": True, "tls_ca": 7}], "[[backend_rules]] 1: tls_ca: 7 is empty"),
        (
            [{"match": "a", "tls": True, "tls_server_name": "a b"}],
            "[[backend_rules]] 1: tls_server_name: 'a b'",
        ),
        ([{"match": "a", "tls": True, "tls_cert": "a"}], "[[backend_rules]] 1: tls_cert and tls_key: need"),
        (
            [{"match": "a", "proxy_protocol": "v1"}, {"match": "b", "proxy_protocol": "v3"}],
            "[[backend_rules]] 2: proxy_protocol: 'v3' is not a choice; write v1 or v2",
        ),
    ],
)
def test_a_wrong_rule_is_named(tables: object, problem: str) -> None:
    _, problems = parse_backend_rules({"backend_rules": tables})
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_every_problem_is_told_and_what_is_right_is_kept() -> None:
    tables = [{"more": 1}, {"match": "a", "proxy_protocol": "v1"}]
    rules, problems = parse_backend_rules({"backend_rules": tables})
    assert rules == (BackendRule(ProxyVersion.V1, match="a"),)
    assert len(problems) == 3
