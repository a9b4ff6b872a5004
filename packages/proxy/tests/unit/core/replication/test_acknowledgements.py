"""When every member has acknowledged something."""

from __future__ import annotations

import pytest

from edgeproxy.core.replication.acknowledgements import Acknowledgements
from edgeproxy.core.replication.vector import Known

pytestmark = pytest.mark.feature("replication.changes")

RETENTION_S = 100.0


def make(*members: str) -> Acknowledgements:
    acknowledgements = Acknowledgements(RETENTION_S)
    for member in members:
        acknowledgements.alive(member)
    return acknowledgements


def test_nothing_is_stable_before_all_have_spoken() -> None:
    acknowledgements = make("b", "c")
    acknowledgements.said("b", {"a/1": ((1, 3),)}, 0.0)
    assert acknowledgements.stable(Known({"a/1": ((1, 3),)})) is None
    assert list(acknowledgements.others_know()) == [{"a/1": ((1, 3),)}]


def test_what_all_know_is_stable() -> None:
    acknowledgements = make("b", "c")
    acknowledgements.said("b", {"a/1": ((1, 3),)}, 0.0)
    acknowledgements.said("c", {"a/1": ((1, 2),)}, 0.0)
    assert acknowledgements.stable(Known({"a/1": ((1, 5),)})) == {"a/1": ((1, 2),)}


def test_alone_everything_is_stable() -> None:
    assert make().stable(Known({"a/1": ((1, 5),)})) == {"a/1": ((1, 5),)}


def test_a_digest_counts_once_all_of_it_is_known_here() -> None:
    acknowledgements = make("b")
    known = Known({"a/1": ((1, 5),)})
    acknowledgements.said("b", {"a/1": ((1, 5),), "b/1": ((1, 1),)}, 0.0)
    assert acknowledgements.stable(known) is None
    known.learn({"b/1": ((1, 1),)})
    assert acknowledgements.stable(known) == {"a/1": ((1, 5),), "b/1": ((1, 1),)}


def test_an_earlier_digest_counts_while_later_ones_are_ahead() -> None:
    acknowledgements = make("b")
    known = Known({"a/1": ((1, 5),)})
    acknowledgements.said("b", {"a/1": ((1, 1),), "b/1": ((1, 1),)}, 0.0)
    acknowledgements.said("b", {"a/1": ((1, 2),), "b/1": ((1, 2),)}, 0.0)
    acknowledgements.said("b", {"a/1": ((1, 3),), "b/1": ((1, 3),)}, 0.0)
    known.learn({"b/1": ((1, 1),)})
    assert acknowledgements.stable(known) == {"a/1": ((1, 1),), "b/1": ((1, 1),)}
    known.learn({"b/1": ((2, 2),)})
    # The second was never waited for, and the third is ahead.
    assert acknowledgements.stable(known) == {"a/1": ((1, 1),), "b/1": ((1, 1),)}
    known.learn({"b/1": ((3, 3),)})
    assert acknowledgements.stable(known) == {"a/1": ((1, 3),), "b/1": ((1, 3),)}


def test_who_left_does_not_count() -> None:
    acknowledgements = make("b")
    acknowledgements.left("b")
    acknowledgements.left("b")
    assert acknowledgements.stable(Known()) == {}


def test_who_is_no_member_acknowledges_nothing() -> None:
    acknowledgements = make()
    acknowledgements.said("b", {"a/1": ((1, 1),)}, 0.0)
    assert acknowledgements.stable(Known()) == {}


def test_the_dead_count_for_a_while() -> None:
    acknowledgements = make("b", "c")
    acknowledgements.said("c", {}, 0.0)
    acknowledgements.dead("b", 1_000.0)
    acknowledgements.dead("b", 1_050.0)
    acknowledgements.dead("stranger", 1_000.0)
    assert acknowledgements.forget(1_099.0) == []
    assert acknowledgements.stable(Known()) is None
    assert acknowledgements.forget(1_100.0) == ["b"]
    assert acknowledgements.stable(Known()) == {}


def test_who_lives_again_is_not_forgotten() -> None:
    acknowledgements = make("b")
    acknowledgements.dead("b", 1_000.0)
    acknowledgements.alive("b")
    assert acknowledgements.forget(9_000.0) == []


def test_who_still_speaks_is_not_forgotten() -> None:
    acknowledgements = make("b")
    acknowledgements.dead("b", 0.0)
    acknowledgements.said("b", {}, 90.0)
    assert acknowledgements.forget(RETENTION_S) == []
    assert acknowledgements.forget(90.0 + RETENTION_S) == ["b"]


def test_who_returns_after_that_has_to_acknowledge_anew() -> None:
    acknowledgements = make("b")
    acknowledgements.said("b", {}, 0.0)
    acknowledgements.dead("b", 0.0)
    acknowledgements.forget(RETENTION_S)
    acknowledgements.alive("b")
    assert acknowledgements.stable(Known()) is None
