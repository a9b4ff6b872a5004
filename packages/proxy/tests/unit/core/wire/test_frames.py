"""Whatever way the stream is cut, the frames come out; whatever else comes in is a FrameError."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.core.controlplane.routing_table import PlacedBackend
from edgeproxy.core.dataplane.admission import AccessLists
from edgeproxy.core.dataplane.backend_rules import BackendRule, ProxyVersion
from edgeproxy.core.dataplane.lifetime import Lifetimes
from edgeproxy.core.dataplane.listening import Listening
from edgeproxy.core.dataplane.rate_limit import TokenBucket
from edgeproxy.core.model import Backend, Verdict
from edgeproxy.core.wire.frames import (
    MAX_FRAME_BYTES,
    PIECE_ROWS,
    ConnectionOrder,
    Drain,
    Drained,
    FrameError,
    FrameReader,
    FromWorker,
    GeoDatabaseChanged,
    HostAddresses,
    Notice,
    OpenConnection,
    Ping,
    Pong,
    Ready,
    Report,
    Reset,
    SessionRecord,
    Start,
    TableApplied,
    TableChanged,
    ToWorker,
    Traffic,
    encode,
    first_of,
)

texts = st.text(max_size=8)
whole = st.integers(0, 2**63 - 1)
seconds = st.floats(allow_nan=False)


def tuples(items: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(items, max_size=3).map(tuple)


counters = st.dictionaries(texts, whole, max_size=3)
placed = st.builds(
    PlacedBackend,
    slot=whole,
    backend=st.builds(
        Backend,
        id=texts,
        app=texts,
        region=texts,
        country=texts,
        host=texts,
        port=whole,
        healthy=st.booleans(),
        weight=whole,
        soft_limit=whole,
        hard_limit=whole,
    ),
    verdict=st.builds(Verdict, is_good=st.booleans(), trial=whole, weight_factor=seconds),
)
to_worker: st.SearchStrategy[ToWorker] = st.one_of(
    st.builds(
        Start,
        worker=whole,
        pop_region=texts,
        listeners=tuples(
            st.builds(Listening, app=texts, app_from_sni=st.booleans(), proxy_protocol=st.booleans())
        ),
        app_by_server_name=st.dictionaries(texts, texts, max_size=3),
        proxy_protocol_trusted=tuples(texts),
        backend_rules=tuples(st.builds(BackendRule, st.sampled_from(ProxyVersion), match=texts, app=texts)),
        retry_budget_percent=whole,
        opening_timeout_s=seconds,
        lifetimes=st.builds(Lifetimes, idle_s=seconds, half_close_s=seconds, max_age_s=seconds),
        access=st.builds(AccessLists, tuples(texts), tuples(texts), tuples(texts), tuples(texts)),
        region_by_country=st.dictionaries(texts, texts, max_size=3),
        geoip_path=st.none() | texts,
        binding_ttl_s=seconds,
        connect_timeout_s=seconds,
        shutdown_timeout_s=seconds,
        access_log_every=whole,
        panic_threshold=seconds,
        watch_outcomes=st.booleans(),
        rate_limit=st.none() | st.builds(TokenBucket, burst=seconds, per_s=seconds),
    ),
    st.builds(
        TableChanged,
        version=whole,
        whole=st.booleans(),
        upserts=tuples(placed),
        removed_slots=tuples(whole),
        unfinished=st.booleans(),
    ),
    st.builds(HostAddresses, host=texts, addresses=tuples(texts)),
    st.just(GeoDatabaseChanged()),
    st.just(Drain()),
    st.just(Reset()),
    st.just(Ping()),
)
from_worker: st.SearchStrategy[FromWorker] = st.one_of(
    st.builds(Ready, version=whole),
    st.builds(TableApplied, version=whole),
    st.builds(
        Report,
        traffic=tuples(
            st.builds(
                Traffic,
                country=texts,
                backend=texts,
                opened=whole,
                closed=whole,
                score_sum=seconds,
                bytes_received=whole,
                bytes_sent=whole,
            )
        ),
        closes=counters,
        connect_errors=counters,
        sessions=tuples(
            st.builds(
                SessionRecord,
                client=texts,
                country=texts,
                backend=texts,
                score=seconds,
                from_affinity=st.booleans(),
                bytes_received=whole,
                bytes_sent=whole,
                duration_s=seconds,
                reason=texts,
                tries=whole,
            )
        ),
        sessions_dropped=whole,
        outcomes=st.dictionaries(texts, texts, max_size=3),
    ),
    st.builds(
        Notice,
        level=texts,
        event=texts,
        fields=st.dictionaries(texts, st.one_of(texts, whole, st.floats(allow_nan=False)), max_size=3),
    ),
    st.builds(Pong),
    st.builds(Drained, reset=whole),
)


def read_all(reader: FrameReader[object], *pieces: bytes) -> list[object]:
    return [frame for piece in pieces for frame in reader.feed(piece)]


@given(first=to_worker, second=to_worker)
def test_frames_to_a_worker_survive_every_cut(first: ToWorker, second: ToWorker) -> None:
    stream = encode(first) + encode(second)
    reader: FrameReader[object] = FrameReader(ToWorker)
    for cut in range(len(stream) + 1):
        assert read_all(reader, stream[:cut], stream[cut:]) == [first, second]


@given(first=from_worker, second=from_worker)
def test_frames_from_a_worker_survive_every_cut(first: FromWorker, second: FromWorker) -> None:
    stream = encode(first) + encode(second)
    reader: FrameReader[object] = FrameReader(FromWorker)
    for cut in range(len(stream) + 1):
        assert read_all(reader, stream[:cut], stream[cut:]) == [first, second]


@given(frames=st.lists(to_worker, max_size=4))
def test_frames_survive_bytes_one_by_one(frames: list[ToWorker]) -> None:
    stream = b"".join(map(encode, frames))
    pieces = [stream[at : at + 1] for at in range(len(stream))]
    assert read_all(FrameReader(ToWorker), *pieces) == frames


def test_a_frame_comes_as_soon_as_its_last_byte() -> None:
    stream = encode(Drain())
    reader: FrameReader[ToWorker] = FrameReader(ToWorker)
    assert list(reader.feed(stream[:-1])) == []
    assert list(reader.feed(memoryview(stream)[-1:])) == [Drain()]


@given(removed=st.integers(0, 3 * PIECE_ROWS), upserts=st.integers(0, 3 * PIECE_ROWS))
@example(removed=PIECE_ROWS + 1, upserts=PIECE_ROWS)
def test_the_pieces_of_a_change_are_the_change(removed: int, upserts: int) -> None:
    backend = Backend("a", "test", "eu", "DE", "10.0.0.1", 9001, True, 1, 100, 0)
    rows = tuple(PlacedBackend(slot, backend) for slot in range(upserts))
    change = TableChanged(7, whole=False, upserts=rows, removed_slots=tuple(range(removed)))
    pieces = list(change.pieces())
    assert sum((piece.upserts for piece in pieces), ()) == change.upserts
    assert sum((piece.removed_slots for piece in pieces), ()) == change.removed_slots
    assert [piece.unfinished for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert {(piece.version, piece.whole) for piece in pieces} == {(7, False)}
    assert all(len(piece.upserts) + len(piece.removed_slots) <= PIECE_ROWS for piece in pieces)
    assert len(pieces) == max(1, -(-(removed + upserts) // PIECE_ROWS))


def test_a_whole_table_is_one_piece() -> None:
    backend = Backend("a", "test", "eu", "DE", "10.0.0.1", 9001, True, 1, 100, 0)
    rows = tuple(PlacedBackend(slot, backend) for slot in range(2 * PIECE_ROWS))
    table = TableChanged(7, whole=True, upserts=rows, removed_slots=())
    assert list(table.pieces()) == [table]


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@given(body=st.binary(max_size=200))
def test_arbitrary_bytes_are_frames_or_a_frame_error(body: bytes) -> None:
    for kind in (ToWorker, FromWorker):
        try:
            frames = list(FrameReader[object](kind).feed(framed(body)))
        except FrameError:
            continue
        assert len(frames) == 1


@given(frame=to_worker, at=st.integers(0, 400), value=st.integers(0, 255))
def test_a_damaged_frame_is_a_frame_or_a_frame_error(frame: ToWorker, at: int, value: int) -> None:
    body = bytearray(encode(frame)[4:])
    body[at % len(body)] = value
    try:
        frames = list(FrameReader[object](ToWorker).feed(framed(bytes(body))))
    except FrameError:
        return
    assert len(frames) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="no msgpack"),
        pytest.param(b"\x81\xa4type\xa3xyz", id="unknown frame"),
        pytest.param(b"\x82\xa4type\xa4host\xa4host\x01", id="wrong type"),
        pytest.param(b"\x82\xa4type\xa4host\xa4host\xa2\xff\xfe", id="no text"),
        pytest.param(b"\x82\xa4type\xa4host\xa1x" + b"\x91" * 100_000, id="nested too deeply"),
        pytest.param(encode(Drain())[4:] * 2, id="more than one"),
    ],
)
def test_what_is_no_frame_is_a_frame_error(body: bytes) -> None:
    with pytest.raises(FrameError, match="an undecodable frame"):
        list(FrameReader(ToWorker).feed(framed(body)))


def test_a_frame_from_the_other_direction_is_a_frame_error() -> None:
    with pytest.raises(FrameError):
        list(FrameReader(ToWorker).feed(encode(Ready(1))))


def test_a_frame_that_is_too_long_is_refused_by_its_length_alone() -> None:
    reader: FrameReader[ToWorker] = FrameReader(ToWorker)
    assert list(reader.feed(MAX_FRAME_BYTES.to_bytes(4, "big"))) == []
    with pytest.raises(FrameError, match=f"a frame of {MAX_FRAME_BYTES + 1} bytes"):
        list(FrameReader(ToWorker).feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


def test_frames_before_a_damaged_one_still_come() -> None:
    frames = FrameReader[ToWorker](ToWorker).feed(encode(Drain()) + framed(b"\xc1"))
    assert next(frames) == Drain()
    with pytest.raises(FrameError):
        next(frames)


def test_the_first_connections_are_the_oldest_or_those_that_moved_most() -> None:
    old = OpenConnection("192.0.2.1", "DE", "*", "one", "open", 9.0, 1, 1)
    busy = OpenConnection("192.0.2.2", "DE", "*", "one", "open", 2.0, 5, 5)
    new = OpenConnection("192.0.2.3", "DE", "*", "", "connecting", 1.0, 0, 0)
    assert first_of([new, busy, old], 2, ConnectionOrder.AGE) == [old, busy]
    assert first_of([new, busy, old], 9, ConnectionOrder.BYTES) == [busy, old, new]
