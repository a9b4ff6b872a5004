"""Random values of the types that msgspec encodes, taken from the types themselves."""

from __future__ import annotations

import math
from functools import cache
from random import Random
from typing import Any

from msgspec import inspect

_INTEGERS = (0, 1, -1, 127, 128, 65535, 65536, 2**31, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.5, 1e308, 5e-324, math.inf, math.nan)
_TEXTS = ("", "a", "BR", "backend-1", "*", "ü", "2001:db8::1", "\0", "x" * 300)
_MAX_ITEMS = 4


def draw_value(kind: object, rng: Random) -> Any:
    """Return a value of the type ``kind``."""
    return _draw(_type_info(kind), rng)


_type_info = cache(inspect.type_info)


def _draw(kind: inspect.Type, rng: Random) -> Any:
    match kind:
        case inspect.UnionType(types=kinds):
            return _draw(rng.choice(kinds), rng)
        case inspect.StructType(cls=struct, fields=fields):
            return struct(**{field.name: _draw(field.type, rng) for field in fields})
        case inspect.VarTupleType(item_type=item):
            return tuple(_draw(item, rng) for _ in range(rng.randrange(_MAX_ITEMS)))
        case inspect.ListType(item_type=item):
            return [_draw(item, rng) for _ in range(rng.randrange(_MAX_ITEMS))]
        case inspect.DictType(key_type=key, value_type=value):
            return {_draw(key, rng): _draw(value, rng) for _ in range(rng.randrange(_MAX_ITEMS))}
        case inspect.StrType():
            return rng.choice(_TEXTS)
        case inspect.IntType():
            return rng.choice(_INTEGERS)
        case inspect.FloatType():
            return rng.choice(_FLOATS)
        case inspect.BoolType():
            return rng.random() < 0.5
        case inspect.BytesType():
            return rng.randbytes(rng.choice((0, 1, 32, 300)))
        case inspect.EnumType(cls=members):
            return rng.choice(list(members))
        case inspect.NoneType():
            return None
        case _:
            raise TypeError(f"no way to draw a {kind}: add one to {__name__}")
