from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from testkit.faults.in_force import FaultsInForce
from testkit.faults.lanes import Arrival, DatagramLane, Signal, StreamLane
from testkit.faults.vocabulary import (
    DOWN,
    UP,
    Bandwidth,
    Blackhole,
    Corruption,
    HalfClose,
    Latency,
    LimitBytes,
    LinkFault,
    Loss,
    Partition,
    Reset,
    Slicing,
    SlowClose,
)


class Lane:
    """A stream lane whose faults and time the test sets."""

    def __init__(self, *faults: LinkFault) -> None:
        self.faults: list[LinkFault] = list(faults)
        self.now_s = 100.0
        self.lane = StreamLane(lambda: self.faults, random.Random(1))

    def push(self, data: bytes) -> None:
        self.lane.push(data, self.now_s)

    def all_arrivals(self) -> list[tuple[float, Arrival]]:
        """Move the time on until nothing is to come; when what came, in seconds after now."""
        began_s = self.now_s
        found = [(0.0, arrival) for arrival in self.lane.arrivals(self.now_s)]
        while (next_s := self.lane.next_s()) is not None:
            self.now_s = max(next_s, self.now_s)
            found += [(round(self.now_s - began_s, 6), arrival) for arrival in self.lane.arrivals(self.now_s)]
        return found


def received(arrivals: Sequence[tuple[float, Arrival]]) -> bytes:
    return b"".join(arrival for _, arrival in arrivals if isinstance(arrival, bytes))


def test_without_faults_bytes_arrive_at_once_and_in_order() -> None:
    lane = Lane()
    lane.push(b"one")
    lane.push(b"two")
    lane.lane.end(lane.now_s)
    assert lane.all_arrivals() == [(0, b"one"), (0, b"two"), (0, Signal.END)]
    assert (lane.lane.given_bytes, lane.lane.waiting_bytes) == (6, 0)


def test_latency_delays_bytes_and_the_end() -> None:
    lane = Lane(Latency(0.25))
    lane.push(b"one")
    lane.lane.end(lane.now_s)
    assert lane.all_arrivals() == [(0.25, b"one"), (0.25, Signal.END)]


def test_latencies_add_up() -> None:
    lane = Lane(Latency(0.25), Latency(0.5))
    lane.push(b"one")
    assert lane.all_arrivals() == [(0.75, b"one")]


def test_jitter_varies_the_delay_and_keeps_the_order() -> None:
    lane = Lane(Latency(0.5, jitter_s=0.4))
    for number in range(20):
        lane.push(bytes([number]))
    arrivals = lane.all_arrivals()
    assert received(arrivals) == bytes(range(20))
    times_s = [at_s for at_s, _ in arrivals]
    assert times_s == sorted(times_s)
    assert 0.1 <= times_s[0] <= times_s[-1] <= 0.9
    assert len(set(times_s)) > 1


def test_bandwidth_spreads_bytes_over_time() -> None:
    lane = Lane(Bandwidth(1000))
    lane.push(bytes(500))
    arrivals = lane.all_arrivals()
    assert received(arrivals) == bytes(500)
    assert arrivals[-1][0] == 0.5
    assert len(arrivals) == 10


def test_time_in_which_nothing_was_sent_is_not_made_up_for() -> None:
    lane = Lane(Bandwidth(100))
    lane.push(b"x")
    lane.all_arrivals()
    lane.now_s += 60
    lane.push(bytes(50))
    assert lane.all_arrivals()[-1][0] == 0.5


def test_without_its_limit_of_bandwidth_all_that_waits_passes() -> None:
    lane = Lane(Bandwidth(1))
    lane.push(bytes(50))
    assert lane.lane.arrivals(lane.now_s) == []
    lane.faults.clear()
    assert received(lane.all_arrivals()) == bytes(50)
    assert lane.now_s == 100


def test_slices_have_their_size_and_pauses() -> None:
    lane = Lane(Slicing(2, pause_s=0.1))
    lane.push(b"abcde")
    assert lane.all_arrivals() == [(0, b"ab"), (0.1, b"cd"), (0.2, b"e")]


def test_corruption_turns_one_bit_of_a_piece() -> None:
    lane = Lane(Corruption())
    lane.push(bytes(8))
    ((_, arrival),) = lane.all_arrivals()
    assert isinstance(arrival, bytes)
    assert int.from_bytes(arrival).bit_count() == 1


def test_corruption_strikes_its_share() -> None:
    lane = Lane(Corruption(share=0.25))
    for _ in range(400):
        lane.push(b"\0")
    struck = sum(arrival != b"\0" for _, arrival in lane.all_arrivals())
    assert 60 < struck < 140


def test_a_partition_holds_until_it_heals() -> None:
    lane = Lane(Partition())
    lane.push(b"one")
    lane.lane.end(lane.now_s)
    assert lane.all_arrivals() == []
    assert lane.lane.waiting_bytes == 3
    lane.faults.clear()
    assert lane.all_arrivals() == [(0, b"one"), (0, Signal.END)]


def test_a_blackhole_swallows_for_ever() -> None:
    lane = Lane(Blackhole())
    lane.push(b"one")
    lane.lane.end(lane.now_s)
    lane.lane.abort(lane.now_s)
    lane.faults.clear()
    assert lane.all_arrivals() == []
    lane.push(b"two")
    assert lane.all_arrivals() == [(0, b"two")]


def test_a_half_close_ends_the_stream_once_after_what_was_sent() -> None:
    lane = Lane()
    lane.push(b"before")
    lane.faults.append(HalfClose())
    lane.push(b"after")
    assert lane.all_arrivals() == [(0, b"before"), (0, Signal.END)]
    lane.faults.clear()
    lane.push(b"later")
    lane.lane.end(lane.now_s)
    assert lane.all_arrivals() == []


def test_a_slow_close_comes_after_the_last_byte() -> None:
    lane = Lane(SlowClose(3))
    lane.push(b"bye")
    lane.lane.end(lane.now_s)
    assert lane.all_arrivals() == [(0, b"bye"), (3, Signal.END)]


@pytest.mark.parametrize(("is_reset", "signal"), [(False, Signal.CUT), (True, Signal.RESET)])
def test_the_limit_is_kept_to_the_byte(is_reset: bool, signal: Signal) -> None:
    lane = Lane(LimitBytes(5, reset=is_reset))
    lane.push(b"abc")
    assert lane.lane.arrivals(lane.now_s) == [b"abc"]
    lane.push(b"defg")
    assert lane.lane.arrivals(lane.now_s) == [b"de", signal]


def test_a_limit_that_has_been_passed_cuts_at_the_next_byte() -> None:
    lane = Lane()
    lane.push(b"abc")
    lane.lane.arrivals(lane.now_s)
    lane.faults.append(LimitBytes(2))
    lane.push(b"d")
    assert lane.lane.arrivals(lane.now_s) == [Signal.CUT]


def test_a_reset_overtakes_what_waits() -> None:
    lane = Lane(Latency(5))
    lane.push(b"late")
    lane.faults.append(Reset())
    assert lane.lane.arrivals(lane.now_s) == [Signal.RESET]


def test_a_reset_of_one_way_is_for_its_receiver() -> None:
    assert Lane(Reset(direction=UP)).lane.arrivals(0) == [Signal.RESET_RECEIVER]


def test_a_reset_of_the_sender_travels_as_bytes_do() -> None:
    lane = Lane(Latency(1))
    lane.push(b"before")
    lane.lane.abort(lane.now_s)
    lane.push(b"after")
    assert lane.all_arrivals() == [(1, b"before"), (1, Signal.RESET_RECEIVER)]


def test_who_ends_his_half_may_still_reset() -> None:
    lane = Lane()
    lane.lane.end(lane.now_s)
    lane.lane.abort(lane.now_s)
    assert lane.lane.arrivals(lane.now_s) == [Signal.END]
    assert lane.lane.arrivals(lane.now_s) == [Signal.RESET_RECEIVER]


# ---- datagrams ---------------------------------------------------------------------------------------


def planned(count: int, *faults: LinkFault, seed: int = 1) -> list[tuple[float, bytes] | None]:
    lane = DatagramLane(lambda _: faults, random.Random(seed))
    return [lane.push(bytes([number]), 10.0) for number in range(count)]


def test_datagrams_arrive_at_once_without_faults() -> None:
    assert planned(2) == [(10, b"\0"), (10, b"\1")]


def test_the_share_of_datagrams_is_lost_and_counted() -> None:
    lane = DatagramLane(lambda _: [Loss(0.3)], random.Random(1))
    arrived = [lane.push(b"x", 0) for _ in range(1000)]
    assert arrived.count(None) == lane.lost
    assert 230 < lane.lost < 370
    assert lane.sent == 1000


@pytest.mark.parametrize("fault", [Partition(), Blackhole(), Loss(1.0)])
def test_datagrams_are_lost_where_nothing_passes(fault: LinkFault) -> None:
    assert planned(3, fault) == [None] * 3


def test_datagrams_overtake_one_another_by_jitter() -> None:
    arrivals = [each[0] for each in planned(20, Latency(1, jitter_s=1)) if each is not None]
    assert any(one > other for one, other in pairwise(arrivals))


def test_datagrams_queue_for_bandwidth() -> None:
    assert [each and each[0] for each in planned(3, Bandwidth(2))] == [10.5, 11.0, 11.5]


def test_the_same_seed_draws_the_same() -> None:
    faults = (Loss(0.5), Latency(1, jitter_s=1), Corruption(share=0.5))
    assert planned(50, *faults, seed=3) == planned(50, *faults, seed=3)
    assert planned(50, *faults, seed=3) != planned(50, *faults, seed=4)


# ---- who is struck -----------------------------------------------------------------------------------


def test_a_fault_strikes_its_direction_alone() -> None:
    faults = FaultsInForce(1)
    faults.add(Latency(1, direction=UP))
    faults.add(Latency(2))
    assert faults.striking(1, UP) == [Latency(1, direction=UP), Latency(2)]
    assert faults.view(1, DOWN)() == [Latency(2)]
    assert list(faults) == [Latency(1, direction=UP), Latency(2)]


def test_probability_strikes_connections_by_the_seed_whoever_asks_first() -> None:
    def struck(seed: int, order: Sequence[int]) -> set[int]:
        faults = FaultsInForce(seed)
        faults.add(Blackhole(probability=0.3))
        return {number for number in order if faults.striking(number, UP)}

    forward = struck(1, range(1000))
    assert forward == struck(1, range(999, -1, -1))
    assert forward != struck(2, range(1000))
    assert 230 < len(forward) < 370


def test_what_strikes_a_connection_strikes_it_both_ways_and_until_it_ends() -> None:
    faults = FaultsInForce(1)
    number = faults.add(Blackhole(probability=0.5))
    for connection in range(50):
        assert len({bool(faults.striking(connection, way)) for way in (UP, DOWN, UP)}) == 1
    faults.remove(number)
    assert not any(faults.striking(connection, UP) for connection in range(50))
    with pytest.raises(KeyError):
        faults.remove(number)


def test_the_last_of_a_kind_is_found() -> None:
    faults = FaultsInForce(1)
    assert faults.find(Latency, 1) is None
    faults.add(Latency(1))
    faults.add(Latency(2))
    assert faults.find(Latency, 1) == Latency(2)
