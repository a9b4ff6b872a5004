"""One replica: which commands follow from which facts."""

from __future__ import annotations

import pytest

from edgeproxy.core.replication.clock import MAX_AHEAD_MS
from edgeproxy.core.replication.commands import (
    ApplyWrites,
    Cause,
    Collect,
    InstallRows,
    ReadFingerprint,
    ReadLog,
    ReadRows,
    Renew,
    Send,
    Warn,
)
from edgeproxy.core.replication.messages import (
    MAX_WRITES,
    Changes,
    Digest,
    Gone,
    Ranges,
    SnapshotPart,
    SnapshotWanted,
    Want,
)
from edgeproxy.core.replication.model import PRESENT, Cell, Dot, Group, RowState, Stamp, Write
from edgeproxy.core.replication.replica import MAX_APPLYING, PULL_TIMEOUT_S, Now, Replica, Terms

pytestmark = pytest.mark.feature("replication.changes")

WALL_MS = 1_000_000
NOW = Now(100.0, WALL_MS)
TERMS = Terms(sync_interval_s=5.0, retention_s=60.0)


def later(seconds: float) -> Now:
    return Now(NOW.s + seconds, WALL_MS + int(seconds * 1000))


def make(*peers: str, known: Ranges | None = None, remembered: tuple[str, ...] | None = ()) -> Replica:
    """Node a with its first comparison behind it, connected with these."""
    replica = Replica("a", "a/1", known or {}, TERMS, NOW, remembered)
    for peer in peers:
        replica.alive(peer)
        replica.connected(peer, NOW)
    replica.tick(NOW, 0.0)
    return replica


def write(origin: str, sequence: int, wall_ms: int = WALL_MS) -> Write:
    return Write(Dot(origin, sequence), Stamp(wall_ms, 0, origin[0]), "x", {Group.PRESENCE: {PRESENT: 1}})


def row(origin: str, sequence: int, row_id: str = "x", wall_ms: int = WALL_MS) -> RowState:
    cell = Cell(Stamp(wall_ms, 0, origin[0]), Dot(origin, sequence), {PRESENT: 1})
    return RowState(row_id, {Group.PRESENCE: cell})


def digest(
    known: Ranges,
    *,
    origin: str = "b/1",
    fingerprint: int | None = None,
    wall_ms: int = WALL_MS,
    answer: bool = False,
) -> Digest:
    return Digest(origin, known, fingerprint, wall_ms, answer)


def part(after: str | None, until: str | None, *rows: RowState, origin: str = "b/1") -> SnapshotPart:
    return SnapshotPart(origin, after, until, {"b/1": ((1, 9),)}, rows)


class TestPush:
    def test_what_is_written_goes_to_all_at_once(self) -> None:
        replica = make("b", "c")
        writes = (write("a/1", 1), write("a/1", 2))
        assert replica.written(writes) == [Send("b", Changes(writes)), Send("c", Changes(writes))]
        assert replica.known == {"a/1": ((1, 2),)}

    def test_much_goes_in_several_messages(self) -> None:
        sent = make("b").written([write("a/1", number) for number in range(1, MAX_WRITES + 2)])
        assert [len(each.message.writes) for each in sent] == [MAX_WRITES, 1]  # type: ignore[union-attr]

    def test_nobody_gets_what_is_written_once_disconnected(self) -> None:
        replica = make("b", "c")
        replica.disconnected("b")
        assert replica.written([write("a/1", 1)]) == [Send("c", Changes((write("a/1", 1),)))]

    def test_what_comes_is_applied_as_far_as_it_is_news(self) -> None:
        replica = make("b", known={"b/1": ((1, 1),)})
        one, two = write("b/1", 1), write("b/1", 2)
        (apply,) = replica.received("b", Changes((one, two)), NOW)
        assert apply == ApplyWrites("b", (two,))
        assert replica.known == {"b/1": ((1, 1),)}
        assert replica.applied(ApplyWrites("b", (two,)), NOW) == []
        assert replica.known == {"b/1": ((1, 2),)}
        assert replica.received("b", Changes((one, two)), NOW) == []
        replica.applied(ApplyWrites("b", (two,)), NOW)
        assert replica.known == {"b/1": ((1, 2),)}

    def test_what_comes_too_early_is_not_taken_until_it_is_time(self) -> None:
        replica = make("b")
        early = write("c/1", 1, WALL_MS + MAX_AHEAD_MS + 1)
        (warning,) = replica.received("b", Changes((early,)), NOW)
        assert warning == Warn(Cause.CLOCK_AHEAD, "c", "c/1", MAX_AHEAD_MS + 1)
        assert replica.received("b", Changes((early,)), later(1)) == [ApplyWrites("b", (early,))]

    def test_while_the_store_is_behind_nothing_more_is_taken(self) -> None:
        replica = make("b")
        much = tuple(write("b/1", number) for number in range(1, MAX_APPLYING + 1))
        (apply,) = replica.received("b", Changes(much), NOW)
        assert isinstance(apply, ApplyWrites)
        assert replica.received("b", Changes((write("c/1", 1),)), NOW) == []
        replica.store_failed(apply)
        assert len(replica.received("b", Changes((write("c/1", 1),)), NOW)) == 1


class TestComparison:
    def test_begins_with_the_connection(self) -> None:
        replica = Replica("a", "a/1", {"a/1": ((1, 3),)}, TERMS, NOW)
        assert replica.connected("b", NOW) == [
            Send("b", digest({"a/1": ((1, 3),)}, origin="a/1", answer=True))
        ]

    def test_is_begun_with_every_peer_in_turn(self) -> None:
        replica = make("b", "c", "d")
        asked = [
            each.peer
            for number in range(1, 6)
            for each in replica.tick(later(10 * number), 0.99)
            if isinstance(each, Send)
        ]
        assert asked == ["d", "c", "d", "c", "b"]

    def test_is_begun_at_the_interval_or_a_quarter_around_it(self) -> None:
        replica = make("b")
        replica.tick(later(10), 0.0)
        assert replica.next_s() == NOW.s + 10 + 3.75
        assert replica.tick(later(13), 0.5) == []
        replica.tick(later(15), 0.999)
        assert NOW.s + 15 + 6.2 < replica.next_s() < NOW.s + 15 + 6.25

    def test_alone_there_is_nobody_to_compare_with(self) -> None:
        assert [each for each in make().tick(later(10), 0.5) if isinstance(each, Send)] == []

    def test_is_answered_when_asked(self) -> None:
        replica = make("b", known={"a/1": ((1, 3),)})
        assert replica.received("b", digest({"a/1": ((1, 3),)}, answer=True), NOW) == [
            Send("b", digest({"a/1": ((1, 3),)}, origin="a/1"))
        ]

    def test_tells_how_far_the_other_clock_is_ahead(self) -> None:
        replica = make("b")
        replica.received("b", digest({}, wall_ms=WALL_MS + 250), NOW)
        assert replica.drift_ms == {"b": 250}
        replica.disconnected("b")
        assert replica.drift_ms == {}

    def test_tells_what_others_have(self) -> None:
        replica = make("b", "c", known={"b/1": ((1, 2),)})
        replica.received("b", digest({"b/1": ((1, 9),), "c/1": ((1, 1),)}), NOW)
        replica.received("c", digest({"b/1": ((1, 5),), "c/1": ((1, 3),)}), NOW)
        assert replica.lag == {"b/1": 7, "c/1": 3}


class TestPull:
    def test_what_is_missing_is_pulled_until_all_is_there(self) -> None:
        replica = make("b")
        assert replica.received("b", digest({"b/1": ((1, 3),)}), NOW) == [Send("b", Want({"b/1": ((1, 3),)}))]
        assert replica.pulling == "b"
        first = ApplyWrites("b", (write("b/1", 1), write("b/1", 3)))
        assert replica.applied(first, NOW) == [Send("b", Want({"b/1": ((2, 2),)}))]
        (done,) = replica.applied(ApplyWrites("b", (write("b/1", 2),)), NOW)
        assert done == Send("b", digest({"b/1": ((1, 3),)}, origin="a/1", answer=True))
        assert replica.pulling is None

    def test_only_one_is_under_way(self) -> None:
        replica = make("b", "c")
        replica.received("b", digest({"b/1": ((1, 3),)}), NOW)
        assert replica.received("c", digest({"c/1": ((1, 3),)}), NOW) == []

    def test_what_is_pushed_meanwhile_asks_for_nothing(self) -> None:
        replica = make("b")
        replica.received("b", digest({"b/1": ((1, 3),)}), NOW)
        assert replica.applied(ApplyWrites("b", (write("b/1", 4),)), NOW) == []
        assert replica.applied(ApplyWrites("c", (write("b/1", 1),)), NOW) == []
        assert replica.pulling == "b"

    def test_is_given_up_after_a_while(self) -> None:
        replica = make("b")
        replica.tick(later(5), 0.999)
        replica.received("b", digest({"b/1": ((1, 3),)}), later(5))
        replica.tick(later(12), 0.999)
        assert replica.next_s() == NOW.s + 5 + PULL_TIMEOUT_S
        replica.tick(later(5 + PULL_TIMEOUT_S), 0.0)
        assert replica.pulling is None

    def test_is_given_up_with_the_connection(self) -> None:
        replica = make("b", "c")
        replica.received("b", digest({"b/1": ((1, 3),)}), NOW)
        replica.disconnected("c")
        assert replica.pulling == "b"
        replica.disconnected("b")
        assert replica.pulling is None

    def test_what_a_peer_wants_is_read_from_the_log(self) -> None:
        replica = make("b")
        (command,) = replica.received("b", Want({"a/1": ((1, 2),)}), NOW)
        assert command == ReadLog("b", {"a/1": ((1, 2),)})
        assert isinstance(command, ReadLog)
        writes = (write("a/1", 1), write("a/1", 2))
        assert replica.log_read(command, writes, gone=False) == [Send("b", Changes(writes))]
        assert replica.log_read(command, (), gone=True) == [Send("b", Gone())]


class TestSnapshot:
    def pulling(self) -> Replica:
        """A replica that has asked for a snapshot."""
        replica = make("b")
        replica.received("b", digest({"b/1": ((1, 9),)}), NOW)
        assert replica.received("b", Gone(), NOW) == [
            Warn(Cause.SNAPSHOT, "b"),
            Send("b", SnapshotWanted(None)),
        ]
        return replica

    def test_is_pulled_part_by_part(self) -> None:
        replica = self.pulling()
        (first,) = replica.received("b", part(None, "m", row("b/1", 3)), NOW)
        assert first == InstallRows("b", None, "m", {"b/1": ((1, 9),)}, (row("b/1", 3),), False)
        assert isinstance(first, InstallRows)
        assert replica.installed(first, NOW) == [Send("b", SnapshotWanted("m"))]
        assert replica.known == {"b/1": ((3, 3),)}
        (last,) = replica.received("b", part("m", None), NOW)
        assert last == InstallRows("b", "m", None, {"b/1": ((1, 9),)}, (), True)
        assert isinstance(last, InstallRows)
        (done,) = replica.installed(last, NOW)
        assert done == Send("b", digest({"b/1": ((1, 9),)}, origin="a/1", answer=True))
        assert replica.pulling is None

    def test_has_a_while_for_each_part(self) -> None:
        replica = self.pulling()
        replica.tick(later(PULL_TIMEOUT_S - 1), 0.999)
        replica.received("b", part(None, "m", row("b/1", 3)), later(PULL_TIMEOUT_S - 1))
        replica.tick(later(2 * PULL_TIMEOUT_S - 2), 0.999)
        assert replica.pulling == "b"
        replica.tick(later(2 * PULL_TIMEOUT_S - 1), 0.999)
        assert replica.pulling is None

    def test_that_nobody_asked_for_is_not_taken(self) -> None:
        replica = make("b", "c")
        assert replica.received("b", Gone(), NOW) == []
        assert replica.received("b", part(None, None), NOW) == []
        replica = self.pulling()
        assert replica.received("b", Gone(), NOW) == []
        assert replica.received("c", part(None, None), NOW) == []
        assert replica.received("b", part("m", None), NOW) == []

    def test_ends_when_its_sender_went_back(self) -> None:
        replica = self.pulling()
        replica.received("b", part(None, "m"), NOW)
        assert replica.received("b", part("m", None, origin="b/2"), NOW) == []
        assert replica.pulling is None

    def test_from_too_early_a_clock_is_not_taken(self) -> None:
        replica = self.pulling()
        early = row("c/1", 1, wall_ms=WALL_MS + MAX_AHEAD_MS + 5)
        assert replica.received("b", part(None, None, early), NOW) == [
            Warn(Cause.CLOCK_AHEAD, "c", "c/1", MAX_AHEAD_MS + 5)
        ]
        assert replica.pulling is None

    def test_ends_when_the_store_fails(self) -> None:
        replica = self.pulling()
        (first,) = replica.received("b", part(None, "m"), NOW)
        replica.store_failed(first)
        assert replica.pulling is None

    def test_that_was_given_up_is_not_continued(self) -> None:
        replica = self.pulling()
        (first,) = replica.received("b", part(None, "m"), NOW)
        replica.disconnected("b")
        assert isinstance(first, InstallRows)
        assert replica.installed(first, NOW) == []

    def test_is_read_for_a_peer(self) -> None:
        replica = make("b")
        (command,) = replica.received("b", SnapshotWanted("k"), NOW)
        assert command == ReadRows("b", "k")
        assert isinstance(command, ReadRows)
        known = {"a/1": ((1, 4),)}
        assert replica.rows_read(command, [row("a/1", 4)], "x", known) == [
            Send("b", SnapshotPart("a/1", "k", "x", known, (row("a/1", 4),)))
        ]

    def test_is_what_those_get_who_lack_what_tombstones_are_gone_for(self) -> None:
        replica = make("b", known={"a/1": ((1, 4),)})
        replica.received("b", digest({"a/1": ((1, 2),)}), NOW)
        assert Collect({"a/1": ((1, 2),)}) in replica.tick(later(10), 0.0)
        assert replica.received("b", Want({"a/1": ((2, 4),)}), NOW) == [Send("b", Gone())]
        assert replica.received("b", Want({"a/1": ((3, 4),)}), NOW) == [ReadLog("b", {"a/1": ((3, 4),)})]
        # A newcomer has acknowledged less than was collected.
        replica.alive("c")
        replica.received("c", digest({}, origin="c/1"), NOW)
        assert Collect({}) in replica.tick(later(20), 0.0)
        assert replica.received("c", Want({"a/1": ((2, 4),)}), NOW) == [Send("c", Gone())]


class TestCollecting:
    def test_once_all_have_acknowledged(self) -> None:
        replica = make("b", known={"a/1": ((1, 2),)}, remembered=("c",))
        replica.alive("c")
        replica.received("b", digest({"a/1": ((1, 2),)}), NOW)
        assert not any(isinstance(each, Collect) for each in replica.tick(later(10), 0.0))
        replica.left("c")
        assert Collect({"a/1": ((1, 2),)}) in replica.tick(later(20), 0.0)
        assert not any(isinstance(each, Collect) for each in replica.tick(later(30), 0.0))

    def test_again_when_a_snapshot_may_have_brought_some_back(self) -> None:
        replica = make(known={"a/1": ((1, 2),)})
        replica.installed(InstallRows("b", None, None, {}, (), True), NOW)
        assert Collect({"a/1": ((1, 2),)}) in replica.tick(later(10), 0.0)

    def test_the_dead_and_those_remembered_are_waited_for(self) -> None:
        replica = make("b", known={"a/1": ((1, 2),)}, remembered=("gone",))
        replica.received("b", digest({"a/1": ((1, 2),)}), NOW)
        replica.dead("b", NOW)
        assert not any(isinstance(each, Collect) for each in replica.tick(later(59), 0.0))
        commands = replica.tick(later(70), 0.0)
        assert Warn(Cause.FORGOTTEN, "gone") in commands
        assert Warn(Cause.FORGOTTEN, "b") in commands
        assert Collect({"a/1": ((1, 2),)}) in commands

    def test_not_while_members_may_be_unknown(self) -> None:
        replica = make(known={"a/1": ((1, 2),)}, remembered=None)
        assert not any(isinstance(each, Collect) for each in replica.tick(later(59), 0.0))
        assert Collect({"a/1": ((1, 2),)}) in replica.tick(later(70), 0.0)


KNOWN: Ranges = {"b/1": ((1, 2),)}


class TestFingerprint:
    def quiet(self) -> Replica:
        """A replica that has read its fingerprint, 7."""
        replica = make("b", known=KNOWN)
        assert ReadFingerprint() in replica.tick(later(10), 0.0)
        replica.fingerprint_read(KNOWN, 7)
        return replica

    def test_is_told_while_nothing_changes(self) -> None:
        replica = self.quiet()
        assert replica.tick(later(20), 0.0)[-1] == Send("b", Digest("a/1", KNOWN, 7, later(20).wall_ms, True))
        replica.applied(ApplyWrites("b", (write("b/1", 3),)), NOW)
        (sent,) = [each for each in replica.tick(later(30), 0.0) if isinstance(each, Send)]
        assert isinstance(sent.message, Digest)
        assert sent.message.fingerprint is None

    def test_is_not_read_while_changes_come(self) -> None:
        replica = make("b")
        for number in range(1, 4):
            replica.written([write("a/1", number)])
            assert ReadFingerprint() not in replica.tick(later(10 * number), 0.0)
        assert ReadFingerprint() in replica.tick(later(40), 0.0)

    def test_that_came_too_late_is_not_told(self) -> None:
        replica = make("b", known=KNOWN)
        replica.fingerprint_read({"b/1": ((1, 1),)}, 7)
        (sent,) = replica.connected("b", NOW)
        assert isinstance(sent, Send)
        assert isinstance(sent.message, Digest)
        assert sent.message.fingerprint is None

    def test_of_equals_is_equal(self) -> None:
        assert self.quiet().received("b", digest(KNOWN, fingerprint=7), NOW) == []

    def test_that_differs_is_told_and_put_right(self) -> None:
        assert self.quiet().received("b", digest(KNOWN, fingerprint=8), NOW) == [
            Warn(Cause.DIFFERENT_ROWS, "b"),
            Send("b", SnapshotWanted(None)),
        ]

    @pytest.mark.parametrize("other", [digest({}, fingerprint=8), digest(KNOWN)])
    def test_of_others_or_none_says_nothing(self, other: Digest) -> None:
        assert self.quiet().received("b", other, NOW) == []

    def test_is_not_read_in_the_middle_of_a_snapshot(self) -> None:
        replica = make("b")
        replica.received("b", digest({"b/1": ((1, 9),)}), NOW)
        replica.received("b", Gone(), NOW)
        (first,) = replica.received("b", part(None, "m"), NOW)
        assert isinstance(first, InstallRows)
        replica.installed(first, NOW)
        replica.disconnected("b")
        for number in range(1, 4):
            assert ReadFingerprint() not in replica.tick(later(10 * number), 0.0)


class TestOwnNumbers:
    RENEWAL = (Warn(Cause.NUMBERS_REUSED, "b", "a/1"), Renew("a/1"))

    def test_that_others_have_are_not_given_again(self) -> None:
        replica = make("b", known={"a/1": ((1, 2),)})
        commands = replica.received("b", digest({"a/1": ((1, 5),)}), NOW)
        assert tuple(commands[:2]) == self.RENEWAL
        assert commands[2:] == [Send("b", Want({"a/1": ((3, 5),)}))]
        replica.renewed("a/2")
        assert replica.origin == "a/2"
        assert replica.received("b", digest({"a/1": ((1, 5),)}), NOW) == []

    def test_that_come_back_are_taken(self) -> None:
        replica = make("b")
        lost = write("a/1", 1)
        assert replica.received("b", Changes((lost,)), NOW) == [*self.RENEWAL, ApplyWrites("b", (lost,))]

    def test_in_a_snapshot_are_noticed(self) -> None:
        replica = make("b")
        replica.received("b", digest({"b/1": ((1, 9),)}), NOW)
        replica.received("b", Gone(), NOW)
        commands = replica.received("b", SnapshotPart("b/1", None, None, {"a/1": ((1, 1),)}, ()), NOW)
        assert tuple(commands[:2]) == self.RENEWAL

    def test_that_the_store_gave_to_another_process_are_ours(self) -> None:
        replica = make("b")
        replica.rows_read(ReadRows("b", None), [row("a/1", 3)], None, {"a/1": ((1, 3),)})
        replica.rows_read(ReadRows("b", None), [], None, {})
        digests = [replica.received("b", digest({"a/1": ((1, last),)}), NOW) for last in (3, 4)]
        assert [tuple(each[:2]) == self.RENEWAL for each in digests] == [False, True]

    def test_a_renewal_that_failed_is_tried_again(self) -> None:
        replica = make("b")
        lost = Changes((write("a/1", 1),))
        replica.received("b", lost, NOW)
        assert replica.received("b", lost, NOW) == [ApplyWrites("b", lost.writes)]
        replica.store_failed(Renew("a/1"))
        assert tuple(replica.received("b", lost, NOW)[:2]) == self.RENEWAL

    def test_what_else_fails_is_asked_again_in_the_course_of_things(self) -> None:
        replica = make("b")
        replica.store_failed(ReadFingerprint())
        assert replica.known == {}
