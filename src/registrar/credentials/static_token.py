"""A token from the settings, or from a file that is read again when it changes."""

import time
from pathlib import Path

from registrar.config.secret import Secret
from registrar.event_log import EventLogger

_LOOK_INTERVAL = 1.0
"""Seconds between two looks at the file."""

log = EventLogger(__name__)


class WatchedToken:
    """A token that follows its file, if it has one.

    A file that cannot be read, or holds no token, changes nothing: the last token stays.

    Args:
        token: the token as the settings have it; empty for none.
        path: the file that it was read from; empty for none.
    """

    def __init__(self, token: str, path: str = "") -> None:
        self._token = token
        self._path = path
        # Inode, time of change and size of the file when it was read last; None before that and after a failure.
        self._signature: tuple[int, int, int] | None = None
        # Monotonic time of the last look at the file.
        self._looked_at = -_LOOK_INTERVAL
        # Why the file cannot be used; empty while it can.
        self.problem = ""

    @property
    def kind(self) -> str:
        """Where the token is from: ``none``, ``token`` or ``token_file``."""
        if self._path:
            return "token_file"
        return "token" if self._token else "none"

    def replace(self, token: str, path: str) -> None:
        """Follow new settings."""
        self._token, self._path, self._signature, self.problem = token, path, None, ""

    def read(self, *, at_once: bool = False) -> str:
        """Return the token, after a look at the file.

        The file is looked at once a second, or ``at_once``.
        """
        now = time.monotonic()
        if self._path and (at_once or now - self._looked_at >= _LOOK_INTERVAL):
            self._looked_at = now
            self._look()
        return self._token

    def _look(self) -> None:
        try:
            status = Path(self._path).stat()
            signature = (status.st_ino, status.st_mtime_ns, status.st_size)
            if signature == self._signature:
                return
            token = Secret.parse(Path(self._path).read_text("utf-8")).reveal()
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else "") or "it does not hold one line of ASCII text"
            if not self.problem:
                log.warning("token_file_unusable", path=self._path, reason=reason, meanwhile="the last token is sent")
            self._signature, self.problem = None, f"{self._path}: {reason}"
            return
        if self.problem or (self._signature is not None and token != self._token):
            log.info("token_file_read", path=self._path)
        self._token, self._signature, self.problem = token, signature, ""


class StaticToken:
    """The credential of a token in the settings or in a file."""

    def __init__(self, token: WatchedToken) -> None:
        self._token = token

    @property
    def bearer(self) -> str:
        """The token as it is now; empty for none."""
        return self._token.read()

    def accepted(self, bearer: str) -> None:
        """Ignore it: nothing depends on it."""

    def refused(self, bearer: str) -> bool:
        """Look at the file at once, and return whether it has another token."""
        return self._token.read(at_once=True) != bearer
