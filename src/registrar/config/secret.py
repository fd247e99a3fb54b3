"""The type of secret settings."""

from typing import Self

_HIDDEN = "(hidden)"


class Secret:
    """A text that logs, ``validate`` and tracebacks show as ``(hidden)``."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def parse(cls, value: object) -> Self:
        """Return the text as a secret, without surrounding white space.

        Raises:
            ValueError: the text is empty, or not allowed in a header.
        """
        text = str(value).strip()
        if not text or not (text.isascii() and text.isprintable()):
            # The message must not contain the value.
            raise ValueError("expected one line of printable ASCII text")
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
