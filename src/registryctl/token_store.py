"""Tokens on this machine, each in a file of its own that only its owner can read.

The file of a registry is named by its URL, so that logins at two registries never write the same file, and a token is
never sent to another address than the one that it was stored for.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from registryctl.errors import UsageError
from wire.atomic_file import replace_file

_DIRECTORY = Path("headcount", "tokens")
_MAX_FILE_NAME = 255
"""Bytes of a file's name on usual file systems."""


class TokenStore:
    """Tokens by the URLs of registries, in ``headcount/tokens`` of the user's configuration directory.

    Args:
        environ: the environment, which names the directory by XDG_CONFIG_HOME or HOME.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        # The XDG base directory specification ignores paths that are not absolute.
        configured = Path(environ.get("XDG_CONFIG_HOME", ""))
        home = Path(environ.get("HOME", ""))
        self._base = configured if configured.is_absolute() else home / ".config" if home.is_absolute() else None

    def path(self, url: str) -> Path:
        """Return the file of a registry.

        Raises:
            UsageError: the user has no directory for it.
        """
        if self._base is None:
            raise UsageError(
                "there is no place for tokens: neither HOME nor XDG_CONFIG_HOME is an absolute path",
                "set one of them, or name the token's file by REGISTRYCTL_TOKEN_FILE",
            )
        name = quote(_registry_of(url), safe="")
        if len(name) > _MAX_FILE_NAME:
            raise UsageError("the URL is too long for the name of a file", "set REGISTRYCTL_TOKEN_FILE instead")
        return self._base / _DIRECTORY / name

    def read(self, url: str) -> str | None:
        """Return what is stored for a registry; None: nothing is.

        Raises:
            UsageError: the file cannot be read, or others can read it too.
        """
        if self._base is None:
            return None
        path = self.path(url)
        try:
            with path.open() as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise UsageError(
                        f"{path} can be read by others than you",
                        "rotate the token, since others may have it, and run `registryctl login` again",
                    )
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeError) as error:
            raise UsageError(f"{path} cannot be read: {error}", "delete it and run `registryctl login` again") from None

    def write(self, url: str, token: str) -> Path:
        """Store a token, in the place of an earlier one at once; return its file.

        Raises:
            UsageError: it cannot be written.
        """
        path = self.path(url)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, f"{token}\n".encode())
        except OSError as error:
            fix = "set XDG_CONFIG_HOME to a directory of yours, or REGISTRYCTL_TOKEN_FILE"
            raise UsageError(f"{path} cannot be written: {error.strerror or error}", fix) from None
        return path

    def forget(self, url: str) -> bool:
        """Delete the token of a registry; return whether there was one.

        Raises:
            UsageError: it cannot be deleted.
        """
        path = self.path(url)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise UsageError(f"{path} cannot be deleted: {error.strerror or error}", "delete it yourself") from None
        return True


def _registry_of(url: str) -> str:
    """Return a URL as it names a registry: without a password, in small letters where case says nothing."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"
