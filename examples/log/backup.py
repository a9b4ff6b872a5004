"""The log in an object store: what was agreed on, written once, and read into nodes that begin anew."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from examples.log.node import Disk
from examples.log.wire import Entry

_decoder = msgspec.msgpack.Decoder(list[bytes])


def back_up(s3: Any, bucket: str, name: str, payloads: list[bytes]) -> None:
    """Write entries in their order as one object; ``s3`` is a client of boto3."""
    s3.put_object(Bucket=bucket, Key=name, Body=zlib.compress(msgspec.msgpack.encode(payloads)))


def restore(s3: Any, bucket: str, name: str) -> Disk:
    """A disk for each node of a new log that begins with those entries.

    Raises:
        ValueError: the object is damaged.
    """
    try:
        body = zlib.decompress(s3.get_object(Bucket=bucket, Key=name)["Body"].read())
    except zlib.error as error:
        raise ValueError(f"{name}: {error}") from error
    return Disk(term=1, entries=[Entry(1, payload) for payload in _decoder.decode(body)])
