"""When a binding speaks for a client, and under which key it is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.core.dataplane import affinity
from edgeproxy.core.dataplane.affinity import (
    Binding,
    binding_tag,
    country_code,
    holds,
    renewal_interval,
    stable_key,
    worth_renewing,
)

TTL_S = 600.0
DE = country_code("DE")
words = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(("age_s", "expected"), [(0.0, True), (599.9, True), (600.0, False), (1e9, False)])
def test_a_binding_holds_for_its_time_to_live_after_the_last_use(age_s: float, expected: bool) -> None:
    binding = Binding(backend_key=1, country_code=DE, last_use_s=5_000.0)
    assert holds(binding, DE, 5_000.0 + age_s, TTL_S) is expected


def test_a_renewed_binding_counts_from_its_renewal() -> None:
    assert holds(Binding(1, DE, last_use_s=1_000.0), DE, 1_599.0, TTL_S)
    assert not holds(Binding(1, DE, last_use_s=1_000.0), DE, 2_000.0, TTL_S)
    assert holds(Binding(1, DE, last_use_s=1_599.0), DE, 2_000.0, TTL_S)


@pytest.mark.parametrize("moved_to", ["FR", ""])
def test_a_client_in_another_country_is_not_bound(moved_to: str) -> None:
    assert not holds(Binding(1, DE, 0.0), country_code(moved_to), 0.0, TTL_S)


def test_a_client_of_unknown_country_can_be_bound() -> None:
    assert holds(Binding(1, country_code(""), 0.0), country_code(""), 0.0, TTL_S)


def test_countries_have_codes_of_their_own() -> None:
    letters = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
    codes = {country_code(first + second) for first in letters for second in letters}
    assert len(codes | {country_code("")}) == 26 * 26 + 1


@given(secret=words, app_key=words, network=words)
def test_a_tag_is_a_whole_word_and_never_zero(secret: int, app_key: int, network: int) -> None:
    assert 0 < binding_tag(secret, app_key, network) < 2**64


def test_a_tag_that_would_be_zero_becomes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "hash", lambda _: 1 << affinity.TAG_BITS, raising=False)
    assert binding_tag(1, 2, 3) == 1


def test_a_tag_depends_on_the_secret_the_app_and_the_network() -> None:
    tags = {binding_tag(s, a, n) for s in range(4) for a in range(4) for n in range(4)}
    assert len(tags) == 64


@given(text=st.text())
def test_a_key_is_a_word_that_stays_the_same(text: str) -> None:
    assert 0 <= stable_key(text) < 2**64
    assert stable_key(text) == stable_key(text)


def test_a_key_means_the_same_after_a_restart() -> None:
    assert stable_key("eu-1") == 0x26D74AEACDFE20B3
    assert stable_key("eu-1") != stable_key("eu-2")


@pytest.mark.parametrize(
    ("now_s", "is_worth"), [(100.0, False), (100.6, False), (100.7, True), (200.0, True)]
)
def test_a_thousandth_of_the_time_to_live_is_not_worth_a_renewal(now_s: float, is_worth: bool) -> None:
    assert worth_renewing(100.0, now_s, ttl_s=600.0) is is_worth


@pytest.mark.parametrize(("ttl_s", "interval_s"), [(600.0, 200.0), (0.003, 0.1)])
def test_an_open_connection_renews_three_times_within_the_time_to_live(
    ttl_s: float, interval_s: float
) -> None:
    assert renewal_interval(ttl_s) == interval_s
