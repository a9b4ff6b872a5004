"""The settings in force, written down: as a TOML file that loads to the same settings, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from edgeproxy.config.definitions import Setting
from edgeproxy.config.listeners import Listener
from edgeproxy.config.settings import SETTINGS, Config
from edgeproxy.core.dataplane.backend_rules import BackendRule, BackendTls
from edgeproxy.core.dataplane.listening import NO_APP
from edgeproxy.core.dataplane.selection import ANY_APP
from edgeproxy.core.geography import Geography

_MASK = "***"
_COMMENT_COLUMN = 48


def as_toml(config: Config) -> str:
    """Return ``config`` as a TOML file, each value with its source, secrets masked and commented out.

    Without secrets, loading it gives an equal configuration.
    """
    return "\n".join(_toml_lines(config))  # feature: settings.shown


def as_json(config: Config) -> str:
    """Return ``config`` as a JSON object: settings with value and source, and changes to the geography."""
    settings = {
        setting.name: {"value": _json_value(config, setting), "source": config.sources[setting.name]}
        for setting in SETTINGS.values()
    }
    moved, default_countries = _geography_changes(config.geography)
    return json.dumps(
        {
            "settings": settings,
            "listeners": [_listener_json(each) for each in config.listeners],
            "sni": dict(config.app_by_server_name),
            "backend_rules": [_rule_json(each) for each in config.backend_rules],
            "countries": moved,
            "default_countries": default_countries,
        },
        indent=2,
        ensure_ascii=False,
    )


def _json_value(config: Config, setting: Setting) -> object:
    value = getattr(config, setting.name)
    if value is not None and setting.is_secret:
        return _MASK
    if value is None or {bool, int}.intersection(setting.kind.toml_types):
        return value
    return _items(value) if list in setting.kind.toml_types else setting.kind.format(value)


def _listener_json(listener: Listener) -> dict[str, object]:
    listening = listener.listening
    return {
        "address": str(listener.address),
        "app": listening.app,
        "app_from_sni": listening.app_from_sni,
        "proxy_protocol": listening.proxy_protocol,
        "terminates_tls": listening.terminates_tls,
    }


def _rule_json(rule: BackendRule) -> dict[str, object]:
    return {
        "match": rule.match,
        "app": rule.app,
        "proxy_protocol": rule.proxy_protocol.value if rule.proxy_protocol is not None else None,
        "tls": dict(_tls_items(rule.tls)) if rule.tls is not None else None,
    }


def _tls_items(tls: BackendTls) -> Iterator[tuple[str, str]]:
    """What is said, by its name in the TOML file."""
    values = (tls.server_name, tls.ca, tls.certificate, tls.key)
    keys = ("tls_server_name", "tls_ca", "tls_cert", "tls_key")
    return ((key, value) for key, value in zip(keys, values, strict=True) if value)


def _items(value: Any) -> list[str]:
    return [str(item) for item in value]


def _toml_lines(config: Config) -> Iterator[str]:
    yield '# The settings in force and the source of each. "" is none.'
    section = None
    for setting in SETTINGS.values():
        if setting.section is not section:
            section = setting.section
            yield ""
            yield f"# {section.title}"
        line = f"{setting.name} = {_toml_value(config, setting)}"
        if setting.is_secret and getattr(config, setting.name) is not None:
            line = f"# {line}"
        yield f"{line.ljust(_COMMENT_COLUMN)}  # {config.sources[setting.name]}"
    yield from _listener_lines(config)
    yield from _rule_lines(config)
    yield from _geography_lines(config.geography)


def _toml_value(config: Config, setting: Setting) -> str:
    value = getattr(config, setting.name)
    if value is not None and setting.is_secret:
        return _toml_string(_MASK)
    if list in setting.kind.toml_types:
        return f"[{', '.join(map(_toml_string, _items(value)))}]"
    text = setting.kind.format(value)
    return text if {bool, int}.intersection(setting.kind.toml_types) else _toml_string(text)


def _toml_string(text: str) -> str:
    # A basic string of TOML takes the escapes of JSON, but wants DEL escaped as well.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _listener_lines(config: Config) -> Iterator[str]:
    for address, listening in ((each.address, each.listening) for each in config.listeners):
        yield ""
        yield "[[listeners]]"
        yield f"address = {_toml_string(str(address))}"
        if listening.app not in (ANY_APP, NO_APP):
            yield f"app = {_toml_string(listening.app)}"
        yield f"app_from_sni = {str(listening.app_from_sni).lower()}"
        yield f"proxy_protocol = {str(listening.proxy_protocol).lower()}"
        if listening.terminates_tls:
            yield 'tls = "terminate"'
    if config.app_by_server_name:
        yield ""
        yield "[sni]"
        for name, app in config.app_by_server_name.items():
            yield f"{_toml_string(name)} = {_toml_string(app)}"


def _rule_lines(config: Config) -> Iterator[str]:
    for rule in config.backend_rules:
        yield ""
        yield "[[backend_rules]]"
        yield f"match = {_toml_string(rule.match)}"
        if rule.app != ANY_APP:
            yield f"app = {_toml_string(rule.app)}"
        if rule.proxy_protocol is not None:
            yield f"proxy_protocol = {_toml_string(rule.proxy_protocol.value)}"
        if rule.tls is not None:
            yield "tls = true"
            yield from (f"{key} = {_toml_string(value)}" for key, value in _tls_items(rule.tls))


def _geography_changes(geography: Geography) -> tuple[dict[str, str], dict[str, str]]:
    """Return what differs from the built-in geography: country to region, region to default country."""
    built_in = Geography.built_in()
    moved = {
        country: region
        for country, region in sorted(geography.region_by_country.items())
        if built_in.region_of(country) != region
    }
    default_countries = {
        region: country
        for region, country in sorted(geography.default_country_by_region.items())
        if built_in.default_country_by_region.get(region) != country
    }
    return moved, default_countries


def _geography_lines(geography: Geography) -> Iterator[str]:
    moved, default_countries = _geography_changes(geography)
    for region, country in default_countries.items():
        yield ""
        yield f"[regions.{region}]"
        if country:
            yield f"default_country = {_toml_string(country)}"
    if moved:
        yield ""
        yield "[countries]"
        yield from (f"{country} = {_toml_string(region)}" for country, region in moved.items())
