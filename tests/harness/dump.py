"""A backup of a database by pg_dump, and its restoration into another one by pg_restore, as docs/databases.md says."""

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from harness.cluster import PROGRAMS_VARIABLE, embedded_programs
from harness.postgres import Postgres


def dump(url: str, path: Path, *, programs: Path | None = None) -> None:
    """Write a database to a file, by the server's own programs or by others."""
    _run(programs, "pg_dump", "--format=custom", "--no-unlogged-table-data", f"--file={path}", url)


def restore(path: Path, url: str, *, programs: Path | None = None) -> None:
    """Restore a file into a database that is empty."""
    _run(programs, "pg_restore", "--exit-on-error", f"--dbname={url}", str(path))


def replace_database(server: Postgres, url: str, path: Path) -> None:
    """Restore a file beside a database that is in use, and let the copy take its name."""
    name = urlsplit(url).path[1:]
    copy = server.create_database()
    copied = urlsplit(copy).path[1:]
    restore(path, copy)
    server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    server.execute(f"ALTER DATABASE {name} RENAME TO {name}_broken")
    server.execute(f"ALTER DATABASE {copied} RENAME TO {name}")


def at_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _run(programs: Path | None, program: str, *arguments: str) -> None:
    # An older server does not know what a newer pg_restore sets; some distributions have the server alone.
    candidates = (programs or Path(os.environ.get(PROGRAMS_VARIABLE, "")), embedded_programs())
    path = next(each / program for each in candidates if (each / program).exists())
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
