"""What a worker finds out about its kernel, and what it does without."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgeproxy import capabilities
from edgeproxy.core.wire.frames import KernelCounts, Notice, Report
from edgeproxy.worker import bpf, kernel_probe
from edgeproxy.worker.kernel_maps import KernelMaps, cookie_of
from edgeproxy.worker.kernel_probe import KernelRefusedError, probe, take_up
from edgeproxy.worker.kernel_program import Assembler, Maps, assemble
from packages.proxy.tests.integration.worker.conftest import StartWorker
from packages.proxy.tests.integration.worker.test_relay import PROMOTED
from packages.proxy.tests.integration.worker.workers import (
    Backends,
    RealWorker,
    bound_listener,
    connected,
    in_background,
    kernel_refusal,
    need_kernel_relay,
    read_exactly,
    row,
)
from testkit.forked import started_as_ever

pytestmark = pytest.mark.feature("relay.kernel")

TRIED = (6, 18)

_PR_CAPBSET_DROP = 24
_SYS_ADMIN, _BPF = 21, 39
_MOV, _EXIT = 0xB7, 0x95
_TO_READ_FILES = 0b110


@pytest.fixture
def kernel() -> None:
    need_kernel_relay()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test waits no longer than it must for what does not come."""
    monkeypatch.setattr(kernel_probe, "_TIMEOUT_S", 0.05)


def in_a_thread(work: Callable[[], object]) -> None:
    """Run ``work`` where giving up capabilities costs nobody else any, with those that a root process has."""
    with in_background(work):
        pass


def answers(verdict: int) -> Callable[[Maps], bytes]:
    """A program that says the same of everything."""

    def program(_maps: Maps) -> bytes:
        asm = Assembler()
        asm.add(_MOV, 0, value=verdict)
        asm.add(_EXIT)
        return asm.bytes()

    return program


def without(instruction: bytes, instead: bytes) -> Callable[[Maps], bytes]:
    """The real program but for one instruction."""

    def program(maps: Maps) -> bytes:
        code = assemble(maps)
        assert code.count(instruction) == 1
        return code.replace(instruction, instead)

    return program


def test_a_kernel_on_which_it_was_tried_relays_if_it_lets_us() -> None:
    """Elsewhere tests are skipped when the kernel refuses; here that would hide a defect of ours."""
    if tuple(map(int, platform.release().split(".")[:2])) < TRIED:
        pytest.skip(f"this kernel is {platform.release()}")
    try:
        os.close(bpf.create_map(bpf.SOCKMAP, 4, 4, 2))
    except OSError as error:
        pytest.skip(f"this process may not make a sockmap: {error}")
    assert kernel_refusal() == ""


# ---- the self-test -------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernel")
def test_a_kernel_that_relays_passes_and_keeps_nothing() -> None:
    with closing(KernelMaps(pairs=1)) as maps:
        for _ in range(3):
            probe(maps)
        pair = maps.take_pair()
        assert pair is not None
        with pytest.raises(KernelRefusedError, match="found no place"):
            probe(maps)


NOTHING_PASSES, EVERYTHING_PASSES = answers(0), answers(1)
_RINGBUF_OUTPUT = bytes.fromhex("8500000082000000")


@pytest.mark.usefixtures("kernel", "impatient")
@pytest.mark.parametrize(
    ("program", "why"),
    [
        (NOTHING_PASSES, "early bytes"),
        (EVERYTHING_PASSES, "handing on"),
        (without(_RINGBUF_OUTPUT, bytes.fromhex("b700000000000000")), "no notice"),
    ],
)
def test_a_kernel_that_fails_is_refused_with_the_reason(program: Callable[[Maps], bytes], why: str) -> None:
    with closing(KernelMaps(pairs=1, assemble=program)) as maps, pytest.raises(KernelRefusedError, match=why):
        probe(maps)


@pytest.mark.usefixtures("kernel", "impatient")
def test_counts_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KernelMaps, "written_bytes", staticmethod(lambda _sock: 7))
    with closing(KernelMaps(pairs=1)) as maps, pytest.raises(KernelRefusedError, match="counts"):
        probe(maps)


@pytest.mark.usefixtures("kernel")
def test_what_the_verifier_says_is_told() -> None:
    with pytest.raises(OSError, match="R0 !read_ok"):
        KernelMaps(pairs=1, assemble=lambda _maps: bytes([_EXIT, 0, 0, 0, 0, 0, 0, 0]))


def test_a_machine_without_a_known_system_call_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(OSError, match=r"not known on vax"):
        bpf.create_map(bpf.HASH, 8, 8, 1)


@pytest.mark.usefixtures("kernel")
def test_a_socket_that_has_ended_is_not_taken_and_leaves_nothing(at_end: ExitStack) -> None:
    with closing(KernelMaps(pairs=1)) as maps, bound_listener() as listener:
        sock = at_end.enter_context(connected(listener.getsockname()))
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError, match="not supported"):
            maps.insert(0, sock)
        assert bpf.lookup(maps.maps.slots, cookie_of(sock)) is None


@pytest.mark.usefixtures("kernel")
def test_entries_come_and_go() -> None:
    with closing(KernelMaps(pairs=1)) as maps:
        assert bpf.lookup(maps.maps.slots, 99) is None
        bpf.update(maps.maps.slots, 99, 1)
        assert bpf.lookup(maps.maps.slots, 99) == 1
        maps.remove(99)
        assert bpf.lookup(maps.maps.slots, 99) is None
        with pytest.raises(FileNotFoundError):
            maps.remove(99)


# ---- capabilities --------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernel")
def test_capabilities_are_gone_when_the_program_is_loaded() -> None:
    def work() -> None:
        before = capabilities.permitted()
        take_up().close()
        assert capabilities.permitted() == before & _TO_READ_FILES
        with pytest.raises(KernelRefusedError, match="cannot be loaded"):
            take_up()

    in_a_thread(work)


@pytest.mark.usefixtures("kernel")
def test_what_is_handed_down_is_all_that_is_left_and_programs_inherit_it() -> None:
    def work() -> None:
        capabilities.keep_on_change_of_user()
        capabilities.hand_down(capabilities.FOR_THE_KERNEL_RELAY)
        assert capabilities.permitted() == capabilities.FOR_THE_KERNEL_RELAY
        ambient = Path("/proc/thread-self/status").read_text().partition("CapAmb:")[2].split()[0]
        assert int(ambient, 16) == capabilities.FOR_THE_KERNEL_RELAY

    in_a_thread(work)


@pytest.mark.usefixtures("kernel", "impatient")
def test_a_program_that_fails_its_test_is_unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[KernelMaps] = []

    def failing_maps() -> KernelMaps:
        made.append(KernelMaps(pairs=1, assemble=EVERYTHING_PASSES))
        return made[0]

    monkeypatch.setattr(kernel_probe, "KernelMaps", failing_maps)

    def work() -> None:
        with pytest.raises(KernelRefusedError, match="handing on"):
            take_up()

    in_a_thread(work)
    with pytest.raises(OSError, match="Bad file descriptor"):
        made[0].close()


def test_a_kernel_that_keeps_its_capabilities_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def __init__(self, _name: None, use_errno: bool) -> None: ...

        def prctl(self, *_arguments: object) -> int:
            return 0

        def capset(self, _header: object, _sets: object) -> int:
            ctypes.set_errno(1)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", Refusing)
    with pytest.raises(OSError, match="not permitted"):
        capabilities.drop()


# ---- worker processes ----------------------------------------------------------------------------


def talk(worker: RealWorker, backend: Backends) -> None:
    with connected(worker.address) as client, backend.accept() as served:
        for _ in range(3):
            client.sendall(b"question")
            assert read_exactly(served, 8) == b"question"
            served.sendall(b"answer")
            assert read_exactly(client, 6) == b"answer"


@pytest.mark.usefixtures("kernel")
def test_a_worker_tells_what_its_kernel_relays_and_has_no_powers_left(
    start_worker: StartWorker, backend: Backends
) -> None:
    worker = start_worker(row("a", backend.port), settings=PROMOTED)
    assert worker.take(Report).kernel == KernelCounts()
    status = Path(f"/proc/{worker.pid}/status").read_text()
    assert int(status.partition("CapPrm:")[2].split()[0], 16) & ~_TO_READ_FILES == 0
    talk(worker, backend)
    worker.take(Report, lambda report: report.kernel == KernelCounts(0, 1))


@pytest.mark.parametrize("number", [0, 1])
def test_a_worker_without_the_privilege_says_so_once_and_relays(
    start_worker: StartWorker, backend: Backends, number: int
) -> None:
    """It is started by a thread that may not pass the privilege on; only the first tells."""
    started: list[RealWorker] = []

    def start() -> None:
        libc = ctypes.CDLL(None)
        for capability in (_SYS_ADMIN, _BPF):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        with started_as_ever():
            started.append(start_worker(row("a", backend.port), settings=replace(PROMOTED, worker=number)))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    (worker,) = started
    talk(worker, backend)
    assert {report.kernel for report in worker.reports(ended=1)} == {None}
    notices = [frame for frame in worker.frames if isinstance(frame, Notice)]
    assert [notice.event for notice in notices] == ["the kernel relays no connections, workers do"] * (
        number == 0
    )
    assert all("cannot be loaded" in str(notice.fields["why"]) for notice in notices)
