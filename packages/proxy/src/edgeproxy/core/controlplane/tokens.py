"""Bearer tokens: who may call the API, and for what.

A token is written ``edgeproxy_ID_SECRET``. The id is no secret; it names the token in lists and finds it
without looking at the others. The secret is 256 random bits, of which only the SHA-256 is kept. A slow hash
as for passwords would add nothing: there is no dictionary of such secrets to try, and a flood of false
tokens would cost a slow hash each.
"""

from __future__ import annotations

import hmac
import re
from enum import StrEnum
from hashlib import sha256
from typing import Final

import msgspec

SECRET_BYTES: Final = 32
ID_BYTES: Final = 6

_PREFIX: Final = "edgeproxy"
_TOKEN: Final = re.compile(rf"{_PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_([A-Za-z0-9_-]{{43}})")


class Scope(StrEnum):
    """What a token is for."""

    READ = "read"
    """Looking at backends and explanations."""
    REGISTER = "register"
    """Registering, renewing and deregistering backends of one app."""
    ADMIN = "admin"
    """All of that, for every app, and changing backends."""


class Token(msgspec.Struct, frozen=True):
    """A token as it is kept: all but the secret."""

    id: str
    name: str
    """For people; may be empty."""
    scope: Scope
    app: str | None
    """The app that a token of scope ``register`` is for; ``None`` with every other scope."""
    secret_sha256: str
    """In hexadecimal."""
    created_at_s: float
    """Wall time."""

    def permits(self, needed: Scope) -> bool:
        """Whether it is good for what needs ``needed``; of which app, is for the caller to check."""
        return self.scope in (needed, Scope.ADMIN)

    def has_secret(self, secret: str) -> bool:
        """Whether ``secret`` is the right one, told in a time that says nothing about how wrong it is."""
        return hmac.compare_digest(self.secret_sha256, digest(secret))


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return sha256(secret.encode()).hexdigest()


def written_token(token_id: str, secret: str) -> str:
    """The text that its holder gets."""
    return f"{_PREFIX}_{token_id}_{secret}"


def split_token(text: str) -> tuple[str, str] | None:
    """Return id and secret of a token, ``None`` when ``text`` is none."""
    match = _TOKEN.fullmatch(text)
    return (match[1], match[2]) if match else None
