"""What a setting is: one field of the configuration that says all about itself.

Loading, flags, ``config show`` and the reference page read these definitions, so a setting is described once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, TypeVar, cast

from edgeproxy.config.kinds import Kind

T = TypeVar("T")

VARIABLE_PREFIX = "EDGEPROXY_"


@dataclass(frozen=True, slots=True)
class Section:
    """A group of settings on the reference page, and the part of the product that they steer."""

    title: str


@dataclass(frozen=True, slots=True)
class Computed:
    """A default that depends on the machine or on other settings."""

    text: Callable[[Mapping[str, Any]], str]
    """Values of the settings in ``needs`` to the text of the default."""
    description: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """The definition of one setting."""

    name: str
    kind: Kind[Any]
    default: str | Computed
    """Text, parsed like any other, so that a default can do nothing that users cannot."""
    section: Section
    description: str
    is_switch: bool
    """Whether it turns its section's part on."""
    is_secret: bool
    is_live: bool
    """Whether it changes while the proxy runs; others are bound to sockets, files, memory or processes."""

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def setting(
    kind: Kind[T],
    default: str | Computed,
    section: Section,
    description: str,
    *,
    switch: bool = False,
    secret: bool = False,
    live: bool = False,
) -> T:
    """A field of the configuration, without a default: only loading makes one.

    The type says what the attribute will hold, so that a kind and its annotation cannot disagree.
    """
    definition = (kind, default, section, description, switch, secret, live)
    return cast(T, field(repr=not secret, metadata={"definition": definition}))


def settings_of(config: type) -> Mapping[str, Setting]:
    """The settings among the fields of a dataclass, by name, in order."""
    return MappingProxyType(
        {
            each.name: Setting(each.name, *each.metadata["definition"])
            for each in fields(config)
            if "definition" in each.metadata
        }
    )
