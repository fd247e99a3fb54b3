"""What one check found."""

import enum

from msgspec import Struct, structs
from msgspec.structs import force_setattr

_LONGEST_DETAIL = 1024
_CONTROLS = dict.fromkeys([*range(32), *range(127, 160)], " ")


class Outcome(enum.StrEnum):
    """How one check ended."""

    PASSED = "passed"
    DEGRADED = "degraded"
    FAILED = "failed"
    # Nobody could say: evidence for nothing, and so no reason to change anything.
    UNKNOWN = "unknown"
    # Somebody wants the endpoint out of rotation; it is drained for as long as this lasts.
    MAINTENANCE = "maintenance"


class Result(Struct, frozen=True):
    """One finished check; ``detail`` is for people and always fits into a registration.

    Attributes:
        outcome: what counts.
        detail: why.
        app_start: names the start of the app that was seen, where the check can tell one from another: with the
            next one everything that is known of the endpoint is void.
    """

    outcome: Outcome
    detail: str
    app_start: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "detail", printable(self.detail))

    def with_note(self, note: str) -> "Result":
        """Return the same result with ``note`` at the end of its detail, which is cut to make room for it."""
        return structs.replace(self, detail=f"{self.detail[: _LONGEST_DETAIL - len(note) - 2]}; {note}")


def printable(text: str) -> str:
    """Return ``text`` in one line without control characters, cut to the 1,024 that the wire carries."""
    # Half of a surrogate pair cannot be encoded as UTF-8.
    clean = text.encode(errors="replace").decode().translate(_CONTROLS)
    return " ".join(clean.split())[:_LONGEST_DETAIL]
