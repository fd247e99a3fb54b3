"""SETTINGS of h2 in a seventh of the memory.

h2 keeps the values of each setting in a deque, which takes 760 bytes, and there are seventeen of them: half of what an
idle connection takes. Nearly all hold one value. This relies on one private name of h2.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from h2.settings import ChangedSetting, SettingCodes, Settings


class LeanSettings(Settings):
    """Settings whose values are in lists.

    Args:
        client: whether they are a client's.
        initial_values: those that differ from the defaults of HTTP/2.
    """

    def __init__(self, *, client: bool, initial_values: Mapping[SettingCodes, int] | None = None) -> None:
        super().__init__(client=client, initial_values=dict(initial_values or {}))
        self._shrink()

    def acknowledge(self) -> dict[SettingCodes | int, ChangedSetting]:
        """Return the values that have changed, and forget those before."""
        changed = super().acknowledge()
        self._shrink()
        return changed

    def _shrink(self) -> None:
        # h2 calls of a deque what these have, too.
        settings = cast("dict[SettingCodes | int, Sequence[int]]", self._settings)
        for code, values in settings.items():
            if not isinstance(values, _Values):
                settings[code] = _Values(values)


class _Values(list[int]):
    """The values of one setting: the one in force, and those that are not acknowledged."""

    __slots__ = ()

    def popleft(self) -> int:
        """Remove the value in force."""
        return self.pop(0)
