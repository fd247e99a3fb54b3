"""The type of settings that are durations: seconds, written like ``2s``."""

from typing import Self

from wire.duration import format_duration, parse_duration


class Duration(float):
    """A number of seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Parse a duration like ``1m30s``; a bare number counts as seconds.

        Raises:
            ValueError: the value is not a duration.
        """
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is not a duration; write it like 5s, 500ms or 1m30s")  # noqa: TRY004 - msgspec turns ValueError into an error with a path
        return cls(parse_duration(str(value)))

    def __str__(self) -> str:
        return format_duration(self)
