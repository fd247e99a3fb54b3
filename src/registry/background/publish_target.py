"""Places where the endpoints of services are published: a directory, or a prefix in a bucket of S3.

An object is called by the service, with `.json`; clients encode the name in their URLs. Everything here blocks.
"""

import contextlib
import hashlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from registry.errors import BadSettingsError
from registry.setting_types import BUCKET, check_publish_place
from wire.atomic_file import PUBLIC, remove_leftovers, replace_file

_SUFFIX = ".json"
_S3_TIMEOUT = 5.0
"""Seconds for which S3 may say nothing."""


class PublishTarget(Protocol):
    """A place for objects."""

    def digests(self) -> Mapping[str, bytes]:
        """Return the MD5 digests of the objects that are there, by their names.

        Raises:
            Exception: it cannot be told, in the words of the place.
        """

    def put(self, name: str, body: bytes) -> bytes:
        """Replace an object as a whole, and return its digest as ``digests()`` has it from now on.

        Raises:
            Exception: it could not be stored, in the words of the place.
        """


class DirectoryTarget(PublishTarget):
    """A directory, which a static server serves.

    Args:
        path: the directory; it is made when something is published.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def digests(self) -> Mapping[str, bytes]:
        """Return the digests of all files; one that cannot be read is left out, and is stored again.

        What a publisher that was killed has left half-written is removed.
        """
        remove_leftovers(self._path, time.time())
        digests = {}
        for path in self._path.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                # A fifo would be waited for.
                if path.is_file():
                    digests[path.name] = _digest(path.read_bytes())
        return digests

    def put(self, name: str, body: bytes) -> bytes:
        """Replace a file: a reader sees the former or the new one, also after a cut of power."""
        self._path.mkdir(parents=True, exist_ok=True)
        # A static server of another user reads it.
        replace_file(self._path / name, body, PUBLIC)
        return _digest(body)


class S3Target(PublishTarget):
    """A prefix in a bucket.

    Args:
        bucket: its name.
        prefix: what the names of all objects begin with.

    Raises:
        BadSettingsError: boto3 is not installed.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        try:
            import boto3  # noqa: PLC0415  # an extra, and only where S3 is asked
            from botocore.config import Config  # noqa: PLC0415
        except ImportError:
            raise BadSettingsError("s3:// needs boto3: pip install headcount[server,aws]") from None
        config = Config(
            connect_timeout=_S3_TIMEOUT, read_timeout=_S3_TIMEOUT, retries={"total_max_attempts": 2, "mode": "standard"}
        )
        self._bucket, self._prefix = bucket, prefix
        self._s3: Any = boto3.session.Session().client("s3", config=config)

    def digests(self) -> Mapping[str, bytes]:
        """Return the entity tags of all objects, which are digests unless they are encrypted by a key of KMS."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        listed = (each for page in pages for each in page.get("Contents", ()))
        return {each["Key"].removeprefix(self._prefix): _of_tag(each["ETag"]) for each in listed}

    def put(self, name: str, body: bytes) -> bytes:
        """Store an object."""
        stored = self._s3.put_object(
            Bucket=self._bucket,
            Key=f"{self._prefix}{name}",
            Body=body,
            ContentType="application/json",
            CacheControl="no-cache",
        )
        return _of_tag(stored["ETag"])


def target_of(text: str) -> PublishTarget:
    """Return the place that a setting or an option names.

    Raises:
        BadSettingsError: it names none, or what it needs is not installed.
    """
    try:
        check_publish_place(text)
    except ValueError as error:
        raise BadSettingsError(str(error)) from None
    url = BUCKET.fullmatch(text)
    if url is None:
        return DirectoryTarget(Path(text))
    prefix = (url["prefix"] or "").strip("/")
    return S3Target(url["bucket"], f"{prefix}/" if prefix else "")


def object_name(service: str) -> str:
    """Return the name of a service's object."""
    # Every name that a service may have is one of a file; anything else leads nowhere.
    return f"{quote(service, safe=':@~')}{_SUFFIX}"


def _digest(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def is_same(digests: Mapping[str, bytes], name: str, body: bytes) -> bool:
    """Return whether an object is known to have this content already."""
    return digests.get(name) == _digest(body)


def _of_tag(etag: str) -> bytes:
    text = etag.strip('"')
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-f]{32}", text) else b""
