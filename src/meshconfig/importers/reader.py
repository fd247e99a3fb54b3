"""Reading a foreign document so that nothing of it is lost silently.

A reader notes each key that is taken. A key that nobody took when the import ends is a loss, so that a field that the
importer does not know, or forgot, is always printed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from meshconfig.importers.imported import Loss

T = TypeVar("T")

_NAMES: Mapping[type, str] = {str: "a text", int: "a whole number", bool: "true or false"}
_UNKNOWN = "it is not known here, and nothing stands for it in the imported files."


class Reader:
    """One object of a document.

    Args:
        value: what stands there; anything but an object is a loss, and reads as an empty one.
        file: the document's name.
        path: where the object stands in it.
        losses: where losses are noted.
    """

    def __init__(self, value: object, file: str, path: str, losses: list[Loss]) -> None:
        self.path = path
        self._file = file
        self._losses = losses
        self._taken: set[str] = set()
        """The keys that were asked for. Written by every method that reads one."""
        self._children: dict[str, list[Reader]] = {}
        """The objects within that were asked for, by key; each says what is left of its own."""
        self._value: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        if not isinstance(value, Mapping):
            self.lose("", f"it has to be an object, not {_shown(value)}; it was left out.")

    def __contains__(self, key: str) -> bool:
        """Return whether the key is there and not null."""
        return self._value.get(key) is not None

    @property
    def keys(self) -> Sequence[str]:
        """The keys, in the order of the document."""
        return [str(key) for key in self._value]

    def ignore(self, *keys: str) -> None:
        """Take keys that say nothing about traffic, such as times and identifiers."""
        self._taken.update(keys)

    def lose(self, key: str, reason: str) -> None:
        """Note that a key is not in the imported files; an empty key stands for the object itself."""
        self._taken.add(key)
        self._losses.append(Loss(self._file, self._at(key) if key else self.path, reason))

    def take(self, key: str, kind: type[T]) -> T | None:
        """Return the value of a key; None if it is absent, null or, which is a loss, of another type."""
        self._taken.add(key)
        value = self._value.get(key)
        if value is None:
            return None
        # A bool is an int in Python and no number in JSON.
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
        self.lose(key, f"it has to be {_NAMES[kind]}, not {_shown(value)}; it was left out.")
        return None

    def texts(self, key: str) -> list[str]:
        """Return a list of texts; an item of another type is a loss."""
        self._taken.add(key)
        return [each for each in self._items(key, str) if isinstance(each, str)]

    def child(self, key: str) -> "Reader | None":
        """Return the object of a key, the same one each time; None if it is absent or null."""
        self._taken.add(key)
        if self._value.get(key) is None:
            return None
        return self._adopted(key, [(self._at(key), self._value[key])])[0]

    def children(self, key: str) -> "list[Reader]":
        """Return the objects of a list, the same ones each time."""
        self._taken.add(key)
        items = self._items(key, Mapping)
        return self._adopted(key, [(f"{self._at(key)}[{index}]", each) for index, each in enumerate(items)])

    def finish(self) -> None:
        """Note every key that nobody took, here and in the objects within."""
        for key in self._value:
            if key not in self._taken:
                self.lose(str(key), _UNKNOWN)
        for children in self._children.values():
            for child in children:
                child.finish()

    def _items(self, key: str, kind: type) -> list[Any]:
        value = self._value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.lose(key, f"it has to be a list, not {_shown(value)}; it was left out.")
            return []
        for index, each in enumerate(value):
            if kind is str and not isinstance(each, str):
                self._losses.append(Loss(self._file, f"{self._at(key)}[{index}]", "it has to be a text."))
        return value

    def _adopted(self, key: str, values: "Sequence[tuple[str, object]]") -> "list[Reader]":
        if key not in self._children:
            self._children[key] = [Reader(value, self._file, path, self._losses) for path, value in values]
        return self._children[key]

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
