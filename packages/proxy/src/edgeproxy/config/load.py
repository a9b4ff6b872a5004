"""Merging the sources of settings into one :class:`~edgeproxy.config.settings.Config`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgeproxy.config import backend_rules, listeners
from edgeproxy.config.definitions import VARIABLE_PREFIX, Computed, Setting
from edgeproxy.config.kinds import InvalidValueError, flag, text_from_toml
from edgeproxy.config.settings import SETTINGS, Config
from edgeproxy.core.geography import Geography, parse_geography
from edgeproxy.errors import ConfigError

CONFIG_VARIABLE = "EDGEPROXY_CONFIG"
DEBUG_VARIABLE = "DEBUG"
SOURCE_DEFAULT = "default"

_PAIRS = (
    *(("tls_cert", "tls_key"), ("tls_key", "tls_cert")),
    *(("api_tls_cert", "api_tls_key"), ("api_tls_key", "api_tls_cert")),
    ("group", "user"),
)
"""Settings with another that they need."""

_TABLES = frozenset({"countries", "regions"}) | listeners.TABLES | backend_rules.TABLES


def load(
    environ: Mapping[str, str],
    flags: Mapping[str, str],
    config_path: Path | None,
    *,
    known_problems: Sequence[str] = (),
) -> Config:
    """Return the settings in force.

    Args:
        environ: the environment; ``EDGEPROXY_CONFIG`` names the TOML file when ``config_path`` does not.
        flags: setting's name (``listen_addr``) to the text given for it.
        config_path: the TOML file, ``None`` for none.
        known_problems: what the caller found wrong already, to be reported with the rest.

    A value is checked even when another source overrides it.

    Raises:
        ConfigError: with every problem of every source.
    """
    merging = _Merging(problems=list(known_problems))
    if config_path is None and environ.get(CONFIG_VARIABLE):
        config_path = Path(environ[CONFIG_VARIABLE])
    document: Mapping[str, object] = {}
    if config_path is not None:
        document = _read_toml(config_path, merging.problems)
        merging.take_document(document, _printable(str(config_path)))
    merging.take_environment(environ)
    merging.take_flags(flags)
    merging.fill_defaults()
    geography, problems = parse_geography(document)
    further, wrong_listeners = listeners.parse_listeners(document)
    names, wrong_names = listeners.parse_server_names(document)
    rules, wrong_rules = backend_rules.parse_backend_rules(document)
    problems = [*problems, *wrong_listeners, *wrong_names, *wrong_rules]
    merging.problems.extend(f"{config_path}: {problem}" for problem in problems)
    merging.check(geography)
    if merging.problems:
        raise ConfigError([_printable(problem) for problem in merging.problems])
    return Config(
        **merging.values,
        geography=geography,
        listeners=further,
        app_by_server_name=MappingProxyType(names),
        backend_rules=rules,
        sources=MappingProxyType(merging.sources),
    )


def _read_toml(path: Path, problems: list[str]) -> Mapping[str, object]:
    import tomllib  # 10 ms that a start without a file does not pay

    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}; --config or {CONFIG_VARIABLE} names it")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8")
    except (ValueError, RecursionError) as error:
        problems.append(f"{path}: is not valid TOML: {error}")
    return {}


@dataclass(slots=True)
class _Merging:
    """Values by setting's name, and what is wrong with them; a later source replaces an earlier one."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """How a message calls the value in force: source and spelling."""
    problems: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    """Settings with a wrong value somewhere: no default is put in their place."""

    def take_document(self, document: Mapping[str, object], path: str) -> None:
        for key, value in document.items():
            label = f"{path}: {key}"
            if (setting := SETTINGS.get(key)) is not None:
                try:
                    text = text_from_toml(setting.kind, value)
                except InvalidValueError as invalid:
                    self._refuse(setting, label, value, invalid)
                else:
                    self._take(setting, text, source=path, label=label)
            elif isinstance(value, dict) and key not in _TABLES:
                self.problems.append(
                    f"{path}: [{key}]: unknown table; settings are flat keys such as listen_addr, the only "
                    "tables are [countries], [regions.NAME], [[listeners]], [sni] and [[backend_rules]]"
                )
            elif key not in _TABLES:
                self.problems.append(f"{label}: unknown setting; {_suggest(key, SETTINGS, str)}")

    def take_environment(self, environ: Mapping[str, str]) -> None:
        by_variable = {setting.variable: setting for setting in SETTINGS.values()}
        for variable, text in environ.items():
            if (setting := by_variable.get(variable)) is not None:
                self._take(setting, text, source=variable, label=variable)
            elif variable.startswith(VARIABLE_PREFIX) and variable != CONFIG_VARIABLE:
                name = variable.removeprefix(VARIABLE_PREFIX).lower()
                hint = _suggest(name, [*SETTINGS, "config"], lambda known: VARIABLE_PREFIX + known.upper())
                self.problems.append(f"{variable}: unknown variable; {hint}")
        if debug := environ.get(DEBUG_VARIABLE):
            try:
                if flag.parse(debug):
                    self._take(SETTINGS["log_level"], "debug", source=DEBUG_VARIABLE, label=DEBUG_VARIABLE)
            except InvalidValueError as invalid:
                self.problems.append(f"{DEBUG_VARIABLE}: {debug!r} {invalid}")

    def take_flags(self, flags: Mapping[str, str]) -> None:
        for name, text in flags.items():
            spelling = _flag(name)
            setting = SETTINGS.get(name)
            if setting is None:
                known = ["config", *(each.name for each in SETTINGS.values() if not each.is_secret)]
                self.problems.append(f"{spelling}: unknown flag; {_suggest(name, known, _flag)}")
            elif setting.is_secret:
                self.problems.append(
                    f"{spelling}: a secret is no flag, because every user of this machine can read flags; "
                    f"set {setting.variable}, or {name} in the TOML file"
                )
            else:
                self._take(setting, text, source=spelling, label=spelling)

    def fill_defaults(self) -> None:
        for name, setting in SETTINGS.items():
            if name in self.values or name in self.failed:
                continue
            text = setting.default
            if isinstance(text, Computed):
                if self.failed.intersection(text.needs):
                    continue
                text = text.text(self.values)
            self._take(setting, text, source=SOURCE_DEFAULT, label=f"{setting.variable} (its default)")

    def check(self, geography: Geography) -> None:
        """Add what is wrong with values that are right on their own."""
        self.problems.extend(self._contradictions(geography))

    def _contradictions(self, geography: Geography) -> Iterator[str]:
        if "region" not in self.failed and (region := self.values["region"]) not in geography.regions:
            yield (
                f"{self.labels['region']}: {region!r} is no region; write one of "
                f"{', '.join(sorted(geography.regions))}, or add [regions.{region}] to the TOML file"
            )
        for each in self.values.get("dns_pops", ()):
            if each.region not in geography.regions:
                yield (
                    f"{self.labels['dns_pops']}: {each.region!r} is no region; write one of "
                    f"{', '.join(sorted(geography.regions))}, or add [regions.{each.region}] to the TOML file"
                )
        for name in ("allow_countries", "deny_countries"):
            for country in self.values.get(name, ()):
                if country not in geography.region_by_country:
                    yield f"{self.labels[name]}: {country!r} is no country code of ISO 3166-1"
        for given, missing in _PAIRS:
            if self.values.get(given) and missing not in self.failed and self.values[missing] is None:
                yield f"{self.labels[given]}: needs {SETTINGS[missing].variable} too; set both or neither"
        if not self.failed.intersection({"tls_client_auth", "tls_client_ca"}):
            is_asked = self.values["tls_client_auth"] != "off"
            if is_asked and self.values["tls_client_ca"] is None:
                yield f"{self.labels['tls_client_auth']}: needs {SETTINGS['tls_client_ca'].variable} too"
            if not is_asked and self.values["tls_client_ca"] is not None:
                yield (
                    f"{self.labels['tls_client_ca']}: nobody is asked for a certificate; set "
                    f"{SETTINGS['tls_client_auth'].variable} to required or optional"
                )
        if self.values.get("postgres_enabled") and self.values.get("postgres_url", "") is None:
            yield (
                f"{self.labels['postgres_enabled']}: needs {SETTINGS['postgres_url'].variable}; "
                "set it, or unset this"
            )
        if self.values.get("postgres_enabled") and self.values.get("archive_url") is not None:
            yield (
                f"{self.labels['archive_url']}: databases in files are archived, and PostgreSQL has means of "
                f"its own; unset it, or {SETTINGS['postgres_enabled'].variable}"
            )
        if self.values.get("replication_enabled"):
            yield from self._wrong_replication()
        least, most = "postgres_min_connections", "postgres_max_connections"
        if not self.failed.intersection({least, most}) and self.values[least] > self.values[most]:
            yield (
                f"{self.labels[least]}: {self.values[least]} is more than {SETTINGS[most].variable}, "
                f"which is {self.values[most]}; lower the one or raise the other"
            )

    def _wrong_replication(self) -> Iterator[str]:
        if self.values.get("postgres_enabled"):
            yield (
                f"{self.labels['replication_enabled']}: POPs that share a database in PostgreSQL have "
                f"nothing to replicate; unset it, or {SETTINGS['postgres_enabled'].variable}"
            )
        if self.values.get("replication_keys", ()) is None:
            for name in ("replication_gossip_addr", "replication_transport_addr"):
                address = self.values.get(name)
                if address is None or self.sources[name] == SOURCE_DEFAULT:
                    continue
                if not ip_address(address.host).is_loopback:
                    yield (
                        f"{self.labels[name]}: {address} can be reached from other machines, and there is no "
                        f"key; set {SETTINGS['replication_keys'].variable} to what "
                        "`edgeproxy replication key` prints, or listen on 127.0.0.1"
                    )

    def _take(self, setting: Setting, text: str, *, source: str, label: str) -> None:
        try:
            value = setting.kind.parse(text)
        except InvalidValueError as invalid:
            self._refuse(setting, label, text, invalid)
            return
        self.values[setting.name] = value
        self.sources[setting.name] = source
        self.labels[setting.name] = label

    def _refuse(self, setting: Setting, label: str, value: object, invalid: InvalidValueError) -> None:
        shown = "the value (not shown)" if setting.is_secret else _shown(value)  # feature: settings.strict
        self.problems.append(f"{label}: {shown} {invalid}")
        self.failed.add(setting.name)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # a number with more digits than Python writes
        return "the value"


def _printable(text: str) -> str:
    """Return ``text`` with all that would break a line or steer a terminal escaped."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _suggest(name: str, known: Iterable[str], spell: Callable[[str], str]) -> str:
    import difflib  # only a mistake needs it

    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {spell(close[0])}?" if close else "`edgeproxy config reference` lists all settings"
