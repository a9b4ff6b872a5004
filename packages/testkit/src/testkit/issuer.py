"""An identity provider for tests: it signs tokens, and publishes its keys over HTTP where clients look.

::

    with token_issuer() as issuer:
        service = Service(issuer=issuer.url, audience=issuer.audience)
        assert service.accepts(issuer.token(sub="alice"))
        for why, token in issuer.bad_tokens().items():
            assert not service.accepts(token), why

Needs the extra ``jwt``.
"""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, ClassVar

try:
    from joserfc import jwt
    from joserfc.jwk import ECKey, KeyParameters, KeySet, OctKey, RSAKey
except ImportError as error:
    raise ImportError("testkit.issuer needs joserfc: install edgeproxy-testkit[jwt]") from error

DISCOVERY_PATH = "/.well-known/openid-configuration"
KEYS_PATH = "/.well-known/jwks.json"
LIFETIME_S = 3600

Claims = dict[str, Any]
Key = ECKey | RSAKey


class TokenIssuer:
    """Signs with its newest key; publishes that one and those that it has not withdrawn.

    ``clock`` gives the time of issue, in seconds since 1970; ``algorithm`` is ES256 or RS256.
    """

    def __init__(self, url: str, *, algorithm: str = "ES256", clock: Callable[[], float] = time.time) -> None:
        self.url = url
        self.audience = "api.example"
        self.algorithm = algorithm
        self.requests: list[str] = []
        """Paths that were asked for, in order: how often a service fetches keys shows here."""
        self.failing = False
        """Whether every request is answered with 503."""
        self._clock = clock
        self._numbers = itertools.count(1)
        self._keys = [self._new_key()]

    @property
    def discovery_url(self) -> str:
        return self.url + DISCOVERY_PATH

    @property
    def keys_url(self) -> str:
        return self.url + KEYS_PATH

    # ---- tokens ------------------------------------------------------------------------------------

    def claims(self, *, without: tuple[str, ...] = (), **claims: Any) -> Claims:
        """What a token says: the usual claims, ``claims`` over them, none of ``without``."""
        now_s = int(self._clock())
        usual = {
            "iss": self.url,
            "aud": self.audience,
            "sub": "user|1",
            "email": "user-1@example.com",
            "name": "User One",
            "picture": "https://example.com/user-1.png",
            "iat": now_s,
            "nbf": now_s,
            "exp": now_s + LIFETIME_S,
        }
        return {name: value for name, value in {**usual, **claims}.items() if name not in without}

    def token(self, *, without: tuple[str, ...] = (), **claims: Any) -> str:
        """A signed token with :meth:`claims`."""
        return self._sign(self._keys[-1], self.claims(without=without, **claims))

    def expired_token(self, by_s: float = LIFETIME_S, **claims: Any) -> str:
        """One that was valid until ``by_s`` ago."""
        end_s = int(self._clock() - by_s)
        return self.token(iat=end_s - LIFETIME_S, nbf=end_s - LIFETIME_S, exp=end_s, **claims)

    def token_of_unknown_key(self, **claims: Any) -> str:
        """One that is signed by a key that is published nowhere."""
        return self._sign(self._new_key(), self.claims(**claims))

    def token_of_forged_key(self, **claims: Any) -> str:
        """One that names the published key, and is signed by another."""
        return self._sign(self._new_key(), self.claims(**claims), kid=self._keys[-1].kid)

    def bad_tokens(self, *required: str) -> Mapping[str, str]:
        """What no service may accept, by what is wrong with it; one is without each claim of ``required``.

        Without ``exp`` a token would be good for ever, without ``iss`` or ``aud`` it would be everybody's.
        """
        now_s = int(self._clock())
        good = self.token()
        head, body, signature = good.split(".")
        public_as_secret = OctKey.import_key(json.dumps(self._keys[-1].as_dict(private=False)))
        missing = dict.fromkeys(("exp", "iss", "aud", *required))
        return {
            "expired": self.expired_token(),
            "not yet valid": self.token(nbf=now_s + LIFETIME_S),
            "of an unknown key": self.token_of_unknown_key(),
            "of a forged key": self.token_of_forged_key(),
            "of another issuer": self.token(iss="https://elsewhere.example"),
            "for another audience": self.token(aud="another.example"),
            "not signed": f"{_encoded({'alg': 'none', 'typ': 'JWT'})}.{body}.",
            "signature cut off": f"{head}.{body}.",
            "signed with the public key": jwt.encode(
                {"alg": "HS256", "kid": self._keys[-1].kid},
                self.claims(),
                public_as_secret,
                algorithms=["HS256"],
            ),
            "changed afterwards": f"{head}.{_encoded(self.claims(sub='admin'))}.{signature}",
            "expiry is no number": self.token(exp="tomorrow"),
            "two parts": f"{head}.{body}",
            "empty": "",
            "no token": "not.a.token",
            **{f"without {claim}": self.token(without=(claim,)) for claim in missing},
        }

    # ---- keys --------------------------------------------------------------------------------------

    def rotate(self, *, withdraw_old: bool = False) -> None:
        """Sign with a new key from now on; tokens of the old one stay good unless it is withdrawn."""
        self._keys = [*([] if withdraw_old else self._keys), self._new_key()]

    def published_keys(self) -> Mapping[str, Any]:
        """The key set as clients get it."""
        return KeySet(list(self._keys)).as_dict(private=False)

    def answer(self, path: str) -> tuple[HTTPStatus, Mapping[str, Any]]:
        """What a request for ``path`` gets."""
        self.requests.append(path)
        if self.failing:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "switched off by the test"}
        if path == DISCOVERY_PATH:
            return HTTPStatus.OK, {
                "issuer": self.url,
                "jwks_uri": self.keys_url,
                "id_token_signing_alg_values_supported": [self.algorithm],
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
            }
        if path == KEYS_PATH:
            return HTTPStatus.OK, self.published_keys()
        return HTTPStatus.NOT_FOUND, {"error": f"nothing at {path}"}

    def _new_key(self) -> Key:
        named: KeyParameters = {"kid": f"key-{next(self._numbers)}", "use": "sig", "alg": self.algorithm}
        if self.algorithm.startswith("RS"):
            return RSAKey.generate_key(2048, named)
        return ECKey.generate_key("P-256", named)

    def _sign(self, key: Key, claims: Claims, kid: str | None = None) -> str:
        header = {"alg": self.algorithm, "kid": kid or key.kid}
        return jwt.encode(header, claims, key, algorithms=[self.algorithm])


@contextmanager
def token_issuer(
    *, algorithm: str = "ES256", clock: Callable[[], float] = time.time
) -> Iterator[TokenIssuer]:
    """An issuer that answers at its URL, on the loopback interface, until the block ends."""
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        issuer: ClassVar[TokenIssuer]

        def do_GET(self) -> None:
            with lock:
                status, document = self.issuer.answer(self.path)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.issuer = TokenIssuer(
            f"http://127.0.0.1:{server.server_port}", algorithm=algorithm, clock=clock
        )
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield Handler.issuer
        finally:
            server.shutdown()
            thread.join()


def _encoded(part: Claims) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
