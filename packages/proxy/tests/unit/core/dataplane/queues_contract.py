"""What waiting in line relies on in whoever implements ``Queues``: the fake and the shared segment alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from edgeproxy.core.dataplane.waiting import HUNG_S, Queues

MakeQueues = Callable[[int], Sequence[Queues]]
"""Makes the views of so many workers on one new POP."""

APP, OTHER_APP = 7, 8


def check_the_length_is_limited_over_all_workers(make_queues: MakeQueues) -> None:
    one, other = make_queues(2)
    assert one.join(2)
    assert other.join(2)
    assert not one.join(2)
    other.leave()
    assert one.join(2)
    assert not other.join(2)


def check_a_worker_sees_the_oldest_of_the_others(make_queues: MakeQueues) -> None:
    one, other, third = make_queues(3)
    for view, since_s in ((one, 5.0), (other, 4.0), (third, 6.0)):
        view.looked(10.0)
        view.publish(APP, since_s)
    assert one.oldest_elsewhere(APP, 10.0) == 4.0
    assert other.oldest_elsewhere(APP, 10.0) == 5.0
    assert one.oldest_elsewhere(OTHER_APP, 10.0) == inf


def check_who_waits_no_more_is_seen_no_more(make_queues: MakeQueues) -> None:
    one, other = make_queues(2)
    other.looked(10.0)
    other.publish(APP, 4.0)
    other.publish(OTHER_APP, 5.0)
    other.publish(APP, None)
    assert one.oldest_elsewhere(APP, 10.0) == inf
    assert one.oldest_elsewhere(OTHER_APP, 10.0) == 5.0
    other.publish(OTHER_APP, None)
    other.publish(APP, 9.0)
    assert one.oldest_elsewhere(APP, 10.0) == 9.0
    assert one.oldest_elsewhere(OTHER_APP, 10.0) == inf


def check_who_has_not_looked_for_long_is_not_waited_for(make_queues: MakeQueues) -> None:
    one, other = make_queues(2)
    other.looked(10.0)
    other.publish(APP, 4.0)
    assert one.oldest_elsewhere(APP, 10.0 + HUNG_S / 2) == 4.0
    assert one.oldest_elsewhere(APP, 10.0 + HUNG_S * 1.1) == inf
    other.looked(11.0)
    assert one.oldest_elsewhere(APP, 11.0) == 4.0


CHECKS = (
    check_the_length_is_limited_over_all_workers,
    check_a_worker_sees_the_oldest_of_the_others,
    check_who_waits_no_more_is_seen_no_more,
    check_who_has_not_looked_for_long_is_not_waited_for,
)
