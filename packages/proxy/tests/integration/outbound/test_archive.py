"""Archives in a folder and in a bucket: what was added can be restored, and what is damaged is not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import zstandard

from edgeproxy.errors import ConfigError, StoreError
from edgeproxy.outbound import archive as archive_module
from edgeproxy.outbound.archive import Archive, Step
from edgeproxy.outbound.archive_places import FolderPlace, Place, open_place
from edgeproxy.outbound.change_log_reading import read_logged_rows
from edgeproxy.outbound.history_sqlite import restore_rows, rows_at
from edgeproxy.ports import Row
from packages.proxy.tests.integration.outbound.replicas import Pop

KEEP_S = 3_600.0

pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server that speaks S3, on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "folder":
        return open_place((tmp_path / "archive of ours").as_uri())
    return bucket(request, monkeypatch)


def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": request.getfixturevalue("s3"),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = "bucket-" + "".join(each for each in request.node.name.lower() if each.isalnum())[:50]
    boto3.client("s3").create_bucket(Bucket=name)
    return open_place(f"s3://{name}/pops/all")


@pytest.fixture
def pop(tmp_path: Path) -> Pop:
    made = Pop(tmp_path / "routing.db", "pop-1")
    made.store.tend()
    return made


@pytest.fixture
def folder(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path / "archive")


def set_weight(pop: Pop, weight: int) -> str:
    """Edit the row a; return when that was, alone in its moment."""
    pop.edit(f"UPDATE backends SET weight = {weight} WHERE id = 'a'")
    at = f"2026-01-01T00:00:{weight:02}.000Z"
    pop.edit(
        f"UPDATE edgeproxy_changes SET at = '{at}' WHERE change = (SELECT max(change) FROM edgeproxy_changes)"
    )
    return at


def add(place: Place, pop: Pop, keep_s: float = KEEP_S) -> Step:
    return Archive(place, pop.node).add(pop.store, keep_s)


def logged_rows(pop: Pop) -> dict[str, Row]:
    with pop.store.reading() as connection:
        return read_logged_rows(connection, pop.path)


# ---- adding and restoring --------------------------------------------------------------------------------


@pytest.mark.feature("recovery.archive")
def test_any_time_since_the_first_snapshot_can_be_restored(
    place: Place, pop: Pop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "_now", lambda: "2026-01-01T00:00:00.000Z")
    first = add(place, pop)
    assert first == Step(0, True, "2026-01-01T00:00:00.000Z", False)
    pop.add("a")
    pop.edit("UPDATE edgeproxy_changes SET at = '2026-01-01T00:00:01.000Z'")
    times = {weight: set_weight(pop, weight) for weight in (5, 6)}
    assert add(place, pop) == Step(3, False, times[6], False)
    times[7] = set_weight(pop, 7)
    assert add(place, pop).changes == 1
    assert add(place, pop).changes == 0
    archive = Archive(place, "pop-1")
    for weight, at in times.items():
        assert archive.rows_at(at).rows["a"]["weight"] == weight
    assert archive.rows_at("2026-01-01T00:00:00.500Z").rows == {}
    latest = archive.rows_at("")
    assert (latest.rows, latest.at) == (logged_rows(pop), times[7])
    with pytest.raises(StoreError, match=r"goes up to 2026-01-01T00:00:07\.000Z; what was at"):
        archive.rows_at("2027-01-01T00:00:00.000Z")
    with pytest.raises(StoreError, match=r"the archive begins at 2026-01-01T00:00:00\.000Z"):
        archive.rows_at("2025-01-01T00:00:00.000Z")


@pytest.mark.feature("recovery.archive")
def test_rows_of_an_archive_become_those_of_another_file(place: Place, pop: Pop, tmp_path: Path) -> None:
    pop.add("a", "b")
    pop.edit("UPDATE backends SET app = 'größe ''x''', weight = 1.5 WHERE id = 'a'")
    add(place, pop)
    other = Pop(tmp_path / "other.db", "pop-2")
    other.add("b", "c")
    other.captured()
    wanted = Archive(place, "pop-1").rows_at("")
    assert len(restore_rows(other.store, wanted.rows)) == 2
    assert other.table == pop.table
    assert {write.id for write in other.captured()} == {"a", "c"}
    assert restore_rows(other.store, wanted.rows) == []


def test_long_log_is_added_in_portions(
    folder: FolderPlace, pop: Pop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "CHANGES_PER_OBJECT", 2)
    monkeypatch.setattr(archive_module, "CHANGES_PER_SNAPSHOT", 4)
    add(folder, pop)
    pop.add("a", *"bcdef")
    assert [add(folder, pop)[:2] for _ in range(4)] == [(2, False), (2, False), (2, True), (0, False)]
    pop.add("g")
    step = add(folder, pop)
    assert (step.changes, step.snapshot, step.more) == (1, False, False)
    assert len(folder.names("pop-1/")) == 6
    assert Archive(folder, "pop-1").rows_at("").rows == logged_rows(pop)


def test_what_the_log_has_lost_begins_with_a_snapshot(folder: FolderPlace, pop: Pop) -> None:
    pop.add("a")
    add(folder, pop)
    pop.add("b", "c")
    pop.store.tend()
    pop.edit("DELETE FROM edgeproxy_changes WHERE change = 2")
    assert add(folder, pop)[:2] == (0, True)
    pop.add("d")
    assert add(folder, pop)[:2] == (1, False)
    assert Archive(folder, "pop-1").rows_at("").rows == logged_rows(pop)


def test_new_incarnation_begins_a_new_stream(folder: FolderPlace, pop: Pop) -> None:
    pop.add("a")
    add(folder, pop)
    with pop.store.transaction() as transaction:
        pop.store.renew(transaction.connection)
    pop.add("b")
    assert add(folder, pop).snapshot
    assert len({name.split("/")[1] for name in folder.names("")}) == 2
    assert set(Archive(folder, "pop-1").rows_at("").rows) == {"a", "b"}


def test_what_is_older_than_is_kept_is_removed(
    folder: FolderPlace, pop: Pop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "CHANGES_PER_SNAPSHOT", 2)
    moments = iter(["2001-01-01T00:00:00.000Z", "2001-01-02T00:00:00.000Z", "2001-01-03T00:00:00.000Z"])
    monkeypatch.setattr(archive_module, "_now", lambda: next(moments))
    add(folder, pop)
    with pop.store.transaction() as transaction:
        pop.store.renew(transaction.connection)
    add(folder, pop)
    pop.add("a", "b")
    add(folder, pop)
    names = [name.rpartition("/")[2].partition("-")[0] for name in folder.names("")]
    assert names == ["snapshot"]
    assert set(Archive(folder, "pop-1").rows_at("").rows) == {"a", "b"}


def test_pending_edits_wait_for_their_author(
    folder: FolderPlace, pop: Pop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pop.add("a")
    monkeypatch.setattr(pop.store, "tend", lambda: None)
    assert add(folder, pop)[:2] == (0, True)
    assert Archive(folder, "pop-1").rows_at("").rows == {}


def test_object_can_be_replaced_and_removed(place: Place) -> None:
    for content in (b"one", b"two"):
        place.write("a/b", content)
    place.write("b", b"")
    assert (place.read("a/b"), place.names("a/"), place.names("")) == (b"two", ["a/b"], ["a/b", "b"])
    for name in ("a/b", "a/b", "nothing"):
        place.remove(name)
    assert place.names("") == ["b"]


def test_two_pops_share_a_place(folder: FolderPlace, pop: Pop, tmp_path: Path) -> None:
    other = Pop(tmp_path / "other.db", "pop-2")
    other.add("z")
    pop.add("a")
    add(folder, pop)
    add(folder, other)
    assert [set(Archive(folder, node).rows_at("").rows) for node in ("pop-1", "pop-2")] == [{"a"}, {"z"}]
    with pytest.raises(StoreError, match="the archive has nothing of pop-3"):
        Archive(folder, "pop-3").rows_at("")


# ---- what is refused -------------------------------------------------------------------------------------


def _flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def _sealed(packed: bytes) -> bytes:
    return sha256(packed).hexdigest().encode() + b"\n" + packed


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("changes", _flip, "is damaged: its checksum does not fit"),
        ("snapshot", _flip, "is damaged: its checksum does not fit"),
        ("snapshot", lambda content: content[:20], "is damaged: its checksum does not fit"),
        ("snapshot", lambda _: _sealed(b"nonsense"), "cannot be read"),
        ("changes", lambda _: _sealed(zstandard.compress(b"\x90x")), "cannot be read"),
    ],
)
def test_damaged_object_is_named(
    folder: FolderPlace, pop: Pop, kind: str, spoil: Callable[[bytes], bytes], message: str
) -> None:
    add(folder, pop)
    pop.add("a")
    add(folder, pop)
    (name,) = [each for each in folder.names("") if kind in each]
    folder.write(name, spoil(folder.read(name)))
    with pytest.raises(StoreError, match=message) as caught:
        Archive(folder, "pop-1").rows_at("")
    assert name in str(caught.value)


def test_missing_object_is_a_gap(folder: FolderPlace, pop: Pop) -> None:
    add(folder, pop)
    for row_id in "abc":
        pop.add(row_id)
        add(folder, pop)
    folder.remove([each for each in folder.names("") if "changes" in each][1])
    with pytest.raises(StoreError, match=r"cannot be followed .*: the entries 2 to 2 are missing"):
        Archive(folder, "pop-1").rows_at("")


def test_object_under_another_name_is_refused(folder: FolderPlace, pop: Pop) -> None:
    add(folder, pop)
    pop.add("a")
    add(folder, pop)
    (name,) = [each for each in folder.names("") if "changes" in each]
    folder.write(name[:-1] + "2", folder.read(name))
    folder.remove(name)
    with pytest.raises(StoreError, match="holds other changes than its name says"):
        Archive(folder, "pop-1").rows_at("")


def test_changes_that_do_not_lead_to_the_rows_are_not_archived(
    folder: FolderPlace, pop: Pop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pop.store, "tend", lambda: None)
    pop.add("a")
    pop.edit("UPDATE edgeproxy_changes SET new = 'port=1'")
    with pytest.raises(StoreError, match="cannot be archived: entry 1, of backend 'a', does not fit"):
        add(folder, pop)


def test_store_without_a_log_is_not_archived(folder: FolderPlace, pop: Pop) -> None:
    pop.edit("CREATE TABLE copy AS SELECT * FROM backends; DROP TABLE backends")
    pop.edit("ALTER TABLE copy RENAME TO backends")
    with pytest.raises(StoreError, match="cannot be archived: the ids of the table backends may repeat"):
        add(folder, pop)


@pytest.mark.parametrize("url", ["", "archive", "http://x/y", "file://host/x", "file:relative", "s3://"])
def test_url_that_names_no_archive_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="write file:///FOLDER or s3://BUCKET/PREFIX"):
        open_place(url)


def test_folder_that_cannot_be_used_is_an_error(tmp_path: Path, pop: Pop) -> None:
    (tmp_path / "file").write_text("in the way")
    place = open_place((tmp_path / "file" / "archive").as_uri())
    with pytest.raises(StoreError, match="cannot be used: Not a directory"):
        add(place, pop)


def test_bucket_that_is_not_there_is_an_error(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket(request, monkeypatch)
    with pytest.raises(StoreError, match=r"archive s3://nobodys/ cannot be used: .*NoSuchBucket"):
        open_place("s3://nobodys").names("")


def test_missing_library_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = {"boto3": None}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(StoreError, match=r"needs boto3, .*pip install 'edgeproxy\[s3\]'"):
        open_place("s3://ours")


# ---- by the change log alone -----------------------------------------------------------------------------


@pytest.mark.feature("recovery.point_in_time")
def test_log_leads_back_to_any_time_that_it_knows(pop: Pop) -> None:
    pop.add("a")
    pop.edit("UPDATE edgeproxy_changes SET at = '2026-01-01T00:00:01.000Z'")
    times = [set_weight(pop, weight) for weight in (5, 6)]
    assert [rows_at(pop.store, at)["a"]["weight"] for at in ("2026-01-01T00:00:01.000Z", *times)] == [2, 5, 6]
    with pytest.raises(StoreError, match=r"begins at 2026-01-01T00:00:01\.000Z; what was at 2025"):
        rows_at(pop.store, "2025-01-01T00:00:00.000Z")


def test_log_of_which_old_entries_were_dropped_knows_since_when(tmp_path: Path) -> None:
    pop = Pop(tmp_path / "quiet.db", "pop-1", max_changes=1)
    pop.add("a")
    pop.store.tend()
    times = [set_weight(pop, weight) for weight in (5, 6)]
    pop.captured()
    pop.store.tend()
    assert rows_at(pop.store, "2026-01-01T00:00:05.500Z")["a"]["weight"] == 5
    assert rows_at(pop.store, times[0])["a"]["weight"] == 5
    with pytest.raises(StoreError, match=f"begins at {times[0]}"):
        rows_at(pop.store, "2026-01-01T00:00:04.000Z")


def test_gap_in_the_log_is_named(pop: Pop) -> None:
    pop.add("a", "b", "c")
    pop.edit("DELETE FROM edgeproxy_changes WHERE change = 2")
    pop.edit("UPDATE edgeproxy_changes SET at = '2026-01-01T00:00:01.000Z' WHERE change = 1")
    with pytest.raises(StoreError, match=r"cannot be followed back to .*: the entries 2 to 2 are missing"):
        rows_at(pop.store, "2026-01-01T00:00:02.000Z")


def test_file_without_a_log_has_no_past(tmp_path: Path) -> None:
    pop = Pop(tmp_path / "new.db", "pop-1")
    with pytest.raises(StoreError, match="has no change log"):
        rows_at(pop.store, "2026-01-01T00:00:02.000Z")
    assert logged_rows(pop) == {}


def test_row_of_the_log_that_was_altered_is_named(pop: Pop) -> None:
    pop.add("a")
    pop.edit("UPDATE edgeproxy_rows SET image = 'nonsense'")
    with pytest.raises(StoreError, match="the row 'a' of the change log was altered"):
        logged_rows(pop)
