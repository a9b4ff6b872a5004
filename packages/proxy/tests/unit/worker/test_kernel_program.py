"""The assembler, and what can be seen of the program without a kernel."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from edgeproxy.worker.kernel_program import Assembler, Maps, assemble

MAPS = Maps(slots=101, flows=102, sockets=103, notices=104)
_LOAD_MAP, _EXIT, _CALL = 0x18, 0x95, 0x85
_JUMP_CLASS = 0x05


def instructions(code: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Place, operation, registers, offset and value of each."""
    for at in range(len(code) // 8):
        yield (at, *struct.unpack_from("<BBhi", code, at * 8))


def test_an_instruction_is_eight_bytes_with_the_source_register_high() -> None:
    asm = Assembler()
    asm.add(0x7B, 10, 6, -8, -1)
    assert asm.bytes() == bytes([0x7B, 0x6A, 0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])


def test_a_jump_counts_from_the_next_instruction_and_a_map_takes_two_places() -> None:
    asm = Assembler()
    asm.add(0x15, 0, offset="end")
    asm.load_map(1, 42)
    asm.label("end")
    asm.add(_EXIT)
    found = list(instructions(asm.bytes()))
    assert found[0] == (0, 0x15, 0, 2, 0)
    assert found[1] == (1, _LOAD_MAP, 0x11, 0, 42)
    assert found[2] == (2, 0, 0, 0, 0)


def test_every_map_is_used_and_every_jump_goes_forward_to_an_instruction() -> None:
    code = list(instructions(assemble(MAPS)))
    second_halves = {at + 1 for at, operation, *_ in code if operation == _LOAD_MAP}
    assert {value for _, operation, _, _, value in code if operation == _LOAD_MAP} == set(MAPS)
    for at, operation, _, offset, _ in code:
        if operation & 0x07 == _JUMP_CLASS and operation not in (_CALL, _EXIT):
            assert offset >= 0
            assert at + 1 + offset < len(code)
            assert at + 1 + offset not in second_halves
    assert code[-1][1] == _EXIT
