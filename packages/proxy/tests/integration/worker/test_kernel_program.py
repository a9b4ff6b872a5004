"""The program as assembled and the C beside it decide alike, where there is a clang to compile the latter."""

from __future__ import annotations

import platform
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from random import Random

import pytest

from edgeproxy.core.dataplane.promotion import MESSAGE_COST_BYTES
from edgeproxy.worker import kernel_program
from edgeproxy.worker.kernel_maps import NEVER, KernelMaps
from edgeproxy.worker.kernel_probe import probe
from edgeproxy.worker.kernel_program import Maps, Word
from packages.proxy.tests.integration.worker.workers import (
    TIMEOUT_S,
    bound_listener,
    connected,
    need_kernel_relay,
    read_exactly,
)
from testkit.wait import wait_until

pytestmark = pytest.mark.feature("relay.kernel")

SOURCE = Path(kernel_program.__file__).with_suffix(".bpf.c")
SECTION = "sk_skb/stream_verdict"
_LOAD_MAP = 0x18
_PSEUDO_MAP_FD = 1


class Section:
    """One section of an ELF file of 64 bits, little-endian; see elf(5)."""

    def __init__(self, elf: bytes, header_at: int) -> None:
        self.name_at, _, _, _, offset, size, self.link = struct.unpack_from("<IIQQQQI", elf, header_at)
        self.data = elf[offset : offset + size]


def text_at(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode()


def link(elf: bytes, maps: Maps) -> bytes:
    """The program of an object file that clang made, with descriptors in the place of the maps' names."""
    headers_at = struct.unpack_from("<Q", elf, 40)[0]
    size, count, names_in = struct.unpack_from("<HHH", elf, 58)
    sections = [Section(elf, headers_at + number * size) for number in range(count)]
    by_name = {text_at(sections[names_in].data, section.name_at): section for section in sections}
    symbols = by_name[".symtab"]
    names = sections[symbols.link].data
    code = bytearray(by_name[SECTION].data)
    for at, info in struct.iter_unpack("<QQ", by_name[f".rel{SECTION}"].data):
        name_at = struct.unpack_from("<I", symbols.data, (info >> 32) * 24)[0]
        operation, registers = code[at], code[at + 1]
        assert operation == _LOAD_MAP
        descriptor = getattr(maps, text_at(names, name_at))
        struct.pack_into("<BBhi", code, at, operation, registers | _PSEUDO_MAP_FD << 4, 0, descriptor)
    return bytes(code)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The object file of the C source."""
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("there is no clang")
    made = tmp_path_factory.mktemp("bpf") / "program.o"
    include = f"-I/usr/include/{platform.machine()}-linux-gnu"  # where Debian keeps <asm/types.h>
    subprocess.run(
        [clang, "-O2", "-Wall", "-Werror", "-target", "bpf", include, "-c", SOURCE, "-o", made], check=True
    )
    return made.read_bytes()


def test_both_charge_a_message_the_same() -> None:
    assert f"#define MESSAGE_COST_BYTES {MESSAGE_COST_BYTES}\n" in SOURCE.read_text()


def test_the_compiled_one_passes_the_trial(compiled: bytes) -> None:
    need_kernel_relay()
    with closing(KernelMaps(pairs=1, assemble=partial(link, compiled))) as maps:
        probe(maps)


def test_both_decide_the_same_cases_alike(compiled: bytes, rng: Random) -> None:
    need_kernel_relay()
    seed = rng.random()
    with (
        closing(KernelMaps(pairs=1)) as assembled,
        closing(KernelMaps(pairs=1, assemble=partial(link, compiled))) as from_c,
    ):
        decisions = list(decide(assembled, Random(seed)))
        assert decisions == list(decide(from_c, Random(seed)))
    assert {where for where, *_ in decisions} == {"kernel", "worker", "end"}
    assert any(notices for *_, notices in decisions)


def decide(maps: KernelMaps, rng: Random) -> Iterator[tuple[str, list[int], list[int]]]:
    """Send messages, with credit of all kinds; for each, where it came out, the flow's words, and notices."""
    pair = maps.take_pair()
    assert pair is not None
    with ExitStack() as at_end:
        client, downstream = connection(at_end)
        backend, upstream = connection(at_end)
        cookies = [maps.insert(pair, downstream), maps.insert(pair + 1, upstream)]
        words = at_end.enter_context(maps.words(pair))
        for _ in range(200):
            message = rng.randbytes(rng.choice([1, 7, 600, 3_000]))
            charged, passed = words[Word.CHARGED], words[Word.PASSED]
            words[Word.LIMIT] = max(0, charged + rng.choice([-1, 0, 512, 513, 519, 2_000, 1 << 40]))
            words[Word.NOTICE_AT] = rng.choice([NEVER, max(0, charged - 1), charged, charged + 513, 0])
            client.sendall(message)
            wait_until(lambda: words[Word.CHARGED] > charged, reason="a decision", interval_s=0)  # noqa: B023
            maps.settle(downstream)
            if words[Word.PASSED] == passed:
                assert read_exactly(backend, len(message)) == message
                where = "kernel"
            else:
                where = "worker"
                if rng.random() < 0.7:
                    left = words[Word.PASSED] - words[Word.CONSUMED]
                    read_exactly(downstream, left)
                    words[Word.CONSUMED] += left
            yield where, list(words), list(maps.notices())
        client.shutdown(socket.SHUT_WR)
        left = words[Word.PASSED] - words[Word.CONSUMED]
        read_exactly(downstream, left)
        assert downstream.recv(1) == b""
        yield "end", list(words), list(maps.notices())
        for cookie in cookies:
            maps.remove(cookie)


def connection(at_end: ExitStack) -> tuple[socket.socket, socket.socket]:
    with bound_listener() as listener:
        one = at_end.enter_context(connected(listener.getsockname()))
        other = at_end.enter_context(listener.accept()[0])
    other.settimeout(TIMEOUT_S)
    return one, other
