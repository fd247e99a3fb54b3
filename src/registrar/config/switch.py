"""A setting that is on or off."""

from typing import Self

_WORDS = {"on": True, "true": True, "off": False, "false": False}


class Switch:
    """A value that is ``on`` or ``off``; YAML reads both as booleans, unless they are quoted.

    Attributes:
        on: whether it is on.
    """

    __slots__ = ("on",)

    def __init__(self, *, on: bool) -> None:
        self.on = on

    @classmethod
    def parse(cls, value: object) -> Self:
        """Parse ``on`` or ``off``.

        Raises:
            ValueError: it is neither.
        """
        on = _WORDS.get(str(value).strip().lower())
        if on is None:
            raise ValueError(f"{value!r} is neither on nor off")
        return cls(on=on)

    def __bool__(self) -> bool:
        return self.on

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Switch) and other.on == self.on

    def __hash__(self) -> int:
        return hash(self.on)

    def __str__(self) -> str:
        return "on" if self.on else "off"
