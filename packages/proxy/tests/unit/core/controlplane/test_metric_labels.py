"""That there are never more labels than allowed, and that no counter ever goes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.metric_labels import OTHER, BackendLabels


def labels_of(labels: BackendLabels, *backends: str) -> list[str | None]:
    return [labels.of(backend) for backend in backends]


def test_backends_have_labels_of_their_own_as_far_as_they_go() -> None:
    labels = BackendLabels(limit=2)
    labels.assign({"c", "a", "b"})
    assert labels_of(labels, "a", "b", "c") == ["a", "b", OTHER]


def test_a_backend_without_a_label_stays_without_one() -> None:
    labels = BackendLabels(limit=1)
    labels.assign({"a", "b"})
    labels.assign({"b"})
    assert labels_of(labels, "a", "b") == ["a", OTHER]


def test_a_backend_that_is_gone_keeps_its_label_until_another_needs_it() -> None:
    labels = BackendLabels(limit=2)
    labels.assign({"a", "b"})
    labels.assign({"b"})
    assert labels.of("a") == "a"
    labels.assign({"b", "c"})
    assert labels_of(labels, "a", "b", "c") == [None, "b", "c"]


def test_one_that_comes_back_gets_a_label_like_a_new_one() -> None:
    labels = BackendLabels(limit=1)
    labels.assign({"a"})
    labels.assign({"b"})
    labels.assign({"a"})
    assert labels_of(labels, "a", "b") == ["a", None]


def test_an_id_that_means_others_is_one_of_them() -> None:
    labels = BackendLabels(limit=5)
    labels.assign({OTHER, "a"})
    assert labels_of(labels, OTHER, "a") == [OTHER, "a"]
    assert labels.of("never seen") is None


backends = st.sets(st.sampled_from(["a", "b", "c", "d", "e", OTHER]))


@given(st.lists(backends, max_size=12), st.integers(1, 3))
def test_whatever_comes_and_goes_labels_are_bounded_and_others_stay_others(
    history: list[set[str]], limit: int
) -> None:
    labels = BackendLabels(limit)
    others: set[str] = set()
    for present in history:
        labels.assign(present)
        given_out = {label for each in "abcde" if (label := labels.of(each)) not in (None, OTHER)}
        assert len(given_out) <= limit
        assert None not in labels_of(labels, *present)
        assert all(labels.of(each) == OTHER for each in others)
        others |= {each for each in present if labels.of(each) == OTHER}
