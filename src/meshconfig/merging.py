"""The fold of blocks onto values, field by field, and where each field of the result was written.

A block writes some fields of a value of the same type: nested ones merge by field, lists and mappings are replaced
whole, None switches off. On something that is off, or was never on, a block begins anew from the built-in values.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from msgspec import NODEFAULT, Struct, structs

from meshconfig.block import Block
from meshconfig.definition.health_check import HealthCheck
from meshconfig.definition.limit import Limit
from meshconfig.definition.rate_limit import RateLimit
from meshconfig.definition.sticky import Sticky
from meshconfig.effective import Origin
from meshconfig.position import BUILT_IN, Fault

S = TypeVar("S", bound=Struct)

_RIVALS: Mapping[type[Struct], Mapping[str, tuple[str, ...]]] = {
    Limit: {"retries": ("retry_budget",), "retry_budget": ("retries",)},
    HealthCheck: {"http": ("grpc", "tcp"), "grpc": ("http", "tcp"), "tcp": ("http", "grpc")},
    Sticky: {"by": ("name", "ttl")},
    RateLimit: {"by": ("header",)},
}
"""Fields of a lower layer that a field replaces too, as they say the same thing in another way."""
_OFF = (None, False)
"""Values that switch a field off, and so replace nothing else."""


class Layer(Struct, frozen=True):
    """One block of a precedence, with the name that people give to its rank."""

    name: str
    block: Block


class LazyOrigins(Mapping[str, Origin]):
    """Origins by the paths of values. They are looked for when somebody asks first, as compiling never does.

    A whole mesh has millions of values, of which a plan asks for few: each is looked for on its own.
    """

    def __init__(
        self, find: Callable[[], Mapping[str, Origin]], find_one: Callable[[str], Origin | None] | None = None
    ) -> None:
        self._find = find
        self._find_one = find_one
        self._origins: Mapping[str, Origin] | None = None  # None until somebody asks for all

    def __getitem__(self, path: str) -> Origin:
        """Return the origin of a value."""
        if self._origins is not None or self._find_one is None:
            return self._all()[path]
        origin = self._find_one(path)
        if origin is None:
            raise KeyError(path)
        return origin

    def __iter__(self) -> Iterator[str]:
        """Yield the path of each value."""
        return iter(self._all())

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._all())

    def _all(self) -> Mapping[str, Origin]:
        if self._origins is None:
            self._origins = self._find()
        return self._origins


BUILT_IN_ORIGIN = Origin("built in", BUILT_IN)


def merged(base: S, block: Block, faults: list[Fault]) -> S:
    """Return a value with what a block writes; required fields that nobody writes are faults."""
    values = written(base, block, faults)
    return structs.replace(base, **values) if values else base


def written(base: Struct, block: Block, faults: list[Fault]) -> dict[str, Any]:
    """Return the fields of a value that a block changes."""
    values = {}
    rivals = _RIVALS.get(block.kind)
    for name, value in block.values.items():
        if type(value) is Block:
            inner = getattr(base, name)
            result = made(value, faults) if inner is None else merged(inner, value, faults)
            if result is None:
                continue
            values[name] = result
        else:
            values[name] = _items(value, faults)
        if rivals is not None and value not in _OFF:
            for rival in rivals.get(name, ()):
                if rival not in block.values:
                    values[rival] = False if rival == "tcp" else None
    return values


def made(block: Block, faults: list[Fault]) -> Any:  # noqa: ANN401  # a value of the block's type
    """Return a block as a value; None where a required field is missing, which is a fault."""
    lacking = [name for name in required(block.kind) if name not in block.values]
    faults += [
        Fault(block.position(), f"{name} is missing here.", f"Write {name}.")
        for name in lacking
        if name not in block.places
    ]
    values = {
        name: made(value, faults) if type(value) is Block else _items(value, faults)
        for name, value in block.values.items()
    }
    return None if lacking else block.kind(**values)


def _items(value: Any, faults: list[Fault]) -> Any:  # noqa: ANN401  # any value
    """Return a value; of a list of blocks, what those say."""
    if type(value) is not tuple or not value or type(value[0]) is not Block:
        return value
    return tuple(item for item in (made(block, faults) for block in value) if item is not None)


def without(block: Block, field: str) -> Block:
    """Return a copy of a block without a field."""
    values = {name: value for name, value in block.values.items() if name != field}
    return structs.replace(block, values=values)


@cache
def required(kind: type[Struct]) -> tuple[str, ...]:
    """Return the fields of a type that have no built-in value."""
    return tuple(
        field.name
        for field in structs.fields(kind)
        if field.default is NODEFAULT and field.default_factory is NODEFAULT
    )


def origins(value: Struct, layers: list[Layer], path: str) -> Iterator[tuple[str, Origin]]:
    """Yield the path and the origin of each field of a value that was merged from layers, the highest first."""
    for name in value.__struct_fields__:
        yield from _origins_of(name, getattr(value, name), layers, f"{path}.{name}")


def origin_at(value: Struct, layers: list[Layer], fields: Sequence[str]) -> Origin | None:
    """Return the origin of one field of a value, by its path; None where the value has no such field."""
    origin, inner, current = BUILT_IN_ORIGIN, layers, value
    for name in fields:
        if not isinstance(current, Struct) or name not in current.__struct_fields__:
            return None
        origin, inner = _origin_of(name, inner)
        current = getattr(current, name)
    return origin


def _origins_of(name: str, value: Any, layers: list[Layer], path: str) -> Iterator[tuple[str, Origin]]:  # noqa: ANN401
    origin, inner = _origin_of(name, layers)
    yield path, origin
    if isinstance(value, Struct):
        yield from origins(value, inner, path)


def _origin_of(name: str, layers: list[Layer]) -> tuple[Origin, list[Layer]]:
    """Return the origin of a field, and the layers of its own fields."""
    inner: list[Layer] = []
    origin = None
    for layer in layers:
        writes = name in layer.block.values
        if not writes and not _replaces(layer.block, name):
            continue
        if origin is None:
            origin = Origin(layer.name, layer.block.position(name if writes else ""))
        below = layer.block.values.get(name)
        if type(below) is not Block:
            break
        inner.append(Layer(layer.name, below))
    return origin or BUILT_IN_ORIGIN, inner


def _replaces(block: Block, name: str) -> bool:
    rivals = _RIVALS.get(block.kind)
    if rivals is None:
        return False
    return any(name in rivals.get(field, ()) and value not in _OFF for field, value in block.values.items())
