"""Errors that end a verb, in one tree; each kind has an exit status of its own.

CtlError
├── UsageError        the command line or the environment says something impossible    2
├── MissingError      there is no such service, endpoint or override (404)             3
├── RejectedError     the registry refuses what is asked (422, other 4xx)              4
│   └── ConflictError  something else came first, or owns it (409)
└── UnreachableError  no registry answers, or it cannot do it now (5xx)                5

1 is no error: it is the exit status of a negative answer.
"""

from collections.abc import Iterable

NEGATIVE = 1
"""Exit status of a negative answer: a check that fails, an endpoint that gets no traffic."""


class CtlError(Exception):
    """Root of the errors that end a verb on purpose; the text is for people.

    Args:
        text: what was wrong.
        fix: what to do about it, when that is known.
        details: lines in front of the text, such as each fault of a definition.
        from_registry: False for the answer of another program, such as a load balancer's error page.
    """

    status = 1

    def __init__(self, text: str, fix: str = "", details: Iterable[str] = (), *, from_registry: bool = True) -> None:
        super().__init__(text)
        self.fix = fix
        self.details = tuple(details)
        self.from_registry = from_registry

    @property
    def is_temporary(self) -> bool:
        """Whether a registry may answer the same request later: none has now, or none can."""
        return not self.from_registry


class UsageError(CtlError):
    """The command line or the environment says something impossible."""

    status = 2


class MissingError(CtlError):
    """There is no such service, endpoint or override."""

    status = 3


class RejectedError(CtlError):
    """The registry understood the request, and refuses it."""

    status = 4


class ConflictError(RejectedError):
    """Something else came first, or owns what is to be changed."""


class UnreachableError(CtlError):
    """No registry answers, or none can do it now; the same command may work later."""

    status = 5

    @property
    def is_temporary(self) -> bool:
        """Always."""
        return True
