"""Listeners and server names in the TOML file."""

from __future__ import annotations

import pytest

from edgeproxy.config.kinds import Address
from edgeproxy.config.listeners import Listener, parse_listeners, parse_server_names
from edgeproxy.core.dataplane.listening import NO_APP, Listening
from edgeproxy.core.dataplane.selection import ANY_APP


def test_a_document_without_listeners_has_none() -> None:
    assert parse_listeners({}) == ((), [])
    assert parse_server_names({}) == ({}, [])


def test_a_listener_serves_all_rows_unless_it_says_otherwise() -> None:
    listeners, problems = parse_listeners({"listeners": [{"address": "127.0.0.1:443"}]})
    assert listeners == (Listener(Address("127.0.0.1", 443), Listening(app=ANY_APP)),)
    assert problems == []


def test_a_listener_by_server_name_has_no_app_unless_it_names_one() -> None:
    tables = [
        {"address": "[::]:443", "app_from_sni": True},
        {"address": "[::]:444", "app_from_sni": True, "app": "shop", "proxy_protocol": True},
    ]
    listeners, problems = parse_listeners({"listeners": tables})
    assert [each.listening for each in listeners] == [
        Listening(app=NO_APP, app_from_sni=True),
        Listening(app="shop", app_from_sni=True, proxy_protocol=True),
    ]
    assert problems == []


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ({"address": "127.0.0.1:443"}, "listeners: must be tables; write [[listeners]]"),
        (["127.0.0.1:443"], "[[listeners]] 1: must be a table"),
        ([{}], "[[listeners]] 1: address: missing"),
        ([{"address": "nowhere"}], "[[listeners]] 1: address: 'nowhere'"),
        ([{"address": 443}], "[[listeners]] 1: address: 443"),
        ([{"address": "127.0.0.1:443", "app": "a b"}], "[[listeners]] 1: app: 'a b'"),
        ([{"address": "127.0.0.1:443", "prot": 1}], "[[listeners]] 1: prot: unknown key"),
        (
            [{"address": "127.0.0.1:443"}, {"address": "127.0.0.1:444", "app_from_sni": "yes"}],
            "[[listeners]] 2: app_from_sni: 'yes' must be true or false",
        ),
    ],
)
def test_a_wrong_listener_is_named(tables: object, problem: str) -> None:
    _, problems = parse_listeners({"listeners": tables})
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_every_problem_is_told_and_what_is_right_is_kept() -> None:
    tables = [{"address": "x", "app": "", "more": 1}, {"address": "127.0.0.1:1"}]
    listeners, problems = parse_listeners({"listeners": tables})
    assert len(listeners) == 1
    assert len(problems) == 3


def test_server_names_are_in_lower_case_without_a_trailing_dot() -> None:
    names, problems = parse_server_names({"sni": {"Shop.Example.com.": "shop", "*.blog.example.com": "blog"}})
    assert names == {"shop.example.com": "shop", "*.blog.example.com": "blog"}
    assert problems == []


@pytest.mark.parametrize(
    "table",
    [{"a b": "shop"}, {"shop.example.com": 1}, {"shop.example.com": ""}, {"a.*.com": "shop"}, {"*": "x"}],
)
def test_a_wrong_server_name_is_named(table: dict[str, object]) -> None:
    names, problems = parse_server_names({"sni": table})
    assert names == {}
    assert len(problems) == 1
    assert problems[0].startswith(f"[sni] {next(iter(table))!r}")


def test_server_names_that_are_no_table_are_refused() -> None:
    assert parse_server_names({"sni": "shop"})[1] == [
        'sni: must be a table; write [sni] and lines such as "shop.example.com" = "shop"'
    ]
