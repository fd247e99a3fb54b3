"""Files of length-prefixed msgpack documents, which are whole or are not there, and are their owner's alone."""

import asyncio
import io
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

PRIVATE = 0o600
"""Mode of the files: metadata of endpoints may be confidential, and digests of tokens are."""

_LENGTH = 4
"""Bytes of the length before each document."""

_encoder = msgspec.msgpack.Encoder()


def encode(document: Struct) -> bytes:
    """Return a document as it stands in a file."""
    body = _encoder.encode(document)
    return len(body).to_bytes(_LENGTH, "big") + body


def documents_in(content: bytes) -> list[bytes]:
    """Return the documents of a file, still encoded.

    Raises:
        ValueError: the file ends in the middle of a document.
    """
    documents = []
    start = 0
    while start < len(content):
        size = int.from_bytes(content[start : start + _LENGTH], "big")
        start += _LENGTH
        document = content[start : start + size]
        if len(document) != size:
            raise ValueError("it ends in the middle of a document")
        documents.append(document)
        start += size
    return documents


async def write_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file aside and rename it, so that it is always whole.

    Args:
        path: the file; its directory is created if it is missing.
        pieces: the content. Each is made and written in a turn of its own: requests are answered between two, and only
            one is in memory.

    Raises:
        OSError: it cannot be written; what was there before is left.
    """
    # Each process has a name of its own: several may share the directory.
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        await _write(aside, pieces)
        await asyncio.to_thread(aside.replace, path)
    except OSError:
        # On a full disk an unfinished file would take room that others need.
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


async def _write(path: Path, pieces: Iterable[bytes]) -> None:
    out = await asyncio.to_thread(_begin, path)
    try:
        for piece in pieces:
            await asyncio.to_thread(_write_all, out, piece)
        await asyncio.to_thread(os.fsync, out.fileno())
    finally:
        await asyncio.to_thread(out.close)


def _begin(path: Path) -> io.FileIO:
    # An existing directory is left as it is: it may be shared on purpose.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
    # A file that a process left behind keeps its mode at open(). Not every file system has modes.
    with suppress(OSError):
        os.fchmod(out, PRIVATE)
    return io.FileIO(out, "wb")


def _write_all(out: io.FileIO, content: bytes) -> None:
    """Write all of the content: when the disk fills up, the kernel writes what fits and reports no error."""
    written = 0
    while written < len(content):
        written += out.write(memoryview(content)[written:]) or 0
