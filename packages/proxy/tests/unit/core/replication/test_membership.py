"""One node, fact by fact: what it sends, what it tells, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

import msgspec
import pytest

from edgeproxy.core.replication.members import MAX_INCARNATION, Claim, Endpoint, Happened, State
from edgeproxy.core.replication.membership import (
    ANSWERED_SYNCS,
    FAREWELL_BEATS,
    Changed,
    FindSeeds,
    Membership,
    NameTaken,
    Output,
    Send,
)
from edgeproxy.core.replication.news import size_of
from edgeproxy.core.replication.probing import MAX_RELAYED
from edgeproxy.core.wire.gossip_datagrams import (
    Ack,
    DatagramError,
    Gossip,
    Message,
    Ping,
    PingRequest,
    Refusal,
    Sync,
    decode,
    encode,
)
from packages.proxy.tests.unit.core.replication.gossiping import PAYLOAD_BYTES, claim, endpoint

pytestmark = pytest.mark.feature("replication.membership")

DRAWS = (0.3, 0.8, 0.1, 0.6)
ELSEWHERE = Endpoint("198.51.100.9", 999)


class Node:
    """The machine of a node called m, and a clock."""

    def __init__(
        self,
        *others: str,
        interval_s: float = 1.0,
        draws: Iterable[float] = DRAWS,
        payload_bytes: int = PAYLOAD_BYTES,
    ) -> None:
        drawn = cycle(draws)
        self.now_s = 100.0
        self.me = claim("m", incarnation=5, run=55, number=0)
        self.machine = Membership(
            self.me, interval_s, payload_bytes, lambda: next(drawn), self.now_s, 600.0 * interval_s
        )
        for number, node in enumerate(others, 1):
            self.hear(Gossip(claim(node, number=number), ()))

    def hear(self, message: Message, source: Endpoint = ELSEWHERE) -> list[Output]:
        return self.machine.receive(encode(message), source, self.now_s)

    def beats(self, until_s: float) -> list[Output]:
        """Everything that comes of time passing."""
        found: list[Output] = []
        while self.machine.next_s() <= until_s:
            self.now_s = self.machine.next_s()
            found += self.machine.tick(self.now_s)
        self.now_s = until_s
        return found

    def state(self, node: str) -> State:
        member = self.machine.members.get(node)
        assert member is not None
        return member.claim.state


def sent(outputs: Iterable[Output], kind: type[Message] | None = None) -> list[tuple[Endpoint, Message]]:
    found = [(each.to, decode(each.payload)) for each in outputs if isinstance(each, Send)]
    return [(to, message) for to, message in found if kind is None or isinstance(message, kind)]


def told(outputs: Iterable[Output]) -> list[tuple[str, Happened]]:
    return [(each.claim.node, each.happened) for each in outputs if isinstance(each, Changed)]


def test_whoever_says_something_is_a_member() -> None:
    node = Node()
    assert told(node.hear(Gossip(claim("a"), (claim("b", number=2),)))) == [
        ("a", Happened.UP),
        ("b", Happened.UP),
    ]


def test_a_question_is_answered_to_where_it_came_from() -> None:
    node = Node("a")
    ((to, answer),) = sent(node.hear(Ping(claim("a"), (), 7, "m")))
    assert to == ELSEWHERE
    assert isinstance(answer, Ack)
    assert (answer.me, answer.sequence, answer.subject) == (node.me, 7, "m")


def test_a_question_for_another_node_is_not_answered() -> None:
    node = Node("a")
    assert sent(node.hear(Ping(claim("a"), (), 7, "x"))) == []
    assert node.machine.refused[Refusal.MISDIRECTED] == 1


def test_a_silent_member_is_asked_through_others_then_suspect_then_dead() -> None:
    node = Node("a", "b", "c", "d", "e")
    asked = node.beats(100.0)
    ((to, ping),) = sent(asked, Ping)
    assert isinstance(ping, Ping)
    assert to == endpoint(int("_abcde".index(ping.target)))
    requests = sent(node.beats(100.5), PingRequest)
    assert len(requests) == 3
    for _, request in requests:
        assert isinstance(request, PingRequest)
        assert (request.sequence, request.target, request.address) == (ping.sequence, ping.target, to)
        assert request.news[0].node == ping.target
    others = [each for each in "abcde" if each != ping.target]
    outputs: list[Output] = []
    while (ping.target, Happened.DEAD) not in told(outputs):
        for each, message in sent(outputs := node.beats(node.now_s + 0.25), Ping):
            assert isinstance(message, Ping)
            if message.target in others:
                node.hear(Ack(claim(message.target, number=int("_abcde".index(message.target))), (),
                              message.sequence, message.target), each)  # fmt: skip
        if (ping.target, Happened.SUSPECT) in told(outputs):
            assert node.now_s == 101.5
        assert node.now_s < 120.0
    assert 106.5 <= node.now_s <= 116.5, "five intervals later, or more if it doubts itself"
    assert {node.state(each) for each in others} == {State.ALIVE}


def test_an_answer_through_others_counts() -> None:
    node = Node("a", "b")
    ((_, ping),) = sent(node.beats(100.0), Ping)
    assert isinstance(ping, Ping)
    helper = next(each for each in "ab" if each != ping.target)
    node.hear(Ack(claim(helper, number=int("_ab".index(helper))), (), ping.sequence, ping.target))
    assert (ping.target, Happened.SUSPECT) not in told(node.beats(101.6))


def test_a_request_is_passed_on_and_so_is_the_answer() -> None:
    node = Node("a", "b")
    request = PingRequest(claim("a"), (), 77, "b", endpoint(2))
    ((to, ping),) = sent(node.hear(request))
    assert isinstance(ping, Ping)
    assert (to, ping.target) == (endpoint(2), "b")
    refuted = claim("b", incarnation=9, number=2)
    ((to, ack),) = sent(node.hear(Ack(refuted, (), ping.sequence, "b")))
    assert isinstance(ack, Ack)
    assert (to, ack.sequence, ack.subject, ack.me.node) == (ELSEWHERE, 77, "b", "m")
    assert ack.news[0] == refuted, "what it says of itself"
    assert node.hear(Ack(refuted, (), ping.sequence, "b")) == []


def test_requests_are_bounded() -> None:
    node = Node("a")
    request = PingRequest(claim("a"), (), 77, "b", endpoint(2))
    assert [len(sent(node.hear(request), Ping)) for _ in range(MAX_RELAYED + 2)] == [1] * MAX_RELAYED + [0, 0]
    assert node.machine.refused[Refusal.TOO_MANY] == 2


def test_who_is_forgotten_while_being_asked_is_not_asked_for() -> None:
    node = Node("a")
    node.beats(100.0)
    node.hear(Gossip(claim("a", State.LEFT), ()))
    node.machine.members.forget(node.now_s)
    assert sent(node.beats(102.0), PingRequest) == []


def test_an_answer_that_nobody_waits_for_is_counted() -> None:
    node = Node("a")
    node.hear(Ack(claim("a"), (), 12345, "a"))
    assert node.machine.refused[Refusal.UNASKED] == 1


@pytest.mark.parametrize("state", [State.SUSPECT, State.DEAD, State.LEFT])
def test_bad_news_of_itself_is_refuted_at_once(state: State) -> None:
    node = Node("a")
    about_me = msgspec.structs.replace(node.me, state=state, incarnation=8)
    ((_, answer),) = sent(node.hear(Ping(claim("a"), (about_me,), 7, "m")))
    assert (answer.me.incarnation, answer.me.state) == (9, State.ALIVE)
    assert node.machine.me in [each for _, message in sent(node.beats(101.0)) for each in message.news]
    assert node.machine.doubt == 1, "the others do not hear it in time"


def test_old_news_of_itself_needs_no_answer() -> None:
    node = Node("a")
    node.hear(Gossip(claim("a"), (msgspec.structs.replace(node.me, state=State.DEAD, incarnation=4),)))
    assert node.machine.me == node.me


def test_a_node_that_was_started_anew_refutes_its_own_death() -> None:
    node = Node("a")
    former = claim("m", State.DEAD, incarnation=900, run=1, number=0)
    node.hear(Gossip(claim("a"), (former,)))
    assert (node.machine.me.incarnation, node.machine.me.run) == (901, node.me.run)
    assert node.machine.doubt == 0


def test_the_greatest_incarnation_is_not_exceeded() -> None:
    node = Node("a")
    node.hear(Gossip(claim("a"), (claim("m", State.DEAD, MAX_INCARNATION, run=1),)))
    assert node.machine.me.incarnation == MAX_INCARNATION
    assert sent(node.beats(101.0)), "what it sends can be encoded, and decoded"


def test_who_is_suspect_hears_of_it_first() -> None:
    node = Node("a")
    suspicion = claim("a", State.SUSPECT)
    node.hear(Gossip(claim("b", number=2), (suspicion,)))
    ((_, answer),) = sent(node.hear(Ping(claim("a"), (), 7, "m")))
    assert answer.news[0] == suspicion
    assert told(node.hear(Gossip(claim("a", incarnation=2), ()))) == [("a", Happened.UP)]


def test_a_confirmed_suspicion_is_told_to_members_only() -> None:
    node = Node("a")
    assert told(node.hear(Gossip(claim("b", number=2), (claim("a", State.SUSPECT),))))
    assert told(node.hear(Gossip(claim("b", number=2), (claim("a", State.SUSPECT, 2),)))) == []
    assert node.state("a") is State.SUSPECT


def test_the_dead_are_asked_now_and_then_and_told_what_they_must_refute() -> None:
    node = Node("a")
    death = claim("a", State.DEAD)
    node.hear(Gossip(claim("b", State.LEFT, number=2), (death,)))
    pings = sent(node.beats(130.0), Ping)
    assert 5 <= len(pings) <= 7
    assert all(to == death.gossip and message.news[0] == death for to, message in pings)


def test_with_one_that_is_back_all_is_exchanged() -> None:
    node = Node("a", "b")
    node.hear(Gossip(claim("b", number=2), (claim("a", State.DEAD),)))
    outputs = node.hear(Gossip(claim("a", incarnation=2), ()))
    assert told(outputs) == [("a", Happened.UP)]
    ((to, message),) = sent(outputs)
    assert isinstance(message, Sync)
    assert (to, message.is_question) == (claim("a").gossip, True)


def test_a_death_by_hearsay_is_a_suspicion() -> None:
    node = Node("a", "b")
    death = claim("a", State.DEAD)
    assert told(node.hear(Sync(claim("b", number=2), (death,), is_question=False))) == [
        ("a", Happened.SUSPECT)
    ]
    assert told(node.hear(Gossip(claim("b", number=2), (death,)))) == [("a", Happened.DEAD)]
    newer = claim("a", State.DEAD, incarnation=3)
    node.hear(Sync(claim("b", number=2), (newer, claim("x", State.DEAD)), is_question=False))
    assert node.state("a") is State.DEAD
    assert node.machine.members.get("x") is None


def test_all_that_is_known_is_answered_in_as_many_datagrams_as_it_takes() -> None:
    node = Node(*(f"member-{number}" for number in range(100)))
    answers = sent(node.hear(Sync(claim("a"), (), is_question=True)))
    assert len(answers) > 3
    assert {to for to, _ in answers} == {ELSEWHERE}
    assert [getattr(message, "is_question", None) for _, message in answers] == [False] * len(answers)
    assert len({each.node for _, message in answers for each in message.news}) == 101
    (_, *rest) = sent(node.machine.seeds_found([endpoint(900)]), Sync)
    assert [getattr(message, "is_question", None) for _, message in rest] == [False] * len(rest)


def test_answers_of_all_that_is_known_are_bounded_between_beats() -> None:
    node = Node("a")
    node.beats(100.0)
    question = Sync(claim("a"), (), is_question=True)
    found = [len(sent(node.hear(question), Sync)) for _ in range(ANSWERED_SYNCS + 2)]
    assert found == [1] * ANSWERED_SYNCS + [0, 0]
    assert node.machine.refused[Refusal.TOO_MANY] == 2
    node.beats(100.25)
    assert sent(node.hear(question), Sync)


def test_two_members_exchange_all_now_and_then() -> None:
    node = Node("a")
    for _ in range(200):
        outputs = node.beats(node.now_s + 0.25)
        for _, message in sent(outputs, Ping):
            assert isinstance(message, Ping)
            node.hear(Ack(claim("a"), (), message.sequence, "a"))
        if sent(outputs, Sync):
            assert 129.0 <= node.now_s <= 131.0
            return
    pytest.fail("never")


def test_seeds_are_asked_unless_they_are_known() -> None:
    node = Node()
    assert FindSeeds() in node.beats(100.0)
    node.hear(Gossip(claim("a", number=1), ()))
    outputs = node.machine.seeds_found([endpoint(0), endpoint(1), endpoint(2), endpoint(2)])
    assert [to for to, _ in sent(outputs, Sync)] == [endpoint(2)]
    node.hear(Gossip(claim("a", State.DEAD, number=1), ()))
    assert [to for to, _ in sent(node.machine.seeds_found([endpoint(1)]), Sync)] == [endpoint(1)]


def test_who_has_left_is_asked_no_more() -> None:
    node = Node("a")
    assert told(node.hear(Gossip(claim("a", State.LEFT), ()))) == [("a", Happened.LEFT)]
    assert sent(node.beats(140.0)) == []


def test_leaving_is_said_several_times_and_then_it_is_done() -> None:
    node = Node("a", "b")
    node.beats(100.0)
    outputs = node.machine.leave()
    assert node.machine.leave() == []
    assert {to for to, _ in sent(outputs, Gossip)} == {endpoint(1), endpoint(2)}
    assert all(message.me.state is State.LEFT for _, message in sent(outputs))
    assert not node.machine.is_gone
    ((_, answer),) = sent(node.hear(Ping(claim("a"), (), 7, "m")))
    assert answer.me.state is State.LEFT
    node.hear(Gossip(claim("a"), (msgspec.structs.replace(node.me, state=State.DEAD, incarnation=9),)))
    assert node.machine.me.incarnation == 5, "why refute"
    rest = node.beats(110.0)
    assert len(sent(rest)) == 2 * (FAREWELL_BEATS - 1)
    assert node.machine.is_gone


def test_standing_still_makes_nobody_suspect_or_dead() -> None:
    node = Node("a", "b")
    node.beats(100.0)
    node.hear(Gossip(claim("b", number=2), (claim("a", State.SUSPECT),)))
    node.now_s = 190.0
    assert told(node.machine.tick(190.0)) == []
    assert told(node.beats(193.0)) in ([], [("b", Happened.SUSPECT)])
    assert ("a", Happened.DEAD) in told(node.beats(200.0))


@pytest.mark.parametrize(("draw", "period_s"), [(0.0, 1.0), (0.25, 1.0), (0.99, 1.25)])
def test_questions_are_an_interval_apart_give_or_take_a_tenth(draw: float, period_s: float) -> None:
    node = Node("a", "b", "c", "d", draws=[draw])
    asked_s = []
    while node.now_s < 104.0:
        at_s = node.now_s
        for _, message in sent(node.beats(at_s), Ping):
            assert isinstance(message, Ping)
            asked_s.append(at_s)
            node.hear(Ack(claim(message.target, number="_abcd".index(message.target)), (),
                          message.sequence, message.target))  # fmt: skip
        node.now_s += 0.25
    assert asked_s[:3] == [100.0, 100.0 + period_s, 100.0 + 2 * period_s]


def test_all_times_grow_with_the_interval() -> None:
    def life(interval_s: float) -> list[tuple[float, str]]:
        node = Node("a", "b", "c", interval_s=interval_s)
        node.hear(Gossip(claim("c", number=3), (claim("a", State.SUSPECT),)))
        story: list[tuple[float, str]] = []
        while (beats := (node.now_s - 100.0) / interval_s) < 640.0:
            story += [(beats, type(each).__name__) for each in node.machine.tick(node.now_s)]
            node.now_s = node.machine.next_s()
            if beats == 320.0:
                story += [(beats, repr(each)) for each in node.hear(Gossip(claim("b", incarnation=9), ()))]
        return story

    story = life(1.0)
    assert story == life(4.0)
    assert len(story) > 200


@pytest.mark.parametrize("interval_s", [1.0, 4.0])
def test_an_answer_for_another_is_waited_for_two_intervals(interval_s: float) -> None:
    for intervals, is_passed_on in ((1.75, True), (2.25, False)):
        node = Node("a", "b", interval_s=interval_s)
        node.beats(100.0)
        ((_, ping),) = sent(node.hear(PingRequest(claim("a"), (), 77, "b", endpoint(2))))
        assert isinstance(ping, Ping)
        node.beats(100.0 + intervals * interval_s)
        assert bool(sent(node.hear(Ack(claim("b", number=2), (), ping.sequence, "b")), Ack)) == is_passed_on


def test_a_list_that_just_fits_goes_into_one_datagram() -> None:
    others = [f"n{number}" for number in range(9)]
    sizes = sum(size_of(each.claim) for each in Node(*others).machine.members.all())
    whole = sizes + len(encode(Sync(Node().me, (), is_question=True))) + 2
    for payload_bytes, datagrams in ((whole, 1), (whole - 1, 2)):
        node = Node(*others, payload_bytes=payload_bytes)
        assert len(sent(node.machine.seeds_found([endpoint(99)]))) == datagrams


def test_a_beat_that_is_not_due_does_nothing() -> None:
    node = Node("a")
    assert node.machine.tick(99.0) == []


def test_the_dead_are_forgotten_in_the_end() -> None:
    node = Node("a")
    node.hear(Gossip(claim("b", State.LEFT), (claim("a", State.DEAD),)))
    assert told(node.beats(699.0)) == []
    assert told(node.beats(701.0)) == [("a", Happened.FORGOTTEN)]


def test_who_says_less_of_itself_than_its_former_run_is_told_so() -> None:
    node = Node("a")
    former = claim("a", incarnation=9, run=1)
    node.hear(Gossip(former, ()))
    assert sent(node.hear(Gossip(claim("a", incarnation=8, run=2), ()))) == [
        (ELSEWHERE, Gossip(node.me, (former,)))
    ]
    assert sent(node.hear(Gossip(claim("a", incarnation=8, run=1), ()))) == [], "it is only late"


class TestAnotherNodeOfOurName:
    TWIN = claim("m", incarnation=5, run=99, number=8)

    def test_one_that_answers_is_reported_once(self) -> None:
        node = Node("a")
        ((to, question),) = sent(node.hear(Gossip(claim("a"), (self.TWIN,))), Ping)
        assert isinstance(question, Ping)
        assert (to, question.target) == (self.TWIN.gossip, "m")
        answer = Ack(self.TWIN, (), question.sequence, "m")
        assert node.hear(answer, self.TWIN.gossip) == [NameTaken(self.TWIN.gossip)]
        assert node.hear(answer, self.TWIN.gossip) == [], "that question was answered"
        assert node.machine.twin == self.TWIN.gossip
        node.now_s += 1.0
        ((_, question),) = sent(node.hear(Gossip(claim("a"), (self.TWIN,))), Ping)
        assert isinstance(question, Ping)
        assert node.hear(Ack(self.TWIN, (), question.sequence, "m"), self.TWIN.gossip) == []
        assert node.machine.refused[Refusal.SAME_NODE] == 3

    def test_it_is_asked_once_in_an_interval(self) -> None:
        node = Node("a")
        assert [len(sent(node.hear(Gossip(claim("a"), (self.TWIN,))), Ping)) for _ in range(3)] == [1, 0, 0]

    def test_its_questions_are_answered_so_that_it_knows_too(self) -> None:
        node = Node()
        outputs = node.hear(Ping(self.TWIN, (), 7, "m"), self.TWIN.gossip)
        answer, question = (message for _, message in sent(outputs))
        assert isinstance(answer, Ack)
        assert isinstance(question, Ping)
        assert node.machine.members.get("m") is None

    def test_it_is_asked_whatever_it_sends(self) -> None:
        node = Node()
        outputs = node.hear(Sync(self.TWIN, (), is_question=True), self.TWIN.gossip)
        assert [type(message) for _, message in sent(outputs)] == [Ping]

    def test_one_that_is_gone_is_not_asked(self) -> None:
        node = Node("a")
        gone = msgspec.structs.replace(self.TWIN, state=State.DEAD, incarnation=3)
        assert sent(node.hear(Gossip(claim("a"), (gone,)))) == []

    def test_a_former_run_at_our_own_address_is_not_asked(self) -> None:
        node = Node("a")
        former = claim("m", incarnation=7, run=1, number=0)
        assert sent(node.hear(Gossip(claim("a"), (former,)))) == []
        assert node.machine.me.incarnation == 8

    def test_what_comes_back_to_us_means_nothing(self) -> None:
        node = Node()
        assert node.hear(Gossip(node.me, (claim("a"),))) == []
        assert node.machine.refused[Refusal.SAME_NODE] == 0


def test_what_cannot_be_decoded_is_refused_and_changes_nothing() -> None:
    node = Node("a")
    with pytest.raises(DatagramError):
        node.machine.receive(b"\x01nonsense", ELSEWHERE, 100.0)
    assert [each.claim for each in node.machine.members.all()] == [claim("a")]


def test_a_flood_of_inventions_is_bounded() -> None:
    node = Node("a")

    def inventions(first: int) -> tuple[Claim, ...]:
        return tuple(claim(f"x{number}", number=number % 200) for number in range(first, first + 10))

    for first in range(0, 3_000, 10):
        node.hear(Gossip(claim("a"), inventions(first)))
    assert len(node.machine.members.all()) == 1_024
    assert node.machine.members.turned_away == 3_001 - 1_024
    assert all(len(each.payload) <= PAYLOAD_BYTES for each in node.beats(101.0) if isinstance(each, Send))
