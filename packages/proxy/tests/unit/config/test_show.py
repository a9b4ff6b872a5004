from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.config import load
from edgeproxy.config.settings import SETTINGS
from edgeproxy.config.show import as_json, as_toml

SECRET = "postgres://me:hunter2@db/edge"

ENVIRONMENTS: st.SearchStrategy[dict[str, str]] = st.fixed_dictionaries(
    {},
    optional={
        "EDGEPROXY_LISTEN_ADDR": st.builds(
            "{}:{}".format,
            st.ip_addresses(v=4) | st.ip_addresses(v=6).map("[{}]".format),
            st.integers(0, 65535),
        ),
        "EDGEPROXY_APP": st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20),
        "EDGEPROXY_DB_PATH": st.text(
            st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1, max_size=20
        ),
        "EDGEPROXY_BINDING_TTL_SECS": st.floats(0.01, 31_536_000).map(str),
        "EDGEPROXY_WORKERS": st.integers(1, 256).map(str),
        "EDGEPROXY_REGION": st.sampled_from(["sa", "US", "eu", "ap"]),
        "EDGEPROXY_LOG_FORMAT": st.sampled_from(["auto", "console", "json"]),
        "EDGEPROXY_TLS_ENABLED": st.sampled_from(["false", "0", "no"]),
        "EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS": st.sampled_from(["", "a:1", "a:1,[::1]:2,pop.example.:3"]),
    },
)


@pytest.mark.feature("settings.shown")
@given(environ=ENVIRONMENTS)
@example(environ={"EDGEPROXY_DB_PATH": 'a\x7f"\\# .db', "EDGEPROXY_APP": '"#'})
def test_the_toml_form_loads_to_the_same_configuration(
    environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = load(environ, {}, None)
    file = tmp_path_factory.getbasetemp() / "shown.toml"
    file.write_text(as_toml(config), encoding="utf-8")
    assert load({}, {}, file) == config


def test_changes_to_the_geography_load_to_the_same_configuration(tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text(
        'region = "af"\n[countries]\nMX = "sa"\n[regions.af]\ncountries = ["ZA", "NG"]\n'
        '[regions.moon]\n[regions.eu]\ndefault_country = "FR"\n'
    )
    config = load({}, {}, file)
    file.write_text(as_toml(config))
    shown = tomllib.loads(as_toml(config))
    assert load({}, {}, file) == config
    assert shown["countries"] == {"MX": "sa", "NG": "af", "ZA": "af"}
    assert shown["regions"] == {"af": {}, "moon": {}, "eu": {"default_country": "FR"}}


def test_backend_rules_load_to_the_same_configuration(tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text(
        '[[backend_rules]]\nmatch = "eu-[12]"\nproxy_protocol = "v2"\n'
        '[[backend_rules]]\napp = "shop"\nproxy_protocol = "v1"\n'
        '[[backend_rules]]\napp = "blog"\ntls = true\ntls_ca = "ca.pem"\n'
    )
    config = load({}, {}, file)
    assert json.loads(as_json(config))["backend_rules"] == [
        {"match": "eu-[12]", "app": "*", "proxy_protocol": "v2", "tls": None},
        {"match": "*", "app": "shop", "proxy_protocol": "v1", "tls": None},
        {"match": "*", "app": "blog", "proxy_protocol": None, "tls": {"tls_ca": "ca.pem"}},
    ]
    file.write_text(as_toml(config))
    assert load({}, {}, file) == config


def test_every_setting_is_shown_with_its_source() -> None:
    lines = as_toml(load({"EDGEPROXY_REGION": "eu"}, {"workers": "2"}, None)).splitlines()
    shown = {line.split(" = ")[0]: line for line in lines if " = " in line}
    assert list(shown) == list(SETTINGS)
    assert shown["region"].split() == ["region", "=", '"eu"', "#", "EDGEPROXY_REGION"]
    assert shown["workers"].split() == ["workers", "=", "2", "#", "--workers"]
    assert shown["app"].split() == ["app", "=", '""', "#", "default"]


def test_a_secret_is_masked_and_commented_out() -> None:
    text = as_toml(load({"EDGEPROXY_POSTGRES_URL": SECRET}, {}, None))
    (line,) = (line for line in text.splitlines() if "postgres_url" in line)
    assert line.split() == ["#", "postgres_url", "=", '"***"', "#", "EDGEPROXY_POSTGRES_URL"]
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("name", "environ", "value", "source"),
    [
        ("listen_addr", {}, "0.0.0.0:8080", "default"),
        ("app", {}, None, "default"),
        ("workers", {"EDGEPROXY_WORKERS": "7"}, 7, "EDGEPROXY_WORKERS"),
        ("binding_ttl_secs", {"EDGEPROXY_BINDING_TTL_SECS": "0.5"}, 0.5, "EDGEPROXY_BINDING_TTL_SECS"),
        ("tls_enabled", {}, False, "default"),
        ("db_path", {}, "routing.db", "default"),
        ("replication_bootstrap_peers", {"EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS": "a:1,b:2"}, ["a:1", "b:2"],
         "EDGEPROXY_REPLICATION_BOOTSTRAP_PEERS"),
        ("postgres_url", {}, None, "default"),
        ("postgres_url", {"EDGEPROXY_POSTGRES_URL": SECRET}, "***", "EDGEPROXY_POSTGRES_URL"),
    ],
)  # fmt: skip
def test_json_has_natural_types(name: str, environ: dict[str, str], value: Any, source: str) -> None:
    document = json.loads(as_json(load(environ, {}, None)))
    assert document["settings"][name] == {"value": value, "source": source}


def test_json_has_every_setting_and_the_changes_to_the_geography(tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text('[regions.af]\ncountries = ["ZA"]\ndefault_country = "ZA"\n')
    document = json.loads(as_json(load({}, {}, file)))
    assert list(document["settings"]) == list(SETTINGS)
    assert document["countries"] == {"ZA": "af"}
    assert document["default_countries"] == {"af": "ZA"}


LISTENERS = """
[[listeners]]
address = "127.0.0.1:443"
app_from_sni = true
proxy_protocol = true

[[listeners]]
address = "[::1]:444"
app = "shop"
tls = "terminate"

[[listeners]]
address = "127.0.0.1:445"

[sni]
"shop.example.com" = "shop"
"*.blog.example.com" = "blog"
"""


def test_listeners_and_server_names_load_to_the_same_configuration(tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text(LISTENERS)
    config = load({}, {}, file)
    file.write_text(as_toml(config))
    assert load({}, {}, file) == config
    assert [each.listening.terminates_tls for each in config.listeners] == [False, True, False]


def test_json_tells_listeners_and_server_names(tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text(LISTENERS)
    shown = json.loads(as_json(load({}, {}, file)))
    assert [(each["address"], each["app"], each["terminates_tls"]) for each in shown["listeners"]] == [
        ("127.0.0.1:443", "", False),
        ("[::1]:444", "shop", True),
        ("127.0.0.1:445", "*", False),
    ]
    assert shown["sni"] == {"shop.example.com": "shop", "*.blog.example.com": "blog"}
