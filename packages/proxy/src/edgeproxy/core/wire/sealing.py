"""Datagrams that only those can make and read who have a key of the cluster.

::

    b"eg"  how  length of the name  name of the cluster  nonce  AES-256-GCM of the payload, and its tag
      2     1           1               0 to 255           12              payload + 16

``how`` is 1 for that, and 0 for a payload that is not sealed: without a key, between nodes on one machine.
Everything before the nonce is authenticated, too. The name is not secret; it tells another cluster, whose
nodes somebody pointed here, from a wrong key.

The first key of the ring seals, each of them opens, so a key is exchanged in three steps: add the new one
behind the old at every node, then put it first at every node, then drop the old one.

A nonce is 12 random bytes. One key is good for four thousand million datagrams, which is what 50 nodes with
the usual interval send in a year; after that a nonce is likely enough to have come twice that a key should
have been exchanged. What is sealed is another key, derived from the one of the ring, because connections
between peers prove that they know that one.

Whoever recorded a datagram can send it again. Nothing comes of it: claims in it have been beaten or are
still true, questions in it get an answer that goes to whoever sends, of which there are only so many at a
time, and an answer is taken only while its question waits, whose number is drawn anew at every start.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edgeproxy.core.wire.gossip_datagrams import MAX_DATAGRAM_BYTES, DatagramError, Refusal

NONCE_BYTES: Final = 12
MAX_CLUSTER_BYTES: Final = 255

_MAGIC: Final = b"eg"
_PLAIN, _SEALED = 0, 1
_TAG_BYTES: Final = 16
_HEAD_BYTES: Final = 4
_LABEL: Final = b"edgeproxy gossip, key 1"


class Keyring:
    """Seals and opens the datagrams of one cluster. Without keys they are open, and others are refused."""

    def __init__(self, cluster: str, keys: Sequence[bytes]) -> None:
        """``keys`` are of 32 bytes each; the name of the cluster has up to 255 bytes."""
        name = cluster.encode()
        self._name = name
        self._ciphers = [AESGCM(hmac.digest(key, _LABEL, sha256)) for key in keys]
        self._head = _MAGIC + bytes((_SEALED if keys else _PLAIN, len(name))) + name
        self.payload_bytes = MAX_DATAGRAM_BYTES - len(self._head) - (NONCE_BYTES + _TAG_BYTES if keys else 0)
        """How much fits into a datagram."""

    def seal(self, payload: bytes, nonce: bytes) -> bytes:
        """Return the datagram that holds ``payload``. No nonce may come twice."""
        if not self._ciphers:
            return self._head + payload
        return self._head + nonce + self._ciphers[0].encrypt(nonce, payload, self._head)

    def open(self, datagram: bytes) -> bytes:
        """Return the payload of a datagram.

        Raises:
            DatagramError: it was not made by somebody with a key of the ring, for this cluster.
        """
        if len(datagram) > MAX_DATAGRAM_BYTES:
            raise DatagramError(Refusal.OVERSIZED, f"it has {len(datagram)} bytes")
        if len(datagram) < _HEAD_BYTES or datagram[:2] != _MAGIC or datagram[2] > _SEALED:
            raise DatagramError(Refusal.MALFORMED, "it does not begin like a datagram of members")
        head_bytes = _HEAD_BYTES + datagram[3]
        name, body = datagram[_HEAD_BYTES:head_bytes], datagram[head_bytes:]
        if len(name) < datagram[3]:
            raise DatagramError(Refusal.MALFORMED, "it was cut")
        if name != self._name:
            theirs = name.decode(errors="replace")
            raise DatagramError(Refusal.WRONG_CLUSTER, f"it is for cluster {theirs!r}")
        if datagram[2] == _PLAIN:
            if self._ciphers:
                raise DatagramError(Refusal.UNPROTECTED, "it is not sealed")
            return body
        if len(body) < NONCE_BYTES + _TAG_BYTES:
            raise DatagramError(Refusal.MALFORMED, "it was cut")
        nonce, sealed, head = body[:NONCE_BYTES], body[NONCE_BYTES:], datagram[:head_bytes]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, sealed, head)  # feature: replication.keys
            except InvalidTag:
                continue
        raise DatagramError(Refusal.WRONG_KEY, "no key of ours opens it, or it was changed on its way")
