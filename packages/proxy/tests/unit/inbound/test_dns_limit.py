from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.inbound.dns_limit import QueryLimit, Verdict

CLIENT, OTHER = 1, 2


def answered(limit: QueryLimit, client: int, now_s: float, queries: int) -> int:
    return sum(limit.judge(client, now_s) is Verdict.ANSWER for _ in range(queries))


def test_a_seconds_worth_may_come_at_once() -> None:
    assert answered(QueryLimit(10), CLIENT, 5.0, 50) == 10


def test_a_limit_of_one_lets_one_through() -> None:
    limit = QueryLimit(1)
    assert answered(limit, CLIENT, 5.0, 3) == 1
    assert answered(limit, CLIENT, 5.9, 3) == 0
    assert answered(limit, CLIENT, 6.0, 3) == 1


def test_the_allowance_comes_back_evenly() -> None:
    limit = QueryLimit(10)
    assert answered(limit, CLIENT, 0.0, 10) == 10
    assert [answered(limit, CLIENT, tenth / 10, 5) for tenth in range(1, 6)] == [1, 1, 1, 1, 1]


def test_silence_saves_up_no_more_than_a_second() -> None:
    limit = QueryLimit(10)
    answered(limit, CLIENT, 0.0, 10)
    assert answered(limit, CLIENT, 100.0, 50) == 10


def test_clients_do_not_share_an_allowance() -> None:
    limit = QueryLimit(10)
    answered(limit, CLIENT, 0.0, 50)
    assert answered(limit, OTHER, 0.0, 50) == 10


def test_0_is_no_limit() -> None:
    limit = QueryLimit(0)
    assert answered(limit, CLIENT, 0.0, 1000) == 1000
    assert limit.delay_s(CLIENT, 0.0) == 0.0


def test_what_is_too_much_is_truncated_and_dropped_in_turn() -> None:
    limit = QueryLimit(1)
    verdicts = Counter(limit.judge(CLIENT, 0.0) for _ in range(9))
    assert verdicts == {Verdict.ANSWER: 1, Verdict.TRUNCATE: 4, Verdict.DROP: 4}


def test_on_a_stream_the_excess_has_to_wait_its_turn() -> None:
    limit = QueryLimit(10)
    assert [limit.delay_s(CLIENT, 0.0) for _ in range(10)] == [0.0] * 10
    delays = [round(limit.delay_s(CLIENT, 0.0), 6) for _ in range(3)]
    assert delays == [0.1, 0.2, 0.3]


def test_who_waited_may_go_on_at_the_rate() -> None:
    limit = QueryLimit(10)
    for _ in range(11):
        limit.delay_s(CLIENT, 0.0)
    assert round(limit.delay_s(CLIENT, 0.1), 6) == 0.1


@given(
    st.integers(1, 50),
    st.lists(st.floats(0, 0.5), max_size=200),
)
def test_no_client_gets_more_than_its_rate_and_one_second_of_it(
    per_second: int, pauses_s: list[float]
) -> None:
    limit = QueryLimit(per_second)
    now_s = 0.0
    times_s = []
    for pause_s in pauses_s:
        now_s += pause_s
        if limit.judge(CLIENT, now_s) is Verdict.ANSWER:
            times_s.append(now_s)
    for first, start_s in enumerate(times_s):
        for last in range(first, len(times_s)):
            assert last - first + 1 <= per_second * (1 + times_s[last] - start_s) + 1e-6


def test_among_too_many_clients_those_with_their_whole_allowance_are_forgotten() -> None:
    limit = QueryLimit(1, max_clients=2)
    limit.judge(CLIENT, 0.0)
    limit.judge(OTHER, 9.5)
    limit.judge(3, 10.0)
    assert answered(limit, OTHER, 10.0, 1) == 0
    assert answered(limit, 3, 10.0, 1) == 0


def test_among_too_many_busy_clients_the_one_known_longest_is_forgotten() -> None:
    limit = QueryLimit(1, max_clients=2)
    for client in (CLIENT, OTHER, 3):
        limit.judge(client, 0.0)
    assert answered(limit, OTHER, 0.0, 1) == 0
    assert answered(limit, 3, 0.0, 1) == 0
    assert answered(limit, CLIENT, 0.0, 1) == 1
