"""The result of one check."""

import enum

from msgspec import Struct, structs
from msgspec.structs import force_setattr

_MAX_DETAIL = 1024
"""Characters of a detail; the limit of the wire format."""
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], " ")


class Outcome(enum.StrEnum):
    """The outcome of one check."""

    PASSED = "passed"
    DEGRADED = "degraded"
    FAILED = "failed"
    # The check could not be made; the result changes nothing.
    UNKNOWN = "unknown"
    # An operator wants the endpoint out of rotation; it drains for as long as this lasts.
    MAINTENANCE = "maintenance"


class Result(Struct, frozen=True):
    """The result of one finished check.

    Attributes:
        outcome: the outcome.
        detail: the reason for people, one printable line that fits into a registration.
        app_start: identifies the start of the app, if the check can distinguish starts; another value begins a new
            incarnation of the endpoint.
    """

    outcome: Outcome
    detail: str
    app_start: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "detail", printable(self.detail))

    def with_note(self, note: str) -> "Result":
        """Return the same result with ``note`` at the end of its detail, which is shortened if necessary."""
        return structs.replace(self, detail=f"{self.detail[: _MAX_DETAIL - len(note) - 2]}; {note}")


def printable(text: str) -> str:
    """Return ``text`` as one line without control characters, cut to 1,024 characters."""
    # A lone surrogate cannot be encoded as UTF-8.
    clean = text.encode(errors="replace").decode().translate(_CONTROLS)
    return " ".join(clean.split())[:_MAX_DETAIL]
