from __future__ import annotations

import pytest

from mock_backend.faults import NO_FAULT, Fault, Faults
from mock_backend.language import LanguageError


def test_without_statements_nothing_happens() -> None:
    assert Faults().draw(1, "/") is NO_FAULT


def test_delays_add_up_and_the_first_error_ends_it() -> None:
    faults = Faults("every request: delay 20 ms; requests to /api/*: delay 1 s, status 503\nrequests: reset")
    assert faults.draw(1, "/api/info") == Fault(1.02, 503)
    assert faults.draw(1, "/") == Fault(0.02, None, "reset")


def test_draw_depends_on_seed_and_number_alone() -> None:
    text = "30 % of requests: status 500; 50% of requests to /a: delay 10-90 ms"
    drawn = [Faults(text, seed=3).draw(number, "/a") for number in range(1, 200)]
    assert list(reversed(drawn)) == [Faults(text, seed=3).draw(number, "/a") for number in range(199, 0, -1)]
    assert drawn != [Faults(text, seed=4).draw(number, "/a") for number in range(1, 200)]


def test_share_is_kept_and_delays_are_between_their_bounds() -> None:
    faults = Faults("12.5 % of requests: status 500; every request: delay 10-90 ms", seed=1)
    drawn = [faults.draw(number, "/") for number in range(1, 4001)]
    assert sum(fault.status == 500 for fault in drawn) == pytest.approx(500, rel=0.2)
    assert all(0.01 <= fault.delay_s <= 0.09 for fault in drawn)
    assert len({fault.delay_s for fault in drawn}) > 3900


@pytest.mark.parametrize(("share", "hit"), [("0", False), ("100", True)])
def test_nothing_and_all_are_exact(share: str, hit: bool) -> None:
    faults = Faults(f"{share} % of requests: close")
    assert all((faults.draw(number, "/").cut == "close") is hit for number in range(1, 300))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sometimes: reset", "'sometimes' is none of: every request"),
        ("101 % of requests: reset", "'101 % of requests' is none of"),
        ("requests to api: reset", "is none of"),
        ("every request: status 199", "'status 199' is none of: delay 20 ms"),
        ("every request: explode", "'explode' is none of"),
        ("every request: status 503, reset", "ends in one way"),
        ("every request: delay 90-10 ms", "no time of at most 3600 s"),
        ("every request: delay 9999999 s", "no time of at most 3600 s"),
    ],
)
def test_what_cannot_be_understood_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(LanguageError, match=complaint):
        Faults(text)
