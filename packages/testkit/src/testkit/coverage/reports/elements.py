"""Markup as trees of elements, so that whatever a name holds is text and never markup."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Text(str):
    """Text between elements."""

    __slots__ = ()


Node = Element | Text


def text(value: object) -> Text:
    """Return ``value`` as text; what no document may hold, control characters, is replaced."""
    return Text(_CONTROL.sub("\ufffd", str(value)))


def element(tag: str, attributes: Mapping[str, str], *children: Node) -> Element:
    """Return an element with its children in their order."""
    made = Element(tag, {name: text(value) for name, value in attributes.items()})
    add(made, *children)
    return made


def add(parent: Element, *children: Node) -> None:
    """Append ``children`` to ``parent``."""
    for child in children:
        if isinstance(child, Element):
            parent.append(child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + child
        else:
            parent.text = (parent.text or "") + child
