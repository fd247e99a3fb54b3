"""Outages that a command which follows something goes on through: each reason is told once, on standard error."""

import time

from registryctl.errors import CtlError
from registryctl.output import Screen


class Outage:
    """Keeps a command that asks again and again alive while no registry answers.

    Args:
        screen: where people are told.
        longest: seconds after which the command ends with the error; None: it asks for ever.
    """

    def __init__(self, screen: Screen, longest: float | None = None) -> None:
        self._screen = screen
        self._longest = longest
        self._reason = ""
        """Why no registry answered last; empty: one did."""
        self._began: float | None = None
        """Monotonic time of the first request of this outage; None: there is no outage."""

    def note(self, error: CtlError, *, foreign: bool = False) -> None:
        """Take note that no registry has answered; ``foreign`` says that this looks like a registry's and is none.

        Raises:
            CtlError: the error itself: a registry has refused the request, or none has answered for too long.
        """
        now = time.monotonic()
        if self._began is None:
            self._began = now
        if not (error.is_temporary or foreign) or (self._longest is not None and now - self._began >= self._longest):
            raise error
        if str(error) != self._reason:
            self._reason = str(error)
            self._screen.note(f"asked again: {error}")

    def end(self) -> None:
        """Take note that a registry has answered."""
        self._reason, self._began = "", None
