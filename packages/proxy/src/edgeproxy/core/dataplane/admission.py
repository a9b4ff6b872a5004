"""Who may come in at all: lists of networks and of countries."""

from __future__ import annotations

import msgspec

from edgeproxy.core.dataplane.listening import Networks
from edgeproxy.core.model import Client


class AccessLists(msgspec.Struct, frozen=True):
    """Networks in CIDR notation, countries by their codes of two letters."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    allow_countries: tuple[str, ...] = ()
    deny_countries: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.allow or self.deny or self.allow_countries or self.deny_countries)


class Admission:
    """Who is denied stays out. Once anybody is allowed, by network or by country, all others stay out too."""

    def __init__(self, lists: AccessLists) -> None:
        self._allow, self._deny = Networks(lists.allow), Networks(lists.deny)
        self._allow_countries = frozenset(lists.allow_countries)
        self._deny_countries = frozenset(lists.deny_countries)
        self._is_open = not (lists.allow or lists.allow_countries)

    def admits(self, client: Client) -> bool:
        """Whether ``client`` may come in. An unknown country is on no list."""
        if client.country in self._deny_countries or self._deny.hold(client.address):
            return False
        return self._is_open or client.country in self._allow_countries or self._allow.hold(client.address)
