"""A setting that is never shown."""

from typing import Self

_HIDDEN = "(hidden)"


class Secret:
    """Text that logs, ``validate`` and tracebacks show as ``(hidden)``."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def parse(cls, value: object) -> Self:
        """Take the text as it is, without white space around it.

        Raises:
            ValueError: nothing is left, or it would not fit into a header.
        """
        text = str(value).strip()
        if not text or not (text.isascii() and text.isprintable()):
            # The value itself must not be in the message.
            raise ValueError("expected printable ASCII text in one line")
        return cls(text)

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return _HIDDEN

    __repr__ = __str__
