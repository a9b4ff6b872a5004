"""Bearer tokens as files, one each, in a folder of their own.

Not in the routing database: that is replaced, copied and sent to others, and may be read-only. One file each,
because making or revoking a token is then one step of the file system, which needs no lock, and a
running proxy, which looks at the file at every request, sees it at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from edgeproxy.core.controlplane.tokens import (
    ID_BYTES,
    SECRET_BYTES,
    Scope,
    Token,
    digest,
    written_token,
)
from edgeproxy.errors import EdgeproxyError

_SUFFIX: Final = ".json"


class TokenFiles:
    """A :class:`edgeproxy.ports.TokenStore` in ``folder``, which need not exist.

    Every method raises :class:`~edgeproxy.errors.EdgeproxyError` when the folder or a file in it cannot be
    used, with its name and the reason.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, token_id: str) -> Token | None:
        """See :meth:`edgeproxy.ports.TokenStore.get`."""
        path = self._path(token_id)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Token)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EdgeproxyError(f"the token file {path} cannot be read: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise EdgeproxyError(f"{path} is no token file ({error}); remove it") from error

    def is_empty(self) -> bool:
        """See :meth:`edgeproxy.ports.TokenStore.is_empty`."""
        return not self._ids()

    def all(self) -> list[Token]:
        """Every token, the oldest first."""
        tokens = [token for each in self._ids() if (token := self.get(each)) is not None]
        return sorted(tokens, key=lambda token: (token.created_at_s, token.id))

    def create(self, scope: Scope, app: str | None, name: str, created_at_s: float) -> tuple[Token, str]:
        """Make a token; return it with its text, which is kept nowhere."""
        token_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        token = Token(token_id, name, scope, app, digest(secret), created_at_s)
        path = self._path(token_id)
        unfinished = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with open(unfinished, "xb", opener=_only_for_the_owner) as file:
                file.write(msgspec.json.encode(token))
                os.fsync(file.fileno())
            unfinished.rename(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise EdgeproxyError(
                f"no token can be made in {self._folder}: {error.strerror}; set EDGEPROXY_API_TOKENS_DIR"
            ) from error
        return token, written_token(token_id, secret)

    def revoke(self, token_id: str) -> bool:
        """Make a token worthless; false when there is none with this id."""
        if token_id not in self._ids():
            return False
        path = self._path(token_id)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise EdgeproxyError(f"the token file {path} cannot be removed: {error.strerror}") from error
        return True

    def _ids(self) -> list[str]:
        try:
            names = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise EdgeproxyError(
                f"the folder of tokens {self._folder} cannot be read: {error.strerror}; "
                "set EDGEPROXY_API_TOKENS_DIR"
            ) from error
        return [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]

    def _path(self, token_id: str) -> Path:
        return self._folder / f"{token_id}{_SUFFIX}"


def _only_for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
