"""The commit of the repository that definitions are from, asked of git where it is there."""

import subprocess
from pathlib import Path

GIT_TIMEOUT = 5.0
"""Seconds that git gets: on a network file system it may take long, and the commit is worth no wait."""
EDITED = "with uncommitted changes"


def commit_of(directory: Path) -> str:
    """Return the commit of a directory, with a note if something was edited; empty where git knows none."""
    head = _git(directory, "rev-parse", "HEAD")
    if not head:
        return ""
    edited = _git(directory, "status", "--porcelain", "--", ".")
    return f"{head} {EDITED}" if edited else head


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # fixed words
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""
