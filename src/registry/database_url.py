"""The URL of PostgreSQL, as libpq reads it: from the environment once, or from a file for each new connection."""

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import structlog

from registry.errors import BadSettingsError

log = structlog.get_logger()

# Options of the URL whose values the driver would check only when it connects.
_URL_WORDS = {
    "sslmode": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
    "target_session_attrs": ["any", "primary", "standby", "read-write", "read-only", "prefer-standby"],
}
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""Options of the URL that name a file."""


class UrlFile:
    """A file that has the URL, such as a secret that is rotated: read again for each new connection.

    A file that cannot be read, or has no URL, is logged once and changes nothing: it may be half-written. Connections
    that are open stay.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = ""
        """The URL that was last read. Written by read(); empty before the first time."""
        self._fault = ""
        """What was wrong with the file at the last reading; empty when nothing was. Written by read()."""

    def read(self) -> str:
        """Return the URL that the file has now, or the last one that it had.

        Raises:
            BadSettingsError: it never had any.
        """
        fault = ""
        try:
            url = self._path.read_text().strip()
            check_url(url)
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            fault = "is no text in UTF-8"
        except ValueError as error:
            fault = str(error)
        else:
            self._last = url
        if fault and not self._last:
            raise BadSettingsError(f"REGISTRY_DATABASE_URL_FILE: {self._path} {fault}")
        if fault != self._fault:
            log.warning("database_url_file_ignored", file=str(self._path), reason=fault or "over: it has a URL again")
        self._fault = fault
        return self._last


DatabaseUrl = str | UrlFile
"""The URL, or what has it."""


def current_url(url: DatabaseUrl) -> str:
    """Return the URL for a connection that is made now."""
    return url if isinstance(url, str) else url.read()


def check_url(url: str) -> None:
    """Refuse a value that is no URL of PostgreSQL, without quoting it, as it may contain a password.

    Raises:
        ValueError: it is none.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("has to begin with postgresql://")
    try:
        parts = urlsplit(url)
        for host in parts.netloc.rpartition("@")[2].split(","):
            urlsplit(f"//{host}").port  # noqa: B018  # reading it is the check
    except ValueError:
        message = "the port is no number; characters like / # ? @ in the password have to be percent-encoded"
        raise ValueError(message) from None
    for name, option in parse_qsl(parts.query):
        if option not in _URL_WORDS.get(name, option):
            raise ValueError(f"{name} is none of {', '.join(_URL_WORDS[name])}")


def missing_file(url: str) -> str | None:
    """Return which file of TLS a URL names that is not there, as a sentence; None if there is none."""
    for name, value in parse_qsl(urlsplit(url).query):
        if name in _FILES and not Path(value).is_file():
            return f"{name} names {value}, and there is no such file"
    return None
