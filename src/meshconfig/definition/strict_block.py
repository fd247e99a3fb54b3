"""Settings that the blocks of all files share."""

from msgspec import Struct


class StrictBlock(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A block of a file; what it does not name is an error."""
