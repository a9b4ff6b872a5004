"""Planted anomalies, which must be found, and small histories against all orders there are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from testkit.checkers.counters import check_counter
from testkit.checkers.history import Fate, History, Operation
from testkit.checkers.linearizability import Counting, Model, Register, Verdict, check_linearizable
from testkit.checkers.sets import check_set


def op(
    call: str,
    argument: object,
    began: float,
    ended: float = math.inf,
    result: object = None,
    *,
    fate: Fate | None = None,
    key: object = None,
) -> Operation:
    known = Fate.UNKNOWN if ended == math.inf else Fate.DONE
    return Operation("c", call, argument, began, ended, result, fate or known, key)


def write(value: object, began: float, ended: float = math.inf) -> Operation:
    return op("write", value, began, ended)


def read(result: object, began: float, ended: float) -> Operation:
    return op("read", None, began, ended, result)


def verdict(*operations: Operation, model: Model | None = None) -> Verdict:
    return check_linearizable(operations, model or Register(0)).verdict


# ---- histories ---------------------------------------------------------------------------------------


def test_a_history_tells_who_did_what_and_what_came_of_it() -> None:
    history = History()
    with history.calling("a", "write", 1) as outer:
        with history.calling("b", "read") as inner:
            inner.done(0)
        outer.done()
    with history.calling("a", "write", 2) as refused:
        refused.not_done()
    with pytest.raises(TimeoutError), history.calling("b", "write", 3, key="k"):
        raise TimeoutError
    first, second, third, fourth = history.operations
    assert (first.began, first.ended, second.began, second.ended) == (0, 3, 1, 2)
    assert (third.fate, fourth.fate, fourth.ended, fourth.key) == (Fate.NOT_DONE, Fate.UNKNOWN, math.inf, "k")
    assert str(history).splitlines() == [
        "a: write(1) -> None",
        "b: read(None) -> 0",
        "a: write(2) (not done, for certain)",
        "b: write(3) (nobody knows)",
    ]


# ---- sets --------------------------------------------------------------------------------------------


def add(element: object, fate: Fate = Fate.DONE) -> Operation:
    return op("add", element, 0, 1, fate=fate)


def test_a_set_that_holds_what_was_added_is_right() -> None:
    found = check_set([add(1), add(2), add(3, Fate.UNKNOWN), add(4, Fate.UNKNOWN)], [1, 2, 4])
    assert found.holds
    assert found.recovered == (4,)


def test_lost_doubled_and_unexpected_elements_are_named() -> None:
    operations = [add(1), add(2), add(3), add(5, Fate.NOT_DONE), add(6, Fate.UNKNOWN), op("read", 7, 0, 1)]
    found = check_set(operations, [2, 3, 3, 4, 5, 6, 6, 7])
    assert not found.holds
    assert (found.lost, found.doubled, found.unexpected) == ((1,), (3, 6), (4, 5, 7))


def test_what_was_added_twice_may_be_there_twice() -> None:
    assert check_set([add(1), add(1)], [1, 1]).holds
    assert check_set([add(1), add(1)], [1]).holds
    assert check_set([add(1), add(1)], [1, 1, 1]).doubled == (1,)


# ---- registers ---------------------------------------------------------------------------------------


def test_what_happens_at_once_may_be_seen_in_any_order() -> None:
    assert verdict(write(1, 0, 10), read(0, 1, 2), read(1, 3, 4)) is Verdict.LINEARIZABLE


@pytest.mark.parametrize(
    "anomaly",
    [
        pytest.param((write(1, 0, 1), read(0, 2, 3)), id="a stale reading"),
        pytest.param((write(1, 0, 10), read(1, 1, 2), read(0, 3, 4)), id="back in time"),
        pytest.param((write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)), id="a lost update"),
        pytest.param((read(7, 0, 1),), id="out of thin air"),
        pytest.param((write(1, 2), read(1, 0, 1)), id="before it was written"),
        pytest.param((op("cas", (0, 1), 0, 10, True), op("cas", (0, 2), 0, 10, True)), id="two winners"),
        pytest.param((op("cas", (0, 1), 0, 1, False),), id="a loser without a winner"),
        pytest.param(
            (write(1, 0, 1), op("write", 2, 2, 3, fate=Fate.NOT_DONE), read(2, 4, 5)), id="done after all"
        ),
        pytest.param(
            (write(1, 0, 9), write(2, 0, 9), read(1, 10, 11), read(2, 12, 13)), id="two last writers"
        ),
    ],
)
def test_anomalies_of_registers_are_found(anomaly: Sequence[Operation]) -> None:
    assert verdict(*anomaly) is Verdict.NOT_LINEARIZABLE


def test_the_states_that_were_looked_at_are_counted() -> None:
    assert check_linearizable([], Register()).tried == 0
    assert check_linearizable([write(1, 0, 1), read(1, 2, 3)], Register()).tried == 2


def test_what_nobody_knows_may_happen_late_or_never() -> None:
    assert verdict(write(1, 0), read(0, 1, 2), read(0, 3, 4)) is Verdict.LINEARIZABLE
    assert verdict(write(1, 0), read(0, 1, 2), read(1, 3, 4)) is Verdict.LINEARIZABLE
    assert verdict(write(1, 0), read(1, 1, 2), read(0, 3, 4)) is Verdict.NOT_LINEARIZABLE
    assert verdict(op("cas", (0, 1), 0), op("read", None, 1), read(1, 2, 3)) is Verdict.LINEARIZABLE


def test_keys_are_searched_apart_and_the_wrong_one_is_named() -> None:
    operations = [
        op("write", 1, 0, 1, key="a"),
        op("write", 2, 2, 3, key="b"),
        op("read", None, 4, 5, 1, key="a"),
        op("read", None, 6, 7, 0, key="b"),
    ]
    finding = check_linearizable(operations, Register(0))
    assert (finding.verdict, finding.key) == (Verdict.NOT_LINEARIZABLE, "b")
    assert finding.stuck == (operations[3],)
    assert str(finding).startswith("not linearizable (key 'b'), after ")
    assert "c: read(None) -> 0" in str(finding)
    assert str(check_linearizable(operations[:3], Register(0))).startswith("linearizable, after ")


def test_unknown_is_said_when_the_time_is_over() -> None:
    # All at once, and no reading fits: every order of every subset would have to be tried.
    crowd = [write(number, 0, 100) for number in range(40)]
    ticks = itertools.count()
    finding = check_linearizable(
        [*crowd, read(-1, 101, 102)], Register(), timeout_s=3, clock=lambda: next(ticks)
    )
    assert finding.verdict is Verdict.UNKNOWN
    assert finding.tried > 0
    assert str(finding).startswith("unknown (key None)")


def test_a_wrong_key_counts_though_another_takes_too_long() -> None:
    crowd = [op("write", number, 0, 100, key="slow") for number in range(40)]
    slow = op("read", None, 101, 102, -1, key="slow")
    wrong = op("read", None, 103, 104, -1, key="wrong")
    ticks = itertools.count()
    finding = check_linearizable([*crowd, slow, wrong], Register(), timeout_s=3, clock=lambda: next(ticks))
    assert (finding.verdict, finding.key) == (Verdict.NOT_LINEARIZABLE, "wrong")


def test_a_long_history_in_order_is_quick() -> None:
    operations = [
        op("write", at, 2 * at, 2 * at + 1) if at % 2 == 0 else read(at - 1, 2 * at, 2 * at + 1)
        for at in range(2000)
    ]
    # How long it takes is for the machine to say; how much is tried is not.
    finding = check_linearizable(operations, Register(), clock=lambda: 0.0)
    assert finding.verdict is Verdict.LINEARIZABLE
    assert finding.tried < 2500


# ---- counters ----------------------------------------------------------------------------------------


def test_readings_within_the_bounds_are_right() -> None:
    operations = [
        op("add", 2, 0, 1),
        op("add", 5, 2, 9),
        op("add", -1, 3),
        *(read(each, 4, 8) for each in (1, 2, 6, 7)),
    ]
    assert check_counter(operations) == []


def test_readings_outside_of_the_bounds_are_told_with_them() -> None:
    operations = [op("add", 2, 0, 1), op("add", 5, 2, 9), op("add", 50, 2, 3, fate=Fate.NOT_DONE)]
    low, high = check_counter([*operations, read(1, 4, 8), read(8, 4, 8), op("read", None, 4)], start=0)
    assert (low.least, low.most) == (high.least, high.most) == (2, 7)
    assert str(low) == "c: read(None) -> 1, but it is at least 2 and at most 7"


def test_a_counter_that_goes_back_is_for_the_search() -> None:
    operations = [op("add", 1, 0, 10), read(1, 1, 2), read(0, 3, 4)]
    assert check_counter(operations) == []
    assert verdict(*operations, model=Counting()) is Verdict.NOT_LINEARIZABLE


# ---- against all orders there are --------------------------------------------------------------------


def explained_by_some_order(operations: Sequence[Operation], model: Model) -> bool:
    """The definition, word for word: some order, of all that was done and of some of what nobody knows."""
    done = [each for each in operations if each.fate is Fate.DONE]
    open_ = [each for each in operations if each.fate is Fate.UNKNOWN]
    return any(
        _explains(order, model)
        for count in range(len(open_) + 1)
        for chosen in itertools.combinations(open_, count)
        for order in itertools.permutations([*done, *chosen])
    )


def _explains(order: Sequence[Operation], model: Model) -> bool:
    if any(later.ended < earlier.began for earlier, later in itertools.combinations(order, 2)):
        return False
    state = model.initial()
    for operation in order:
        is_possible, state = model.apply(state, operation)
        if not is_possible:
            return False
    return True


@st.composite
def histories(draw: st.DrawFn, calls: Sequence[str]) -> list[Operation]:
    count = draw(st.integers(1, 5))
    events = draw(st.permutations([number for number in range(count) for _ in range(2)]))
    times: dict[int, list[int]] = {}
    for at, number in enumerate(events):
        times.setdefault(number, []).append(at)
    value = st.integers(0, 2)
    operations = []
    for began, ended in times.values():
        call = draw(st.sampled_from(calls))
        fate = draw(st.sampled_from([Fate.DONE, Fate.DONE, Fate.DONE, Fate.UNKNOWN, Fate.NOT_DONE]))
        argument = draw(st.tuples(value, value)) if call == "cas" else draw(value)
        result = draw(st.booleans()) if call == "cas" else draw(value) if call == "read" else None
        operations.append(
            op(call, argument, began, math.inf if fate is Fate.UNKNOWN else ended, result, fate=fate)
        )
    return operations


@given(histories(["read", "write", "cas"]))
def test_the_search_agrees_with_the_definition_on_registers(operations: list[Operation]) -> None:
    expected = explained_by_some_order(operations, Register(0))
    event(f"linearizable: {expected}")
    assert (verdict(*operations) is Verdict.LINEARIZABLE) is expected


@given(histories(["read", "add"]))
def test_the_search_agrees_with_the_definition_on_counters_and_bounds_never_contradict(
    operations: list[Operation],
) -> None:
    expected = explained_by_some_order(operations, Counting())
    assert (verdict(*operations, model=Counting()) is Verdict.LINEARIZABLE) is expected
    if expected:
        assert check_counter(operations) == []
