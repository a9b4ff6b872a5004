from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgeproxy.core.controlplane.directory import (
    LIST_MAX_BYTES,
    Directory,
    Labels,
    backend_labels,
    labels_of,
)
from edgeproxy.core.model import Backend


def backend(backend_id: str, app: str = "shop", region: str = "eu", *, healthy: bool = True) -> Backend:
    return Backend(backend_id, app, region, "DE", "192.0.2.1", 80, healthy, 1, 1, 0)


def directory(*backends: Backend) -> Directory:
    made = Directory()
    for slot, each in enumerate(backends):
        made.put(slot, each)
    return made


def name(text: str) -> Labels:
    return tuple(text.encode().split(b"."))


def test_labels_are_in_lower_case_and_split_at_dots() -> None:
    assert labels_of("Shop.EU-1") == (b"shop", b"eu-1")
    assert backend_labels(backend("A.b", "Shop")) == (b"a", b"b", b"vm", b"shop")


def test_only_ascii_letters_lose_their_case() -> None:
    assert labels_of("KÖLN") == ("kÖln".encode(),)


def test_an_app_is_found_whatever_the_case_of_its_row() -> None:
    assert directory(backend("a", "Shop")).app(name("shop")) == "Shop"
    assert directory(backend("a", "Shop")).app(name("shops")) is None


def test_of_apps_that_differ_in_case_the_first_one_is_meant() -> None:
    both = directory(backend("a", "shop"), backend("b", "SHOP"))
    assert both.app(name("shop")) == "SHOP"
    both.discard(1)
    assert both.app(name("shop")) == "shop"


def test_rows_without_an_app_and_of_the_app_that_means_all_have_no_name() -> None:
    nameless = directory(backend("a", ""), backend("b", "*"))
    assert nameless.app(name("")) is None
    assert nameless.app(name("*")) is None
    assert not nameless.slots((b"b", b"vm", b"*"))
    assert nameless.apps_text() == ""


def test_a_backend_is_found_under_its_app() -> None:
    two = directory(backend("Mock-1"), backend("mock-1", "blog"))
    assert set(two.slots(name("mock-1.vm.shop"))) == {0}
    assert set(two.slots(name("mock-1.vm.blog"))) == {1}
    assert not two.slots(name("mock-2.vm.shop"))


def test_backends_that_differ_in_case_share_a_name() -> None:
    assert set(directory(backend("A"), backend("a")).slots(name("a.vm.shop"))) == {0, 1}


def test_dotted_names_enclose_nodes_until_the_last_of_them_is_gone() -> None:
    dotted = directory(backend("x.y", "a.b"), backend("z.y", "a.b"))
    assert dotted.encloses(name("b"))
    assert dotted.encloses(name("y.vm.a.b"))
    assert not dotted.encloses(name("a.b"))
    assert not dotted.encloses(name("x.y.vm.a.b"))
    dotted.discard(0)
    assert dotted.encloses(name("y.vm.a.b"))
    dotted.discard(1)
    assert not dotted.encloses(name("b"))
    assert not dotted.encloses(name("y.vm.a.b"))


def test_an_id_that_holds_the_word_vm_is_no_trap() -> None:
    odd = directory(backend("vm.vm", "vm"))
    assert set(odd.slots(name("vm.vm.vm.vm"))) == {0}
    assert odd.encloses(name("vm.vm.vm"))
    assert not odd.encloses(name("vm.vm"))


def test_lists_are_in_order_and_leave_the_unhealthy_out() -> None:
    listed = directory(
        backend("c", region="us"),
        backend("a", region="eu"),
        backend("d", region="us"),
        backend("b", region="ap", healthy=False),
        backend("e", "blog", healthy=False),
    )
    assert listed.apps_text() == "blog,shop"
    assert listed.regions_text("shop") == "eu,us"
    assert listed.backends_text("shop") == "a eu,c us,d us"
    assert listed.backends_text("blog") == ""


def test_lists_follow_changes() -> None:
    listed = directory(backend("a"))
    assert (listed.apps_text(), listed.backends_text("shop")) == ("shop", "a eu")
    listed.put(0, backend("a", region="us"))
    listed.put(1, backend("b", "blog"))
    assert (listed.apps_text(), listed.backends_text("shop")) == ("blog,shop", "a us")
    listed.discard(0)
    assert listed.apps_text() == "blog"


def test_a_list_ends_before_the_entry_that_makes_it_too_long() -> None:
    ids = [f"{number:05}" for number in range(3_000)]
    text = directory(*map(backend, ids)).backends_text("shop")
    kept = text.split(",")
    assert kept == [f"{each} eu" for each in ids[: len(kept)]]
    assert LIST_MAX_BYTES - len("00000 eu,") <= len(text) <= LIST_MAX_BYTES


def test_an_unknown_slot_is_no_error() -> None:
    Directory().discard(7)


IDS = st.sampled_from(["a", "A", "a.b", "vm", "x.vm.y", "ü"])
APPS = st.sampled_from(["shop", "Shop", "a.shop", "b.a.shop", "vm", "", "*"])


class DirectoryMachine(RuleBasedStateMachine):
    """However it came to its rows, a directory is the one that is made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Directory()
        self.rows: dict[int, Backend] = {}

    @rule(slot=st.integers(0, 5), backend_id=IDS, app=APPS, healthy=st.booleans())
    def put(self, slot: int, backend_id: str, app: str, healthy: bool) -> None:
        self.rows[slot] = backend(backend_id, app, healthy=healthy)
        self.directory.put(slot, self.rows[slot])

    @rule(slot=st.integers(0, 5))
    def discard(self, slot: int) -> None:
        self.rows.pop(slot, None)
        self.directory.discard(slot)

    @invariant()
    def equals_a_new_one(self) -> None:
        new = Directory()
        for slot, each in self.rows.items():
            new.put(slot, each)
        assert self.directory.apps_text() == new.apps_text()
        for app in filter(None, new.apps_text().split(",")):
            assert self.directory.backends_text(app) == new.backends_text(app)
        names = {backend_labels(each)[start:] for each in self.rows.values() for start in range(6)}
        for labels in names:
            assert self.directory.app(labels) == new.app(labels)
            assert set(self.directory.slots(labels)) == set(new.slots(labels))
            assert self.directory.encloses(labels) == new.encloses(labels)


TestDirectoryMachine = DirectoryMachine.TestCase
TestDirectoryMachine.settings = settings(max_examples=50)
