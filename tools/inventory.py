"""Print, as a JSON list, what users can meet of the product, as its code has it.

Settings, commands, routes, metrics and forms of DNS names; ``features.toml`` says to which feature each
belongs.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import msgspec
from typer.core import TyperGroup
from typer.main import get_command

from edgeproxy.cli.app import app
from edgeproxy.config.settings import SETTINGS, Config
from edgeproxy.core.controlplane import names
from edgeproxy.core.controlplane.control_view import ControlView
from edgeproxy.core.controlplane.metric_labels import BackendLabels
from edgeproxy.core.controlplane.overview import Overview
from edgeproxy.inbound import api, metrics_server
from edgeproxy.inbound.api_routes import CALLS
from edgeproxy.inbound.metrics import PopCollector
from edgeproxy.inbound.metrics_control import ControlCollector

_NO_SETTINGS = {"sources"}
_FORM = re.compile(r"^    (\S.*?\S)  +(?:A AAAA|SRV|TXT|NS SOA)\b", re.MULTILINE)


def settings() -> Iterator[str]:
    """Those of the reference page, then the tables that only the TOML file has."""
    for field in fields(Config):
        if field.name not in _NO_SETTINGS:
            yield f"setting {field.name}"
    assert SETTINGS.keys() <= {field.name for field in fields(Config)}


def commands() -> Iterator[str]:
    """Every command that does something; groups are only the way to it."""
    waiting = [("edgeproxy", get_command(app))]
    while waiting:
        path, command = waiting.pop(0)
        if isinstance(command, TyperGroup):
            waiting += [(f"{path} {name}", child) for name, child in command.commands.items()]
        else:
            yield f"command {path}"


def routes() -> Iterator[str]:
    """The calls of the API, and what the two servers add to their routers by a constant path."""
    for call in CALLS:
        yield f"route {call.method} {call.path}"
    for module in (api, metrics_server):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            match node:
                case ast.Call(func=ast.Attribute(attr="add_get"), args=[ast.Constant(value=path), *_]):
                    yield f"route GET {path!s}"


def metrics() -> Iterator[str]:
    """What a POP tells of which nothing is known yet."""
    of_the_pop = PopCollector(lambda: _blank(Overview), BackendLabels(1))
    of_control = ControlCollector(lambda: _blank(ControlView))
    for family in (*of_the_pop.collect(), *of_control.collect()):
        yield f"metric {family.name}"


def dns_names() -> Iterator[str]:
    """The forms that the module of names lists; it must list each fixed word that it looks for."""
    listing = names.__doc__ or ""
    forms = _FORM.findall(listing)
    for word in sorted(set(re.findall(r'case .*?\bb"([a-z_]+)"', inspect.getsource(names)))):
        assert any(word in form for form in forms), f"the list of names in {names.__name__} lacks {word!r}"
    for form in forms:
        yield from (f"dns {each}" for each in form.split("  "))


class _Nothing(dict[str, Any]):
    """Counts by whatever key is asked for: none."""

    def __missing__(self, key: str) -> dict[str, Any]:
        return {}


def _blank(shape: Any) -> Any:
    """Return a value of a type that says nothing: 0, empty, the default; what may be None is there."""
    origin, arguments = typing.get_origin(shape), typing.get_args(shape)
    if origin in (typing.Union, types.UnionType):
        return _blank(next(each for each in arguments if each is not type(None)))
    if isinstance(shape, type) and issubclass(shape, msgspec.Struct):
        hints = typing.get_type_hints(shape)
        told = {
            field.name: _blank(hints[field.name])
            for field in msgspec.structs.fields(shape)
            if field.required or field.default is None
        }
        return shape(**told)
    if origin is not None and issubclass(origin, typing.Mapping):
        return _Nothing()
    return origin() if origin is not None else shape()


def inventory() -> list[str]:
    return [*settings(), *commands(), "command mock-backend", *routes(), *metrics(), *dns_names()]


if __name__ == "__main__":
    print(json.dumps(inventory(), indent=0))
