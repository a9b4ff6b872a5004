"""Where an archive can be: a folder, or a bucket that speaks the protocol of S3.

Objects have names with slashes, appear whole or not at all, and are never changed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from edgeproxy.errors import ConfigError, StoreError


class Place(Protocol):
    """Objects by name. Every method raises :class:`StoreError` when the place cannot be used now."""

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin so, in order."""
        ...

    def read(self, name: str) -> bytes:
        """Return what an object holds."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Make an object, or replace it."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is ignored."""
        ...


def open_place(url: str) -> Place:
    """Return the place that ``url`` names: ``file:///FOLDER`` or ``s3://BUCKET/PREFIX``.

    Raises:
        ConfigError: it names none.
        StoreError: what it takes to reach it is not installed, or not configured.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return FolderPlace(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return BucketPlace(parts.netloc, parts.path.strip("/"))
    raise ConfigError([f"{url} is no archive; write file:///FOLDER or s3://BUCKET/PREFIX"])


class FolderPlace:
    """A folder, which is made with the first object."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, prefix: str) -> list[str]:
        with self._translated_errors():
            # A name that begins with a dot is that of an object that is being written.
            found = [
                path.relative_to(self._folder).as_posix()
                for path in self._folder.rglob("*")
                if path.is_file() and not path.name.startswith(".")
            ]
        return sorted(name for name in found if name.startswith(prefix))

    def read(self, name: str) -> bytes:
        with self._translated_errors():
            return (self._folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        with self._translated_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(prefix=".", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(aside).replace(path)
            finally:
                Path(aside).unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        with self._translated_errors():
            (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"archive {self._folder} cannot be used: {error.strerror}") from error


class BucketPlace:
    """A bucket. Credentials, region and endpoint come from the environment, as for other tools."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = f"s3://{bucket}/{prefix}"
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise StoreError(
                f"archive {self._url} needs boto3, which is not installed; install it with: "
                "pip install 'edgeproxy[s3]'"
            ) from None
        self._errors = (BotoCoreError, ClientError)
        settings = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 3})
        with self._translated_errors():
            self._client: Any = boto3.client("s3", config=settings)

    def names(self, prefix: str) -> list[str]:
        with self._translated_errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            found = [each["Key"] for page in pages for each in page.get("Contents", ())]
        return sorted(key.removeprefix(self._prefix) for key in found)

    def read(self, name: str) -> bytes:
        with self._translated_errors():
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            content: bytes = found["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        with self._translated_errors():
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content)

    def remove(self, name: str) -> None:
        with self._translated_errors():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise StoreError(f"archive {self._url} cannot be used: {error}") from error
