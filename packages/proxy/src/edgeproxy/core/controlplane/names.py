"""What the names of a domain mean: a question and where its asker is, to the records that answer it.

::

    <app>                       A AAAA  the backend that a client at the asker's place would be given
    top<N>.nearest.of.<app>     A AAAA  the N best ones, best first
    <region>.<app>              A AAAA  all that stand in a region, best first
    global.<app>                A AAAA  all, best first
    <id>.vm.<app>               A AAAA  this one, whether or not it takes connections
    _<app>._tcp                 SRV     all, with port; nearer ones have the better priority
    regions.<app>  vms.<app>    TXT     where the app is healthy, and which backends are
    _apps                       TXT     every app
    <region>.backends           A AAAA  the best of all apps within a region
    <region>.pops               A AAAA  points of presence
    (the domain itself)         NS SOA

The fixed words stand before a region of the same name, and an app's own name before everything else: with
an app ``eu.shop``, that name no longer means the backends of ``shop`` in ``eu``. Names that only lie on the
way to others (``vm.<app>``) exist without records, since resolvers that ask label by label (RFC 9156) take
the word that a name does not exist for all that is below it (RFC 8020).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Final

import msgspec

from edgeproxy.core.controlplane.candidates import Candidates, IpVersion, Reachable
from edgeproxy.core.controlplane.directory import Labels, backend_labels
from edgeproxy.core.dataplane.selection import ANY_APP, geo_score
from edgeproxy.core.model import Client

MAX_BACKENDS: Final = 32
"""How many backends an answer holds at most. So many addresses fit into a datagram of 1,232 bytes."""

_TOP: Final = re.compile(rb"top([1-9][0-9]?)")
_NAME_MAX_BYTES: Final = 255
_LABEL_MAX_BYTES: Final = 63


class RecordType(IntEnum):
    """Types of records that are asked for, by their numbers; 0 stands for those that no name has."""

    OTHER = 0
    A = 1
    NS = 2
    SOA = 6
    TXT = 16
    AAAA = 28
    SRV = 33


class Host(msgspec.Struct, frozen=True):
    """An A or AAAA record, as the address shows."""

    address: str


class Service(msgspec.Struct, frozen=True):
    """An SRV record."""

    priority: int
    weight: int
    port: int
    target: Labels
    """Within the domain."""


class Text(msgspec.Struct, frozen=True):
    """A TXT record."""

    text: str


class NameServer(msgspec.Struct, frozen=True):
    """An NS record."""

    target: Labels
    """Within the domain."""


class Authority(msgspec.Struct, frozen=True):
    """The SOA record."""


Record = Host | Service | Text | NameServer | Authority


class Answer(msgspec.Struct, frozen=True):
    """What is known about a name."""

    exists: bool
    records: tuple[Record, ...] = ()
    """Of the type asked for; all belong to the name asked for."""
    additional: tuple[tuple[Labels, Host], ...] = ()
    """Addresses of targets among ``records``, which may be left out."""
    is_local: bool = False
    """Whether an asker at another place may get another answer."""


NO_NAME: Final = Answer(exists=False)
NO_DATA: Final = Answer(exists=True)


class Zone(msgspec.Struct, frozen=True):
    """What is known of a domain without looking at the routing table."""

    domain: Labels
    pop_region: str
    regions: frozenset[str]
    pops: Mapping[str, tuple[str, ...]]
    """Region to the addresses at which its points of presence take clients."""

    @property
    def name_server(self) -> Labels:
        """This POP's own name, which answers for the domain."""
        return (self.pop_region.encode(), b"pops")


class _Question(msgspec.Struct, frozen=True):
    """``name`` is relative to the domain and in lower case."""

    name: Labels
    wanted: RecordType
    asker: Client
    draw: Callable[[], float]

    @property
    def version(self) -> IpVersion | None:
        """The IP version of the addresses that are wanted, ``None`` when none are."""
        if self.wanted is RecordType.A:
            return 4
        return 6 if self.wanted is RecordType.AAAA else None


class Names:
    """Answers for one domain."""

    def __init__(self, zone: Zone, candidates: Candidates) -> None:
        """``candidates`` is kept up to date by the caller."""
        self._zone = zone
        self._candidates = candidates
        self._directory = candidates.directory
        self._regions: dict[bytes, str] = {region.encode(): region for region in zone.regions}

    def answer(self, name: Labels, wanted: RecordType, asker: Client, draw: Callable[[], float]) -> Answer:
        """What ``asker`` is told about ``name``, which is relative to the domain and in lower case.

        ``draw`` gives numbers uniform in [0, 1), which decide among equal backends.
        """
        question = _Question(name, wanted, asker, draw)
        if not name:
            return self._domain_itself(question)
        if (app := self._directory.app(name)) is not None:
            return self._nearest(question, app, 1)
        meaning = self._of_the_domain(question) or self._of_an_app(question)
        if meaning is not None:
            return meaning
        return NO_DATA if self._directory.encloses(name) else NO_NAME

    def _domain_itself(self, question: _Question) -> Answer:
        match question.wanted:  # feature: dns.domain
            case RecordType.SOA:
                return Answer(exists=True, records=(Authority(),))
            case RecordType.NS:
                server = self._zone.name_server
                hosts = (Host(address) for address in self._zone.pops.get(self._zone.pop_region, ()))
                additional = tuple((server, host) for host in hosts)
                return Answer(exists=True, records=(NameServer(server),), additional=additional)
            case _:
                return NO_DATA

    def _of_the_domain(self, question: _Question) -> Answer | None:
        """The meaning of names that end in a fixed word."""
        match question.name:
            case (b"_apps",):
                return _text(question, self._directory.apps_text())
            case (b"backends" | b"pops" | b"_tcp",):
                return NO_DATA
            case (region, b"backends") if region in self._regions:
                return self._nearest(question, ANY_APP, 1, self._regions[region])
            case (region, b"pops") if region in self._regions:
                return _hosts(question, self._zone.pops.get(self._regions[region], ()), is_local=False)
            case (first, *rest, b"_tcp") if first.startswith(b"_"):
                app = self._directory.app((first[1:], *rest))
                return None if app is None else self._services(question, app)
            case (*rest, b"_tcp") if self._directory.encloses(tuple(rest)):
                return NO_DATA
        return None

    def _of_an_app(self, question: _Question) -> Answer | None:
        """The meaning of names that end in an app, the longest one there is."""
        for length in range(1, len(question.name)):
            app = self._directory.app(question.name[length:])
            if app is not None and (meaning := self._prefixed(question, question.name[:length], app)):
                return meaning
        return None

    def _prefixed(self, question: _Question, prefix: Labels, app: str) -> Answer | None:
        match prefix:
            case (b"vm" | b"of",) | (b"nearest", b"of"):
                return NO_DATA
            case (b"regions",):
                return _text(question, self._directory.regions_text(app))
            case (b"vms",):
                return _text(question, self._directory.backends_text(app))
            case (b"global",):
                return self._nearest(question, app, MAX_BACKENDS)
            case (top, b"nearest", b"of") if (number := _TOP.fullmatch(top)) is not None:
                return self._nearest(question, app, min(int(number[1]), MAX_BACKENDS))
            case (*_, b"vm") if slots := self._directory.slots(question.name):
                named = [self._candidates.of_slot(slot) for slot in slots]
                return _hosts(question, _addresses(named, question.version), is_local=False)
            case (region,) if region in self._regions:
                return self._nearest(question, app, MAX_BACKENDS, self._regions[region])
        return None

    def _nearest(self, question: _Question, app: str, count: int, region: str | None = None) -> Answer:
        version = question.version  # feature: dns.nearest
        if version is None:
            return NO_DATA
        nearest = self._candidates.nearest(
            app, question.asker, count, question.draw, version=version, region=region
        )
        return _hosts(question, _addresses(nearest, version), is_local=True)

    def _services(self, question: _Question, app: str) -> Answer:
        if question.wanted is not RecordType.SRV:  # feature: dns.services
            return NO_DATA
        nearest = self._candidates.nearest(app, question.asker, MAX_BACKENDS, question.draw)
        targets = [(backend_labels(each.backend), each) for each in nearest]
        targets = [(target, each) for target, each in targets if self._is_name(target)]
        return Answer(
            exists=True,
            records=tuple(self._service(target, each, question.asker) for target, each in targets),
            additional=tuple(
                (target, Host(address)) for target, each in targets for address in each.addresses(None)
            ),
            is_local=bool(targets),
        )

    def _service(self, target: Labels, reachable: Reachable, asker: Client) -> Service:
        backend = reachable.backend
        tier = geo_score(backend, asker.country, asker.region, self._zone.pop_region)
        return Service(tier, backend.weight or 1, backend.port, target)

    def _is_name(self, labels: Labels) -> bool:
        """Whether DNS can hold this name in the domain: not every id or app makes one."""
        size = sum(len(label) + 1 for label in (*labels, *self._zone.domain)) + 1
        return size <= _NAME_MAX_BYTES and all(1 <= len(label) <= _LABEL_MAX_BYTES for label in labels)


def _addresses(backends: Iterable[Reachable], version: IpVersion | None) -> tuple[str, ...]:
    """Of all ``backends``, each once: several may share a host. None for no version."""
    if version is None:
        return ()
    return tuple(dict.fromkeys(address for each in backends for address in each.addresses(version)))


def _hosts(question: _Question, addresses: Iterable[str], *, is_local: bool) -> Answer:
    wanted = ":" if question.version == 6 else "."
    records = tuple(Host(address) for address in addresses if wanted in address)
    if question.version is None or not records:
        return NO_DATA
    return Answer(exists=True, records=records[:MAX_BACKENDS], is_local=is_local)


def _text(question: _Question, text: str) -> Answer:
    if question.wanted is not RecordType.TXT or not text:
        return NO_DATA
    return Answer(exists=True, records=(Text(text),))
