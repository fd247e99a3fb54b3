"""Replacing a file at once: a reader sees the former or the new content, whole."""

import os
import re
from contextlib import suppress
from pathlib import Path

PRIVATE = 0o600
"""Mode of files that their owner alone may read."""
PUBLIC = 0o644
"""Mode of files that everybody may read."""

_ASIDE = re.compile(r"\.[0-9a-f]{16}\.new", re.ASCII)
"""Names of files that are written aside."""
_MIN_LEFTOVER_AGE = 60.0
"""Seconds from now, in either direction, of a file written aside that nobody writes any more."""


def replace_file(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file aside and rename it, so that it is always whole, also after a loss of power.

    Args:
        path: the file; its directory exists. A link in its place is replaced, not followed.
        content: all of the new content.
        mode: the permissions, whatever the umask is.

    Raises:
        OSError: it cannot be written, which names ``path``; what was there stays.
    """
    try:
        _replace(path, content, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _replace(path: Path, content: bytes, mode: int) -> None:
    # A name that nobody else has: several processes may write the same file, and nobody can have put a link there.
    aside = path.with_name(f".{os.urandom(8).hex()}.new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            # Not every file system has modes; where the default is right, nothing is asked of it.
            if mode != PRIVATE:
                os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def remove_leftovers(directory: Path, now: float) -> None:
    """Remove files that were written aside and never renamed, since their process was killed.

    Args:
        directory: where files are replaced; there may be none.
        now: the time of day in seconds. A file may seem to be of the future, because clocks step.
    """
    for path in directory.glob(".*.new"):
        if _ASIDE.fullmatch(path.name):
            # One that cannot be removed keeps no other.
            with suppress(OSError):
                if abs(now - path.lstat().st_mtime) > _MIN_LEFTOVER_AGE:
                    path.unlink()
