"""The program that relays in the kernel, assembled from the listing below: where it runs is no compiler.

It is asked for each buffer that a promoted socket receives. ``kernel_program.bpf.c`` says the same in C, and
a test has both decide the same cases where there is a clang.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from edgeproxy.core.dataplane.promotion import MESSAGE_COST_BYTES

FLOW_BYTES: Final = 64
"""One direction's words in the map of flows: a cache line, so that two directions do not share one."""


class Word(IntEnum):
    """Place of each word of 8 bytes in a flow. The worker writes the first three, the program the others."""

    LIMIT = 0
    """It is handed on while no more than this is charged; 0 for a direction that the worker relays."""
    NOTICE_AT = 1
    """The worker is told when more than this is charged."""
    CONSUMED = 2
    """Bytes that the worker has read."""
    CHARGED = 3
    """What came: bytes, and a fixed cost for each buffer."""
    REDIRECTED = 4
    """Bytes handed on."""
    PASSED = 5
    """Bytes left to the worker. While it has not read all of them, what follows must not overtake them."""


class Maps(NamedTuple):
    """Descriptors of the maps that the program uses."""

    slots: int
    """Hash, cookie of a socket to its slot. That of its peer differs in the last bit."""
    flows: int
    """Array, slot to the words of what that socket has sent."""
    sockets: int
    """Sockmap, slot to socket. The program is attached here."""
    notices: int
    """Ring buffer of slots for the worker to see to."""


# Operation codes: arithmetic on 64 bits, loads, stores, jumps.
_ADD, _ADD_REG, _XOR = 0x07, 0x0F, 0xA7
_MOV, _MOV_REG = 0xB7, 0xBF
_LOAD_32, _LOAD_64, _STORE_32, _STORE_64, _LOAD_MAP = 0x61, 0x79, 0x63, 0x7B, 0x18
_JUMP_EQ, _JUMP_GT_REG, _JUMP_NE_REG, _JUMP_LE_REG = 0x15, 0x2D, 0x5D, 0xBD
_CALL, _EXIT = 0x85, 0x95

# Functions of the kernel.
_MAP_LOOKUP, _SOCKET_COOKIE, _REDIRECT_MAP, _RINGBUF_OUTPUT = 1, 46, 52, 130
_FORCE_WAKEUP = 2

_DROP, _PASS = 0, 1
_R0, _R1, _R2, _R3, _R4, _CONTEXT, _FLOW, _LENGTH, _SLOT, _STACK = 0, 1, 2, 3, 4, 6, 7, 8, 9, 10
_COOKIE_AT, _SLOT_AT, _CHARGED_AT = -8, -12, -24
"""Places on the stack."""


class Assembler:
    """Instructions one after the other; jumps go forward, to labels that are set later."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str, int]] = []
        self._labels: dict[str, int] = {}

    def add(
        self, operation: int, target: int = 0, source: int = 0, offset: int | str = 0, value: int = 0
    ) -> None:
        """One instruction; ``offset`` is that of a memory place, or the label to jump to."""
        self._code.append((operation, target, source, offset, value))

    def load_map(self, target: int, map_fd: int) -> None:
        """Have ``target`` point to a map; takes two places."""
        self.add(_LOAD_MAP, target, 1, value=map_fd)
        self.add(0)

    def point(self, target: int, stack_offset: int) -> None:
        """Have ``target`` point to a place on the stack."""
        self.add(_MOV_REG, target, _STACK)
        self.add(_ADD, target, value=stack_offset)

    def label(self, name: str) -> None:
        """Jumps to ``name`` come here."""
        self._labels[name] = len(self._code)

    def bytes(self) -> bytes:
        """The program as the kernel takes it."""
        return b"".join(
            struct.pack(
                "<BBhi",
                operation,
                source << 4 | target,
                offset if isinstance(offset, int) else self._labels[offset] - at - 1,
                value,
            )
            for at, (operation, target, source, offset, value) in enumerate(self._code)
        )


def assemble(maps: Maps) -> bytes:
    """The program for these maps."""
    asm = Assembler()
    word = {each: each * 8 for each in Word}

    asm.add(_MOV_REG, _CONTEXT, _R1)
    asm.add(_CALL, value=_SOCKET_COOKIE)
    asm.add(_STORE_64, _STACK, _R0, _COOKIE_AT)
    asm.load_map(_R1, maps.slots)
    asm.point(_R2, _COOKIE_AT)
    asm.add(_CALL, value=_MAP_LOOKUP)
    asm.add(_JUMP_EQ, _R0, offset="pass")
    asm.add(_LOAD_32, _SLOT, _R0)
    asm.add(_STORE_32, _STACK, _SLOT, _SLOT_AT)
    asm.load_map(_R1, maps.flows)
    asm.point(_R2, _SLOT_AT)
    asm.add(_CALL, value=_MAP_LOOKUP)
    asm.add(_JUMP_EQ, _R0, offset="pass")
    asm.add(_MOV_REG, _FLOW, _R0)

    # An end of the stream comes as a buffer without bytes; handed on, it would break the peer.
    asm.add(_LOAD_32, _LENGTH, _CONTEXT)
    asm.add(_JUMP_EQ, _LENGTH, offset="drop")

    # r3: charged before, r1: after
    asm.add(_LOAD_64, _R3, _FLOW, word[Word.CHARGED])
    asm.add(_MOV_REG, _R1, _LENGTH)
    asm.add(_ADD, _R1, value=MESSAGE_COST_BYTES)
    asm.add(_ADD_REG, _R1, _R3)
    asm.add(_STORE_64, _FLOW, _R1, word[Word.CHARGED])
    asm.add(_STORE_64, _STACK, _R1, _CHARGED_AT)

    # Tell the worker once, by the buffer that crosses the line.
    asm.add(_LOAD_64, _R4, _FLOW, word[Word.NOTICE_AT])
    asm.add(_JUMP_GT_REG, _R3, _R4, "told")
    asm.add(_JUMP_LE_REG, _R1, _R4, "told")
    asm.load_map(_R1, maps.notices)
    asm.point(_R2, _SLOT_AT)
    asm.add(_MOV, _R3, value=4)
    asm.add(_MOV, _R4, value=_FORCE_WAKEUP)
    asm.add(_CALL, value=_RINGBUF_OUTPUT)
    asm.label("told")

    asm.add(_LOAD_64, _R1, _STACK, _CHARGED_AT)
    asm.add(_LOAD_64, _R2, _FLOW, word[Word.LIMIT])
    asm.add(_JUMP_GT_REG, _R1, _R2, "leave")
    asm.add(_LOAD_64, _R1, _FLOW, word[Word.PASSED])
    asm.add(_LOAD_64, _R2, _FLOW, word[Word.CONSUMED])
    asm.add(_JUMP_NE_REG, _R1, _R2, "leave")

    asm.add(_LOAD_64, _R1, _FLOW, word[Word.REDIRECTED])
    asm.add(_ADD_REG, _R1, _LENGTH)
    asm.add(_STORE_64, _FLOW, _R1, word[Word.REDIRECTED])
    asm.add(_MOV_REG, _R1, _CONTEXT)
    asm.load_map(_R2, maps.sockets)
    asm.add(_MOV_REG, _R3, _SLOT)
    asm.add(_XOR, _R3, value=1)
    asm.add(_MOV, _R4, value=0)
    asm.add(_CALL, value=_REDIRECT_MAP)
    asm.add(_EXIT)

    asm.label("leave")
    asm.add(_LOAD_64, _R1, _FLOW, word[Word.PASSED])
    asm.add(_ADD_REG, _R1, _LENGTH)
    asm.add(_STORE_64, _FLOW, _R1, word[Word.PASSED])
    asm.label("pass")
    asm.add(_MOV, _R0, value=_PASS)
    asm.add(_EXIT)
    asm.label("drop")
    asm.add(_MOV, _R0, value=_DROP)
    asm.add(_EXIT)
    return asm.bytes()
