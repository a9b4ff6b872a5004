"""Members with a known bug."""

from __future__ import annotations

from testkit.contracts.membership import MembershipContract, State
from testkit.contracts.planted import PlantedBugs, Suite
from testkit.contracts.references.membership import Claim, Kind, Known, MemoryMember, MemoryNetwork, Message

Contract = MembershipContract
BUGS = PlantedBugs(Contract, MemoryNetwork)


@BUGS.caught_by(
    Contract.test_failure_is_found_and_told_to_all, Contract.test_failure_of_the_first_member_is_found
)
class SuspectsNobody(MemoryMember):
    def give_up(self) -> None:
        self.asked = ""


@BUGS.caught_by(Contract.test_failure_is_found_and_told_to_all, Contract.test_dead_member_stays_dead)
class SuspectsForEver(MemoryMember):
    def judge(self) -> None:
        pass


@BUGS.caught_by(Contract.test_failure_is_a_suspicion_first, Contract.test_suspicion_is_refuted)
class DeclaresDeadAtOnce(MemoryMember):
    def learn(self, claim: Claim) -> None:
        super().learn(claim._replace(state=State.DEAD) if claim.state is State.SUSPECT else claim)


@BUGS.caught_by(Contract.test_suspicion_is_refuted, Contract.test_dead_member_that_comes_back_is_alive)
class RefutesNothing(MemoryMember):
    def hear_of_myself(self, claim: Claim) -> None:
        pass


@BUGS.caught_by(Contract.test_suspicion_is_refuted)
class RefutesWithTheSameIncarnation(MemoryMember):
    def hear_of_myself(self, claim: Claim) -> None:
        self.me = self.me._replace(incarnation=max(claim.incarnation, self.me.incarnation))


@BUGS.caught_by(Contract.test_suspicion_can_be_refuted_time_and_again)
class RefutesOnce(MemoryMember):
    def hear_of_myself(self, claim: Claim) -> None:
        if self.me.incarnation < 2:
            super().hear_of_myself(claim)


@BUGS.caught_by(
    Contract.test_dead_member_that_comes_back_is_alive, Contract.test_member_that_left_can_come_back
)
class TakesNobodyBack(MemoryMember):
    def learn(self, claim: Claim) -> None:
        known = self.known.get(claim.name)
        if known is None or known.claim.state not in (State.DEAD, State.LEFT):
            super().learn(claim)


@BUGS.caught_by(Contract.test_path_that_fails_is_gone_round)
class AsksThroughNobody(MemoryMember):
    def ask_through_others(self, name: str) -> None:
        pass


@BUGS.caught_by(
    Contract.test_path_that_fails_both_ways_makes_nobody_dead,
    Contract.test_path_that_fails_one_way_makes_nobody_dead,
)
class BelievesOnlyItself(MemoryMember):
    def ask_through_others(self, name: str) -> None:
        pass

    def learn(self, claim: Claim) -> None:
        # What one that is suspect says comes by way of others, too.
        known = self.known.get(claim.name)
        if known is None or known.claim.state is not State.SUSPECT or claim.state is not State.ALIVE:
            super().learn(claim)


@BUGS.caught_by(Contract.test_members_that_know_one_of_them_find_all)
class TellsOnlyOfItself(MemoryMember):
    def claims(self) -> list[Claim]:
        return [self.me]


@BUGS.caught_by(Contract.test_who_leaves_has_left_for_all)
class LeavesWithoutAWord(MemoryMember):
    def leave(self) -> None:
        pass


@BUGS.caught_by(Contract.test_who_leaves_has_left_for_all)
class TakesLeavingForDying(MemoryMember):
    def learn(self, claim: Claim) -> None:
        super().learn(claim._replace(state=State.DEAD) if claim.state is State.LEFT else claim)


@BUGS.caught_by(Contract.test_dead_member_stays_dead, Contract.test_failure_is_found_and_told_to_all)
class BelievesWhoeverSpokeLast(MemoryMember):
    def learn(self, claim: Claim) -> None:
        known = self.known.get(claim.name)
        if known is not None:
            known.claim = claim._replace(incarnation=-1, state=known.claim.state)
        super().learn(claim)


@BUGS.caught_by(Contract.test_newcomer_does_not_take_the_dead_for_alive)
class TakesWhoeverIsNamedForAlive(MemoryMember):
    def learn(self, claim: Claim) -> None:
        if claim.name not in self.known and claim.name != self.me.name:
            self.known[claim.name] = Known(claim._replace(state=State.ALIVE))
            self.told.append((claim.name, State.ALIVE))
        super().learn(claim)


@BUGS.caught_by(
    Contract.test_halves_find_together_when_the_partition_is_over,
    Contract.test_member_that_was_cut_off_is_taken_back,
)
class AsksTheDeadNoMore(MemoryMember):
    def next_one(self) -> str:
        name = super().next_one()
        return "" if name in self.those(State.DEAD) or (name not in self.known and self.known) else name


@BUGS.caught_by(Contract.test_newcomer_is_told_of_once, Contract.test_nothing_is_told_while_nothing_happens)
class TellsWhateverItHears(MemoryMember):
    def learn(self, claim: Claim) -> None:
        super().learn(claim)
        if claim.name in self.known:
            self.told.append((claim.name, self.known[claim.name].claim.state))


@BUGS.caught_by(Contract.test_nothing_is_told_while_nothing_happens)
class LosesPatienceNowAndThen(MemoryMember):
    def half(self) -> None:
        super().half()
        if self.count % 99 == 0 and self.known:
            self.asked = next(iter(self.known))
            self.give_up()


@BUGS.caught_by(
    Contract.test_messages_do_not_grow_with_the_number_of_members,
    Contract.test_messages_are_bounded_while_nothing_happens,
)
class AsksEverybodyAtOnce(MemoryMember):
    def ask(self, name: str) -> None:
        for each in self.those(State.ALIVE, State.SUSPECT) or [name]:
            super().ask(each)


@BUGS.caught_by(Contract.test_messages_are_as_few_again_when_what_happened_is_known)
class AsksEachOfTheDeadForEver(MemoryMember):
    def half(self) -> None:
        super().half()
        for name in self.those(State.DEAD, State.LEFT):
            self.send(name, Kind(self.me.name, name))


@BUGS.caught_by(Contract.test_failure_of_the_first_member_is_found)
class NeedsTheFirstMember(MemoryMember):
    def receive(self, message: Message) -> None:
        if self.first in (self.me.name, *self.those(State.ALIVE)) or not self.known:
            super().receive(message)


SUITE = Suite(
    Contract, "testkit.contracts.references.membership:MemoryNetwork", BUGS, mutate=["Claim", "MemoryMember"]
)
