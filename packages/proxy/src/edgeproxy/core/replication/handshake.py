"""How two POPs convince each other that they belong to one cluster, before anything else is said.

QUIC keeps a connection secret from those who only watch, but says nothing about who is at the other end: its
certificates are made by each node at its start, and nobody has signed them. So each end proves that it knows
a key of the cluster, over everything that makes this connection this one::

    dialler                                    acceptor
    Hello: versions, cluster, node, nonce  →
                                           ←   Welcome: version, cluster, node, nonce
                                           ←   proof
    proof                                  →

A *proof* is an HMAC over both messages as they were sent, the side that gives it, and the fingerprint of the
acceptor's certificate as that side sees it. Somebody in between, who can only show a certificate of his own,
has the two ends prove different things; and what one end gives is of no use on another connection, nor to the
other end. The first key of a ring proves, every key is accepted, so that keys can be exchanged one POP after
the other.

A ring without keys proves nothing, and is for POPs that only talk over the loopback interface.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

import msgspec

from edgeproxy.core.wire.peer_frames import Frame

VERSION: Final = 1
"""Of the messages that replicas exchange. A POP speaks its own version and the one before."""
NONCE_BYTES: Final = 32
MAX_HANDSHAKE_BYTES: Final = 4 << 10
"""Of one frame, while nobody knows who sends it."""
MAX_NAME_BYTES: Final = 255

HELLO: Final = 1
WELCOME: Final = 2
PROOF: Final = 3
"""Kinds of frames, the same for ever: they come before a version is agreed on."""

_LABEL: Final = b"edgeproxy peers, proof 1"
_T = TypeVar("_T")


class Refused(StrEnum):
    """Why a peer is refused, for logs and metrics."""

    WRONG_KEY = "wrong_key"
    WRONG_CLUSTER = "wrong_cluster"
    VERSION = "version"
    """It speaks no version that we speak."""
    SAME_NODE = "same_node"
    """It goes by our own name."""
    OTHER_NODE = "other_node"
    """Another one was expected at that address."""
    MALFORMED = "malformed"
    """What it sent is no frame, no message, or not the one that is due."""
    SILENT = "silent"
    """It did not prove itself in time."""
    TOO_MANY = "too_many"
    """So many are proving themselves already."""
    FLOOD = "flood"
    """It sent more than it may before that was worked off."""
    UNPROTECTED = "unprotected"
    """It comes from another machine, and there are no keys."""


class HandshakeError(Exception):
    """The peer is refused; the text says why, for people."""

    def __init__(self, reason: Refused, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """What a dialler says of itself. Later versions may add fields at the end."""

    oldest: int
    """Version that it speaks."""
    newest: int
    cluster: str
    node: str
    run: str
    """Tells one start of a node from another."""
    nonce: bytes


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """What an acceptor answers."""

    version: int
    """The one to be spoken."""
    cluster: str
    node: str
    run: str
    nonce: bytes


class Terms(NamedTuple):
    """What this node says of itself to all."""

    cluster: str
    node: str
    run: str
    keys: Sequence[bytes]
    oldest: int = max(1, VERSION - 1)
    newest: int = VERSION


class Peer(NamedTuple):
    """Who proved to be at the other end."""

    node: str
    run: str
    version: int


class Dialler:
    """The side that made the connection. ``fingerprint`` is that of the certificate it was shown."""

    def __init__(self, terms: Terms, nonce: bytes, fingerprint: bytes, expected: str | None = None) -> None:
        """``expected`` is the node that is to answer, if that is known."""
        self._terms = terms
        self._fingerprint = fingerprint
        self._expected = expected
        self._hello = msgspec.msgpack.encode(
            Hello(terms.oldest, terms.newest, terms.cluster, terms.node, terms.run, nonce)
        )
        self._welcome = b""
        self._found: Peer | None = None
        self.peer: Peer | None = None
        """Once it has proven itself."""

    def begin(self) -> list[Frame]:
        """What to send first."""
        return [Frame(HELLO, self._hello)]

    def receive(self, frame: Frame) -> list[Frame]:
        """Take the next frame of the acceptor, return what to send.

        Raises:
            HandshakeError: it is refused.
        """
        if self._found is None:
            welcome = _message(frame, WELCOME, Welcome)
            _check_identity(self._terms, welcome.cluster, welcome.node, welcome.nonce)
            if not self._terms.oldest <= welcome.version <= self._terms.newest:
                raise _no_version(self._terms, welcome.version, welcome.version)
            if self._expected not in (None, welcome.node):
                raise HandshakeError(
                    Refused.OTHER_NODE, f"{self._expected} was expected there, and {welcome.node} answers"
                )
            self._welcome = frame.body
            self._found = Peer(welcome.node, welcome.run, welcome.version)
            return []
        _check_proof(self._terms, frame, b"acceptor", self._hello, self._welcome, self._fingerprint)
        self.peer = self._found
        return [_proof(self._terms, b"dialler", self._hello, self._welcome, self._fingerprint)]


class Acceptor:
    """The side that was dialled. ``fingerprint`` is that of its own certificate."""

    def __init__(self, terms: Terms, nonce: bytes, fingerprint: bytes) -> None:
        self._terms = terms
        self._nonce = nonce
        self._fingerprint = fingerprint
        self._hello = b""
        self._welcome = b""
        self._found: Peer | None = None
        self.peer: Peer | None = None
        """Once it has proven itself."""

    def receive(self, frame: Frame) -> list[Frame]:
        """Take the next frame of the dialler, return what to send.

        Raises:
            HandshakeError: it is refused.
        """
        terms = self._terms
        if self._found is None:
            hello = _message(frame, HELLO, Hello)
            version = min(hello.newest, terms.newest)
            if not max(hello.oldest, terms.oldest) <= version:
                raise _no_version(terms, hello.oldest, hello.newest)
            _check_identity(terms, hello.cluster, hello.node, hello.nonce)
            self._hello = frame.body
            self._welcome = msgspec.msgpack.encode(
                Welcome(version, terms.cluster, terms.node, terms.run, self._nonce)
            )
            self._found = Peer(hello.node, hello.run, version)
            proof = _proof(terms, b"acceptor", self._hello, self._welcome, self._fingerprint)
            return [Frame(WELCOME, self._welcome), proof]
        _check_proof(terms, frame, b"dialler", self._hello, self._welcome, self._fingerprint)
        self.peer = self._found
        return []


def _message(frame: Frame, kind: int, type_: type[_T]) -> _T:
    if frame.kind != kind:
        raise HandshakeError(Refused.MALFORMED, f"a message of kind {frame.kind} in place of kind {kind}")
    try:
        return msgspec.msgpack.decode(frame.body, type=type_)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise HandshakeError(Refused.MALFORMED, f"an undecodable message of kind {kind}: {error}") from error


def _check_identity(terms: Terms, cluster: str, node: str, nonce: bytes) -> None:
    if cluster != terms.cluster:
        theirs = cluster[:MAX_NAME_BYTES]
        raise HandshakeError(
            Refused.WRONG_CLUSTER, f"it belongs to cluster {theirs!r}, not {terms.cluster!r}"
        )
    if node == terms.node:
        raise HandshakeError(Refused.SAME_NODE, f"it goes by our own name, {node!r}")
    if not 0 < len(node.encode()) <= MAX_NAME_BYTES or len(nonce) != NONCE_BYTES:
        raise HandshakeError(Refused.MALFORMED, "its name or its nonce has a wrong length")


def _no_version(terms: Terms, oldest: int, newest: int) -> HandshakeError:
    return HandshakeError(
        Refused.VERSION, f"it speaks versions {oldest} to {newest}, we {terms.oldest} to {terms.newest}"
    )


def _check_proof(
    terms: Terms, frame: Frame, side: bytes, hello: bytes, welcome: bytes, fingerprint: bytes
) -> None:
    if frame.kind != PROOF:
        raise HandshakeError(Refused.MALFORMED, f"a message of kind {frame.kind} in place of a proof")
    said = _said(side, hello, welcome, fingerprint)
    proofs = [hmac.digest(key, said, sha256) for key in terms.keys or (b"",)]
    if not any(hmac.compare_digest(frame.body, each) for each in proofs):  # feature: replication.peers
        raise HandshakeError(
            Refused.WRONG_KEY, "it does not know a key of ours, or somebody is between it and us"
        )


def _proof(terms: Terms, side: bytes, hello: bytes, welcome: bytes, fingerprint: bytes) -> Frame:
    key = terms.keys[0] if terms.keys else b""
    return Frame(PROOF, hmac.digest(key, _said(side, hello, welcome, fingerprint), sha256))


def _said(side: bytes, *parts: bytes) -> bytes:
    """What a proof is about, so written that no two lists of parts are written alike."""
    return b"".join(len(each).to_bytes(4, "big") + each for each in (_LABEL, side, *parts))
