"""What every membership service of the SWIM kind must do: who is there, found out by asking one another.

Members ask each other whether they are there. Who does not answer is *suspect*, and *dead* when it has not
said otherwise in time; who goes by its own will has *left*. All that is known of one member comes to all.

Time is counted in *intervals*, in each of which a member asks one other. How long they are is the
implementation's affair, and so is whether they are real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import permutations
from random import Random
from typing import Protocol

from testkit.contracts.contract import Contract, needs


class State(StrEnum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


class MembershipHarness(Protocol):
    """What a test must know of an implementation. Begins with nobody; all messages pass."""

    quiet_messages: float
    """How many messages a member may send in an interval, on average, while nothing happens."""

    async def start(self, name: str) -> None:
        """Start a member that knows how to reach the first one ever started.

        One that was started before comes back without memory, and with the clock of its machine set back.
        """
        ...

    async def kill(self, name: str) -> None:
        """End it without a word."""
        ...

    async def leave(self, name: str) -> None:
        """Let it take leave, and end it."""
        ...

    def view(self, name: str) -> Mapping[str, State]:
        """What it knows of others; of who is dead or has left it may have forgotten."""
        ...

    def told(self, name: str) -> Sequence[tuple[str, State]]:
        """What it has told its listeners so far since it was started: who came into which state."""
        ...

    def cut(self, source: str, to: str) -> None:
        """Let no message pass from one to the other; the other way stays as it is."""
        ...

    def heal(self) -> None:
        """Let all messages pass."""
        ...

    def lose(self, share: float) -> None:
        """Lose this share of all messages, from now on."""
        ...

    def messages(self) -> int:
        """How many all members together have sent so far."""
        ...

    async def pass_intervals(self, intervals: float) -> None:
        """Let so many intervals pass."""
        ...


FOUND_INTERVALS = 60
"""Within these whatever has happened is known to all."""
QUIET_INTERVALS = 25
_STEP = 0.5
SEED = 20_240_257
"""Draws a story in which members are killed, leave and come back, amid partitions."""


class MembershipContract(
    Contract,
    contract="membership",
    capabilities={
        "punctual": "intervals pass evenly, so that nobody is suspected, and nothing told, for no reason",
        "loss": "a share of the messages can be lost",
    },
):
    """Subclass it and define the fixture ``harness``, or call :func:`~testkit.contracts.checking.check`."""

    # ---- who joins ---------------------------------------------------------------------------------

    async def test_member_that_is_alone_knows_nobody(self, harness: MembershipHarness) -> None:
        await harness.start("a")
        await harness.pass_intervals(3)
        assert alive(harness, "a") == set()
        assert list(harness.told("a")) == []

    async def test_members_that_know_one_of_them_find_all(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcdef")

    async def test_newcomer_is_told_of_once(self, harness: MembershipHarness) -> None:
        await joined(harness, "abc")
        await harness.start("d")
        await until_agreed(harness, "abcd")
        await harness.pass_intervals(10)
        for name in "abc":
            assert states_told(harness, name, "d").count(State.ALIVE) == 1, name

    async def test_newcomer_does_not_take_the_dead_for_alive(self, harness: MembershipHarness) -> None:
        await joined(harness, "abc")
        await harness.kill("c")
        await until_gone(harness, "ab", "c")
        await harness.start("d")
        await until_agreed(harness, "abd")
        assert State.ALIVE not in states_told(harness, "d", "c")

    # ---- who fails ---------------------------------------------------------------------------------

    async def test_failure_is_found_and_told_to_all(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcde")
        await harness.kill("c")
        await until_agreed(harness, "abde")
        await until_gone(harness, "abde", "c")
        for name in "abde":
            assert states_told(harness, name, "c")[-1] is State.DEAD, name

    async def test_failure_is_a_suspicion_first(self, harness: MembershipHarness) -> None:
        await joined(harness, "abc")
        await harness.kill("c")
        await until_gone(harness, "ab", "c")
        for name in "ab":
            assert states_told(harness, name, "c")[-2:] == [State.SUSPECT, State.DEAD], name

    async def test_several_failures_at_once_are_found(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcdef")
        for name in "bcd":
            await harness.kill(name)
        await until_agreed(harness, "aef")

    async def test_failure_of_the_first_member_is_found(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        await harness.kill("a")
        await until_agreed(harness, "bcd")

    async def test_dead_member_stays_dead(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        await harness.kill("c")
        await until_agreed(harness, "abd")
        await harness.pass_intervals(QUIET_INTERVALS)
        for name in "abd":
            assert states_told(harness, name, "c").count(State.DEAD) == 1, name
            assert "c" not in alive(harness, name)

    # ---- suspicions --------------------------------------------------------------------------------

    async def test_suspicion_is_refuted(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        for other in "abd":
            harness.cut("c", other)
            harness.cut(other, "c")
        await eventually(
            harness, lambda: any(State.SUSPECT in states_told(harness, name, "c") for name in "abd")
        )
        harness.heal()
        await until_agreed(harness, "abcd")
        await harness.pass_intervals(QUIET_INTERVALS)
        for name in "abd":
            assert State.DEAD not in states_told(harness, name, "c"), name
            assert states_told(harness, name, "c")[-1] is State.ALIVE, name
        await until_agreed(harness, "abcd")

    async def test_suspicion_can_be_refuted_time_and_again(self, harness: MembershipHarness) -> None:
        await joined(harness, "abc")
        for _ in range(3):
            for other in "ab":
                harness.cut("c", other)
            await eventually(harness, lambda: harness.view("a")["c"] is State.SUSPECT)
            harness.heal()
            await until_agreed(harness, "abc")
        assert State.DEAD not in states_told(harness, "a", "c")

    async def test_path_that_fails_both_ways_makes_nobody_dead(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        harness.cut("a", "b")
        harness.cut("b", "a")
        await harness.pass_intervals(2 * QUIET_INTERVALS)
        await until_agreed(harness, "abcd")
        assert_nobody_died(harness, "abcd")

    async def test_path_that_fails_one_way_makes_nobody_dead(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        harness.cut("b", "c")
        await harness.pass_intervals(2 * QUIET_INTERVALS)
        await until_agreed(harness, "abcd")
        assert_nobody_died(harness, "abcd")

    @needs("punctual")
    async def test_path_that_fails_is_gone_round(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        before = {name: list(harness.told(name)) for name in "abcd"}
        harness.cut("a", "b")
        harness.cut("b", "a")
        harness.cut("c", "d")
        await harness.pass_intervals(2 * QUIET_INTERVALS)
        assert {name: list(harness.told(name)) for name in "abcd"} == before, "others could ask"

    # ---- who leaves --------------------------------------------------------------------------------

    async def test_who_leaves_has_left_for_all(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        await harness.leave("c")
        await until_agreed(harness, "abd")
        await harness.pass_intervals(QUIET_INTERVALS)
        for name in "abd":
            assert states_told(harness, name, "c")[-1] is State.LEFT, name
            assert State.DEAD not in states_told(harness, name, "c"), name

    # ---- who comes back ----------------------------------------------------------------------------

    async def test_dead_member_that_comes_back_is_alive(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        await harness.kill("c")
        await until_gone(harness, "abd", "c")
        await harness.start("c")
        await until_agreed(harness, "abcd")
        await harness.pass_intervals(QUIET_INTERVALS)
        await until_agreed(harness, "abcd")
        for name in "abd":
            assert states_told(harness, name, "c")[-1] is State.ALIVE, name

    async def test_member_that_left_can_come_back(self, harness: MembershipHarness) -> None:
        await joined(harness, "abc")
        await harness.leave("c")
        await until_agreed(harness, "ab")
        await harness.start("c")
        await until_agreed(harness, "abc")

    async def test_member_that_comes_back_can_fail_again(self, harness: MembershipHarness) -> None:
        await joined(harness, "abc")
        for _ in range(2):
            await harness.kill("c")
            await until_gone(harness, "ab", "c")
            await harness.start("c")
            await until_agreed(harness, "abc")
        assert states_told(harness, "a", "c").count(State.DEAD) == 2

    async def test_member_that_comes_back_before_it_is_missed_stays(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        await harness.kill("c")
        await harness.start("c")
        await until_agreed(harness, "abcd")
        await harness.pass_intervals(QUIET_INTERVALS)
        await until_agreed(harness, "abcd")
        assert_nobody_died(harness, "abd")

    # ---- partitions --------------------------------------------------------------------------------

    async def test_halves_that_are_parted_miss_each_other_and_no_more(
        self, harness: MembershipHarness
    ) -> None:
        await joined(harness, "abcdef")
        part(harness, "abc", "def")
        await until_agreed(harness, "abc")
        await until_agreed(harness, "def")

    async def test_halves_find_together_when_the_partition_is_over(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcdef")
        part(harness, "abc", "def")
        await until_agreed(harness, "abc")
        await until_agreed(harness, "def")
        await harness.pass_intervals(5)
        harness.heal()
        await until_agreed(harness, "abcdef")
        await harness.pass_intervals(QUIET_INTERVALS)
        await until_agreed(harness, "abcdef")

    async def test_member_that_was_cut_off_is_taken_back(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcd")
        part(harness, "abc", "d")
        await until_gone(harness, "abc", "d")
        await harness.pass_intervals(5)
        harness.heal()
        await until_agreed(harness, "abcd")

    @needs("loss")
    async def test_loss_hides_no_failure(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcdef")
        harness.lose(0.25)
        await harness.kill("c")
        await until_gone(harness, "abdef", "c")
        harness.lose(0.0)
        await until_agreed(harness, "abdef")

    async def test_views_come_together_whatever_happened(self, harness: MembershipHarness) -> None:
        rng, names = Random(SEED), "abcdef"
        living = [*names]
        await joined(harness, names)
        for _ in range(8):
            victims = [each for each in living if each != "a"]
            match rng.choice(["kill", "leave", "start", "part", "heal"]):
                case "kill" if len(living) > 2:
                    await harness.kill(gone := rng.choice(victims))
                    living.remove(gone)
                case "leave" if len(living) > 2:
                    await harness.leave(gone := rng.choice(victims))
                    living.remove(gone)
                case "start" if len(living) < len(names):
                    await harness.start(back := rng.choice([each for each in names if each not in living]))
                    living.append(back)
                case "part":
                    half = rng.sample(names, 3)
                    part(harness, half, [each for each in names if each not in half])
                case _:
                    harness.heal()
            await harness.pass_intervals(rng.uniform(0, 12))
        harness.heal()
        await until_agreed(harness, living)
        await harness.pass_intervals(QUIET_INTERVALS)
        await until_agreed(harness, living)

    # ---- what it costs -----------------------------------------------------------------------------

    @needs("punctual")
    async def test_nothing_is_told_while_nothing_happens(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcdef")
        await harness.pass_intervals(QUIET_INTERVALS)
        before = {name: list(harness.told(name)) for name in "abcdef"}
        await harness.pass_intervals(4 * QUIET_INTERVALS)
        assert {name: list(harness.told(name)) for name in "abcdef"} == before

    @needs("punctual")
    async def test_messages_are_bounded_while_nothing_happens(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcdef")
        await harness.pass_intervals(QUIET_INTERVALS)
        assert await messages_each(harness, 6) <= harness.quiet_messages

    @needs("punctual")
    async def test_messages_do_not_grow_with_the_number_of_members(self, harness: MembershipHarness) -> None:
        await joined(harness, "abcdefghijkl")
        await harness.pass_intervals(QUIET_INTERVALS)
        assert await messages_each(harness, 12) <= harness.quiet_messages

    @needs("punctual")
    async def test_messages_are_as_few_again_when_what_happened_is_known(
        self, harness: MembershipHarness
    ) -> None:
        await joined(harness, "abcdef")
        await harness.kill("c")
        await until_gone(harness, "abdef", "c")
        await harness.leave("d")
        await until_agreed(harness, "abef")
        await harness.pass_intervals(QUIET_INTERVALS)
        assert await messages_each(harness, 4) <= harness.quiet_messages


# ---- steps -----------------------------------------------------------------------------------------------


async def joined(harness: MembershipHarness, names: Sequence[str]) -> None:
    """Have these members, and let them find each other."""
    for name in names:
        await harness.start(name)
    await until_agreed(harness, names)


def part(harness: MembershipHarness, half: Sequence[str], other: Sequence[str]) -> None:
    """Let nothing pass between the two."""
    for one in half:
        for two in other:
            harness.cut(one, two)
            harness.cut(two, one)


def alive(harness: MembershipHarness, name: str) -> set[str]:
    """Whom it takes to be there."""
    return {each for each, state in harness.view(name).items() if state in (State.ALIVE, State.SUSPECT)}


def states_told(harness: MembershipHarness, name: str, about: str) -> list[State]:
    """What it has told of one other."""
    return [state for each, state in harness.told(name) if each == about]


def assert_nobody_died(harness: MembershipHarness, names: Sequence[str]) -> None:
    """None of them has told so of another."""
    for name, other in permutations(names, 2):
        assert State.DEAD not in states_told(harness, name, other), f"{name} took {other} for dead"


async def eventually(harness: MembershipHarness, condition: Callable[[], bool]) -> None:
    """Let time pass until it is so.

    Raises:
        AssertionError: it is not in time.
    """
    for _ in range(int(FOUND_INTERVALS / _STEP)):
        if condition():
            return
        await harness.pass_intervals(_STEP)
    assert condition(), f"not so after {FOUND_INTERVALS} intervals"


async def until_agreed(harness: MembershipHarness, names: Sequence[str]) -> None:
    """Let time pass until these see each other, nobody else, and nobody suspects anybody."""

    def agreed() -> bool:
        for name in names:
            view = harness.view(name)
            there = {each for each, state in view.items() if state is State.ALIVE}
            if there != {*names} - {name} or State.SUSPECT in view.values():
                return False
        return True

    try:
        await eventually(harness, agreed)
    except AssertionError:
        views = {name: dict(harness.view(name)) for name in names}
        raise AssertionError(f"{names!r} do not agree after {FOUND_INTERVALS} intervals: {views}") from None


async def until_gone(harness: MembershipHarness, names: Sequence[str], gone: str) -> None:
    """Let time pass until all of them take one for gone."""
    await eventually(harness, lambda: all(gone not in alive(harness, name) for name in names))


async def messages_each(harness: MembershipHarness, members: int) -> float:
    """How many a member sends in an interval."""
    before = harness.messages()
    await harness.pass_intervals(QUIET_INTERVALS)
    return (harness.messages() - before) / members / QUIET_INTERVALS
