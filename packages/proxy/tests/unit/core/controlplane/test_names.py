from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.candidates import Candidates
from edgeproxy.core.controlplane.directory import Labels
from edgeproxy.core.controlplane.names import (
    MAX_BACKENDS,
    NO_DATA,
    NO_NAME,
    Answer,
    Authority,
    Host,
    Names,
    NameServer,
    RecordType,
    Service,
    Text,
    Zone,
)
from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.model import Backend, Client

BRAZILIAN = Client("200.160.2.3", "BR", "sa")
GERMAN = Client("91.0.0.1", "DE", "eu")
NOWHERE = Client("192.0.2.9", "", "")

ZONE = Zone(
    domain=(b"internal",),
    pop_region="eu",
    regions=frozenset({"eu", "sa", "us", "ap"}),
    pops={"eu": ("198.51.100.1", "2001:db8:e::1"), "sa": ("198.51.100.2",), "us": ()},
)


def backend(
    backend_id: str,
    host: str,
    app: str = "shop",
    region: str = "eu",
    country: str = "DE",
    *,
    port: int = 9000,
    healthy: bool = True,
    weight: int = 1,
    hard_limit: int = 0,
) -> Backend:
    return Backend(backend_id, app, region, country, host, port, healthy, weight, 100, hard_limit)


class Asking:
    """Names over fixed rows without connections."""

    def __init__(self, *backends: Backend, zone: Zone = ZONE, connections: int = 0) -> None:
        self.version = 1
        self._rows = tuple(PlacedBackend(slot, each) for slot, each in enumerate(backends))
        self._connections = connections
        candidates = Candidates("eu", self, self, dict)
        candidates.catch_up(0.0)
        self._names = Names(zone, candidates)

    def snapshot(self) -> Collection[PlacedBackend]:
        return self._rows

    def connections(self, slot: int) -> int:
        return self._connections

    def changed_slots(self) -> Collection[int] | None:
        return None

    def __call__(
        self, name: str, wanted: RecordType = RecordType.A, asker: Client = NOWHERE, draw: float = 0.0
    ) -> Answer:
        labels: Labels = tuple(name.encode().split(b".")) if name else ()
        return self._names.answer(labels, wanted, asker, lambda: draw)

    def addresses(self, name: str, wanted: RecordType = RecordType.A, asker: Client = NOWHERE) -> list[str]:
        records = self(name, wanted, asker).records
        return [record.address for record in records if isinstance(record, Host)]


@pytest.fixture
def ask() -> Asking:
    return Asking(
        backend("de-1", "192.0.2.1"),
        backend("cl-1", "192.0.2.2", region="sa", country="CL"),
        backend("br-1", "192.0.2.3", region="sa", country="BR", port=9003, weight=7),
        backend("us-1", "192.0.2.4", region="us", country="US"),
        backend("jp-6", "2001:db8::5", region="ap", country="JP"),
        backend("de-9", "192.0.2.9", healthy=False),
        backend("blog-1", "192.0.2.11", "blog", "us", "US"),
    )


class TestApp:
    @pytest.mark.feature("dns.nearest")
    def test_is_the_backend_that_a_client_at_the_askers_place_would_get(self, ask: Asking) -> None:
        assert ask.addresses("shop", asker=BRAZILIAN) == ["192.0.2.3"]
        assert ask.addresses("shop", asker=GERMAN) == ["192.0.2.1"]
        assert ask.addresses("shop", asker=Client("1.0.16.1", "JP", "ap")) == ["192.0.2.1"]

    def test_is_chosen_among_backends_with_an_address_of_the_version_asked_for(self, ask: Asking) -> None:
        assert ask.addresses("shop", RecordType.AAAA, GERMAN) == ["2001:db8::5"]

    def test_depends_on_the_asker(self, ask: Asking) -> None:
        assert ask("shop").is_local

    def test_has_no_data_of_another_version(self, ask: Asking) -> None:
        assert ask("blog", RecordType.AAAA) == NO_DATA

    @pytest.mark.parametrize(
        "wanted",
        [RecordType.TXT, RecordType.SRV, RecordType.NS, RecordType.SOA, RecordType.OTHER],
    )
    def test_has_no_data_of_other_types(self, ask: Asking, wanted: RecordType) -> None:
        assert ask("shop", wanted) == NO_DATA

    def test_without_a_healthy_backend_exists_without_data(self) -> None:
        assert Asking(backend("a", "192.0.2.1", healthy=False))("shop") == NO_DATA

    def test_with_all_at_their_limit_exists_without_data(self) -> None:
        assert Asking(backend("a", "192.0.2.1", hard_limit=3), connections=3)("shop") == NO_DATA

    def test_that_nobody_serves_does_not_exist(self, ask: Asking) -> None:
        assert ask("shop2") == NO_NAME

    def test_may_be_called_like_a_fixed_word(self) -> None:
        ask = Asking(backend("a", "192.0.2.1", "pops"), backend("b", "192.0.2.2", "backends"))
        assert ask.addresses("pops") == ["192.0.2.1"]
        assert ask.addresses("backends") == ["192.0.2.2"]


class TestSeveral:
    def test_top_n_are_the_n_best_best_first(self, ask: Asking) -> None:
        assert ask.addresses("top1.nearest.of.shop", asker=BRAZILIAN) == ["192.0.2.3"]
        assert ask.addresses("top3.nearest.of.shop", asker=BRAZILIAN) == [
            "192.0.2.3",
            "192.0.2.2",
            "192.0.2.1",
        ]

    @pytest.mark.parametrize("top", ["top0", "top", "top01", "top100", "topx", "top-1", "top\u0661", "3"])
    def test_top_wants_a_number_from_1_to_99(self, ask: Asking, top: str) -> None:
        assert ask(f"{top}.nearest.of.shop") == NO_NAME

    def test_global_are_all_best_first(self, ask: Asking) -> None:
        found = ask.addresses("global.shop", asker=BRAZILIAN)
        assert found == ["192.0.2.3", "192.0.2.2", "192.0.2.1", "192.0.2.4"]
        assert ask.addresses("global.shop", RecordType.AAAA) == ["2001:db8::5"]

    def test_a_region_of_an_app_are_all_within_it_best_first(self, ask: Asking) -> None:
        assert ask.addresses("sa.shop", asker=BRAZILIAN) == ["192.0.2.3", "192.0.2.2"]
        assert ask.addresses("us.shop") == ["192.0.2.4"]

    def test_a_region_without_a_backend_of_the_app_exists_without_data(self, ask: Asking) -> None:
        assert ask("eu.blog") == NO_DATA
        assert ask("ap.shop", RecordType.A) == NO_DATA

    def test_an_unknown_region_does_not_exist(self, ask: Asking) -> None:
        assert ask("af.shop") == NO_NAME

    @pytest.mark.parametrize("name", ["global.shop", "top99.nearest.of.shop", "eu.shop"])
    def test_answers_are_bounded(self, name: str) -> None:
        many = Asking(*(backend(f"b{number}", f"10.0.0.{number}") for number in range(MAX_BACKENDS + 5)))
        assert len(set(many.addresses(name))) == MAX_BACKENDS

    def test_backends_on_one_host_are_one_record(self) -> None:
        shared = Asking(backend("a", "192.0.2.1", port=1), backend("b", "192.0.2.1", port=2))
        assert shared.addresses("global.shop") == ["192.0.2.1"]

    @pytest.mark.parametrize("name", ["global.shop", "top2.nearest.of.shop", "sa.shop"])
    def test_they_depend_on_the_asker(self, ask: Asking, name: str) -> None:
        assert ask(name).is_local
        assert ask(name, RecordType.TXT) == NO_DATA


class TestOneBackend:
    def test_is_answered_whether_or_not_it_takes_connections(self, ask: Asking) -> None:
        assert ask.addresses("de-1.vm.shop") == ["192.0.2.1"]
        assert ask.addresses("de-9.vm.shop") == ["192.0.2.9"]
        assert ask.addresses("jp-6.vm.shop", RecordType.AAAA) == ["2001:db8::5"]
        assert not ask("de-1.vm.shop").is_local

    def test_has_no_data_of_other_types(self, ask: Asking) -> None:
        assert ask("de-1.vm.shop", RecordType.AAAA) == NO_DATA
        assert ask("de-1.vm.shop", RecordType.TXT) == NO_DATA

    def test_of_another_app_does_not_exist(self, ask: Asking) -> None:
        assert ask("de-1.vm.blog") == NO_NAME
        assert ask("de-2.vm.shop") == NO_NAME


class TestServices:
    @pytest.mark.feature("dns.services")
    def test_are_all_with_port_and_with_the_nearer_ones_preferred(self, ask: Asking) -> None:
        answer = ask("_shop._tcp", RecordType.SRV, BRAZILIAN)
        assert answer.records[:2] == (
            Service(0, 7, 9003, (b"br-1", b"vm", b"shop")),
            Service(1, 1, 9000, (b"cl-1", b"vm", b"shop")),
        )
        assert sorted(
            (each.priority, each.target[0]) for each in answer.records if isinstance(each, Service)
        )[2:] == [(2, b"de-1"), (3, b"jp-6"), (3, b"us-1")]
        assert answer.is_local

    def test_bring_the_addresses_of_their_targets(self, ask: Asking) -> None:
        answer = ask("_shop._tcp", RecordType.SRV)
        assert ((b"jp-6", b"vm", b"shop"), Host("2001:db8::5")) in answer.additional
        assert ((b"us-1", b"vm", b"shop"), Host("192.0.2.4")) in answer.additional
        assert len(answer.additional) == 5

    def test_a_weight_of_0_counts_as_1(self) -> None:
        (record,) = Asking(backend("a", "192.0.2.1", weight=0))("_shop._tcp", RecordType.SRV).records
        assert isinstance(record, Service)
        assert record.weight == 1

    def test_have_no_data_of_other_types(self, ask: Asking) -> None:
        assert ask("_shop._tcp", RecordType.A) == NO_DATA

    def test_without_a_backend_there_is_no_data(self) -> None:
        assert Asking(backend("a", "192.0.2.1", healthy=False))("_shop._tcp", RecordType.SRV) == NO_DATA

    @pytest.mark.parametrize("name", ["_nope._tcp", "shop._tcp", "_shop._udp", "_._tcp", "x._shop._tcp"])
    def test_others_do_not_exist(self, ask: Asking, name: str) -> None:
        assert ask(name, RecordType.SRV) == NO_NAME

    @pytest.mark.parametrize("bad_id", ["a..b", ".", "x" * 64, ".".join(["x" * 60] * 4)])
    def test_leave_out_backends_whose_id_makes_no_name(self, bad_id: str) -> None:
        ask = Asking(backend(bad_id, "192.0.2.1"), backend("good", "192.0.2.2"))
        (record,) = ask("_shop._tcp", RecordType.SRV).records
        assert isinstance(record, Service)
        assert record.target == (b"good", b"vm", b"shop")

    def test_of_an_app_whose_name_has_a_dot(self) -> None:
        ask = Asking(backend("a", "192.0.2.1", "web.shop"))
        assert ask("_web.shop._tcp", RecordType.SRV).records
        assert ask("shop._tcp", RecordType.SRV) == NO_DATA


class TestLists:
    def test_regions_and_backends_of_an_app(self, ask: Asking) -> None:
        assert ask("regions.shop", RecordType.TXT).records == (Text("ap,eu,sa,us"),)
        assert ask("vms.shop", RecordType.TXT).records == (Text("br-1 sa,cl-1 sa,de-1 eu,jp-6 ap,us-1 us"),)
        assert not ask("vms.shop", RecordType.TXT).is_local

    def test_all_apps(self, ask: Asking) -> None:
        assert ask("_apps", RecordType.TXT).records == (Text("blog,shop"),)

    def test_an_empty_list_is_no_data(self) -> None:
        assert Asking()("_apps", RecordType.TXT) == NO_DATA
        assert Asking(backend("a", "192.0.2.1", healthy=False))("vms.shop", RecordType.TXT) == NO_DATA

    @pytest.mark.parametrize("name", ["regions.shop", "vms.shop", "_apps"])
    def test_have_no_data_of_other_types(self, ask: Asking, name: str) -> None:
        assert ask(name, RecordType.A) == NO_DATA

    @pytest.mark.parametrize("name", ["regions.nope", "vms.nope", "_apps.shop", "_instances"])
    def test_others_do_not_exist(self, ask: Asking, name: str) -> None:
        assert ask(name, RecordType.TXT) == NO_NAME


class TestRegions:
    def test_the_best_backend_of_any_app_within_it(self, ask: Asking) -> None:
        assert ask.addresses("sa.backends", asker=BRAZILIAN) == ["192.0.2.3"]
        assert ask.addresses("us.backends")[0] in {"192.0.2.4", "192.0.2.11"}
        assert len(ask("us.backends").records) == 1
        assert ask("ap.backends") == NO_DATA
        assert ask("sa.backends").is_local

    def test_the_points_of_presence_within_it(self, ask: Asking) -> None:
        assert ask.addresses("eu.pops") == ["198.51.100.1"]
        assert ask.addresses("eu.pops", RecordType.AAAA) == ["2001:db8:e::1"]
        assert ask.addresses("sa.pops") == ["198.51.100.2"]
        assert ask("us.pops") == ask("ap.pops") == ask("eu.pops", RecordType.TXT) == NO_DATA
        assert not ask("eu.pops").is_local

    @pytest.mark.parametrize("name", ["af.pops", "af.backends", "x.eu.pops", "x.eu.backends"])
    def test_others_do_not_exist(self, ask: Asking, name: str) -> None:
        assert ask(name) == NO_NAME


class TestDomainItself:
    def test_has_an_authority(self, ask: Asking) -> None:
        assert ask("", RecordType.SOA).records == (Authority(),)

    def test_has_this_pop_as_its_name_server(self, ask: Asking) -> None:
        answer = ask("", RecordType.NS)
        assert answer.records == (NameServer((b"eu", b"pops")),)
        assert [host.address for _, host in answer.additional] == ["198.51.100.1", "2001:db8:e::1"]

    def test_has_a_name_server_even_where_its_address_is_not_told(self) -> None:
        ask = Asking(zone=Zone((b"internal",), "eu", frozenset({"eu"}), {}))
        assert ask("", RecordType.NS) == Answer(exists=True, records=(NameServer((b"eu", b"pops")),))

    def test_has_no_other_data(self, ask: Asking) -> None:
        assert ask("", RecordType.A) == NO_DATA


@pytest.mark.parametrize("name", ["_tcp", "backends", "pops", "vm.shop", "of.shop", "nearest.of.shop"])
def test_what_lies_on_the_way_to_names_exists(ask: Asking, name: str) -> None:
    assert ask(name) == NO_DATA


@pytest.mark.parametrize(
    "name", ["nope", "vm.nope", "nearest.of.nope", "x.nearest.of.shop", "de-1.shop", "vm", "x.y.z"]
)
def test_what_lies_on_the_way_to_nothing_does_not(ask: Asking, name: str) -> None:
    assert ask(name) == NO_NAME


class TestDottedNames:
    def test_an_app_is_found_by_its_longest_name(self) -> None:
        ask = Asking(backend("a", "192.0.2.1", "shop"), backend("b", "192.0.2.2", "web.shop"))
        assert ask.addresses("web.shop") == ["192.0.2.2"]
        assert ask.addresses("eu.web.shop") == ["192.0.2.2"]
        assert ask.addresses("eu.shop") == ["192.0.2.1"]

    def test_an_app_stands_before_a_region_of_another(self) -> None:
        ask = Asking(backend("a", "192.0.2.1", "shop"), backend("b", "192.0.2.2", "eu.shop"))
        assert ask.addresses("eu.shop") == ["192.0.2.2"]
        assert ask.addresses("eu.eu.shop") == ["192.0.2.2"]

    def test_where_the_longer_app_knows_nothing_the_shorter_is_asked(self) -> None:
        ask = Asking(backend("a.vm", "192.0.2.1", "vm.shop"), backend("b", "192.0.2.2", "shop"))
        assert ask.addresses("b.vm.shop") == ["192.0.2.2"]

    def test_the_parts_behind_a_dot_exist(self) -> None:
        ask = Asking(backend("x.y", "192.0.2.1", "web.shop"))
        assert ask("shop") == NO_DATA
        assert ask("y.vm.web.shop") == NO_DATA
        assert ask.addresses("x.y.vm.web.shop") == ["192.0.2.1"]


def test_fixed_words_stand_before_regions_of_the_same_name() -> None:
    zone = Zone((b"internal",), "eu", frozenset({"eu", "global", "vms", "of", "vm"}), {})
    ask = Asking(
        backend("a", "192.0.2.1", region="global", country=""),
        backend("b", "192.0.2.2", region="eu"),
        zone=zone,
    )
    assert set(ask.addresses("global.shop")) == {"192.0.2.1", "192.0.2.2"}
    assert ask("vms.shop", RecordType.TXT).records
    assert ask("of.shop") == ask("vm.shop") == NO_DATA


APP_WORDS = ["shop", "web", "_shop", "_web", "_apps", "_tcp", "backends", "pops"]
PREFIXES = ["vm", "vms", "of", "nearest", "top3", "global", "regions", "eu", "sa", "a", "b", "x"]
WORDS = st.sampled_from([*APP_WORDS, *PREFIXES])


@given(
    st.lists(WORDS, max_size=7).map(".".join),
    st.sampled_from(RecordType),
    st.sampled_from([NOWHERE, BRAZILIAN]),
    st.floats(0, 1, exclude_max=True),
)
def test_no_combination_of_words_is_answered_by_what_is_not_asked_for(
    name: str, wanted: RecordType, asker: Client, draw: float
) -> None:
    ask = Asking(
        backend("a", "192.0.2.1"),
        backend("b", "2001:db8::1", "web.shop", "sa", "BR"),
        backend("down", "192.0.2.66", healthy=False),
    )
    answer = ask(name, wanted, asker, draw)
    kinds = {
        RecordType.A: Host,
        RecordType.AAAA: Host,
        RecordType.SRV: Service,
        RecordType.TXT: Text,
        RecordType.NS: NameServer,
        RecordType.SOA: Authority,
    }
    assert all(isinstance(record, kinds[wanted]) for record in answer.records)
    assert answer.exists or not answer.records
    for record in answer.records:
        if isinstance(record, Host):
            assert (":" in record.address) == (wanted is RecordType.AAAA)
            assert record.address != "192.0.2.66"
    if answer.exists and name:
        parent = name.partition(".")[2]
        assert ask(parent, wanted, asker, draw).exists, "a name exists below one that does not"
