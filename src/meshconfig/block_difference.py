"""The fields in which two blocks of one type differ, with both values as files write them."""

from collections.abc import Iterator
from typing import TypeVar

from msgspec import Struct

from meshconfig.literal import durations, literal, written

_Block = TypeVar("_Block", bound=Struct)

BUILT_IN_VALUES = "on"
"""Stands for a block that is switched on with nothing but built-in values."""


def block_differences(
    before: _Block, after: _Block, *, leave_out: frozenset[str] = frozenset()
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the path and both values of each field that differs; blocks on both sides are entered.

    Args:
        before: one block.
        after: another one of the same type.
        leave_out: fields of the outermost block that are not compared.
    """
    for name in after.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if name in leave_out or old == new:
            continue
        if isinstance(old, Struct) and isinstance(new, Struct):
            yield from ((f"{name}.{path}", values) for path, values in block_differences(old, new))
        elif _are_blocks(old) and _are_blocks(new) and len(old) == len(new):
            for index, (old_item, new_item) in enumerate(zip(old, new, strict=True)):
                differing = block_differences(old_item, new_item)
                yield from ((f"{name}[{index}].{path}", values) for path, values in differing)
        else:
            duration = name in durations(type(after))
            yield name, (_switched(old, new, duration=duration), _switched(new, old, duration=duration))


def _are_blocks(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, Struct) for item in value)


def _switched(value: object, other: object, *, duration: bool) -> str:
    if isinstance(value, Struct) and other is None and not written(value):
        return BUILT_IN_VALUES
    return literal(value, duration=duration)
