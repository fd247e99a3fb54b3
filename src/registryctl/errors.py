"""What can go wrong for the operator, in one tree; each kind has an exit status of its own.

CtlError
├── UsageError        the command line or the environment says something impossible    2
├── MissingError      there is no such service, endpoint or override (404)             3
├── RefusedError      the registry refuses what is asked (409, 422, other 4xx)         4
└── UnreachableError  no registry answers, or it cannot do it now (5xx)                5

1 is no error: it is the exit status of a negative answer.
"""

NEGATIVE = 1


class CtlError(Exception):
    """Root of what ends a verb on purpose; its text is for people.

    Args:
        said: what was wrong.
        mend: what to do about it, when that is known.
    """

    status = 1

    def __init__(self, said: str, mend: str = "") -> None:
        super().__init__(said)
        self.mend = mend


class UsageError(CtlError):
    """The command line or the environment says something impossible."""

    status = 2


class MissingError(CtlError):
    """There is no such service, endpoint or override."""

    status = 3


class RefusedError(CtlError):
    """The registry understood, and refuses."""

    status = 4


class UnreachableError(CtlError):
    """No registry answers, or none can do it now; the same command may work later."""

    status = 5
