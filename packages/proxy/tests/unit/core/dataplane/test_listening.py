"""What listeners want to know, which apps names mean, and who is trusted."""

from __future__ import annotations

import pytest

from edgeproxy.core.dataplane.listening import Listening, Networks, ServerNames


@pytest.mark.parametrize(
    ("listening", "has_opening"),
    [
        (Listening(), False),
        (Listening(app="shop"), False),
        (Listening(app_from_sni=True), True),
        (Listening(proxy_protocol=True), True),
    ],
)
def test_only_what_must_be_read_first_makes_an_opening(listening: Listening, has_opening: bool) -> None:
    assert listening.has_opening is has_opening


@pytest.mark.feature("listeners.further")
@pytest.mark.parametrize(
    ("server_name", "app"),
    [
        ("shop.example.com", "shop"),
        ("old.blog.example.com", "blog"),
        ("special.blog.example.com", "special"),
        ("blog.example.com", None),
        ("very.old.blog.example.com", None),
        ("example.com", None),
        ("com", None),
    ],
)
def test_a_name_means_its_own_app_before_that_of_its_domain(server_name: str, app: str | None) -> None:
    names = ServerNames(
        {"shop.example.com": "shop", "*.blog.example.com": "blog", "special.blog.example.com": "special"}
    )
    assert names.app_of(server_name) == app


@pytest.mark.parametrize(
    ("address", "held"),
    [
        ("10.1.2.3", True),
        ("10.2.2.3", False),
        ("192.0.2.7", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
    ],
)
def test_networks_hold_their_addresses_and_no_others(address: str, held: bool) -> None:
    assert Networks(("10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32")).hold(address) is held


def test_no_networks_hold_nobody() -> None:
    assert not Networks(()).hold("10.1.2.3")
    assert not Networks(()).hold("::1")
