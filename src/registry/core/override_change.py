"""A change of some parts of an operator's override, and its effect on the override in force."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from registry.core.endpoint import Override
from registry.errors import NotFoundError
from wire.model import Text, Weight

Part = TypeVar("Part")

# The value of each part that has no effect.
_NOT_SET: dict[str, object] = {"weight": None, "canary": None, "drain": False}

ExpiresIn = Annotated[float, Meta(gt=0, le=31_536_000)]


class OverrideChange(Struct, forbid_unknown_fields=True, frozen=True):
    """The parts of an override to change; a part that is left out stays as it is.

    An override has one reason and one end for all of its parts: those of the newest change that names them.
    """

    weight: Annotated[Weight | UnsetType | None, Meta(description="Null takes the operator's weight back.")] = UNSET
    canary: Annotated[bool | UnsetType | None, Meta(description="Null takes the operator's word back.")] = UNSET
    drain: Annotated[bool | UnsetType, Meta(description="False takes the operator's drain back.")] = UNSET
    reason: Annotated[Text | UnsetType, Meta(description="Left out: the reason that is given stays.")] = UNSET
    expires_in: Annotated[
        ExpiresIn | UnsetType | None,
        Meta(description="Seconds until the whole override ends; null: never. Left out: the end stays."),
    ] = UNSET

    @property
    def is_empty(self) -> bool:
        """Whether no part is named."""
        return all(getattr(self, name) is UNSET for name in self.__struct_fields__)

    def apply(self, before: Override | None, now: float, actor: str) -> Override | None:
        """Return the override after the change, or None when no part of it is left.

        Args:
            before: the override in force.
            now: the database's time.
            actor: the operator.

        Raises:
            NotFoundError: the change only takes parts back, and none of them is set.
        """
        self._refuse_needless(before)
        before = before or Override(None, False, actor, "", now, None)
        after = Override(
            weight=_or(self.weight, before.weight),
            drain=_or(self.drain, before.drain),
            actor=actor,
            reason=_or(self.reason, before.reason),
            set_at=now,
            expires_at=_expiry(self.expires_in, before, now),
            canary=_or(self.canary, before.canary),
        )
        return after if after.sets_something else None

    @property
    def given_reason(self) -> str:
        """The reason that the change gives; empty: none."""
        return _or(self.reason, "")

    def by(self, actor: str) -> Callable[[Override | None, float], Override | None]:
        """Return the change as a function of the override in force and the database's time, as changesets take it."""
        return lambda before, now: self.apply(before, now, actor)

    def _refuse_needless(self, before: Override | None) -> None:
        named = [name for name in _NOT_SET if getattr(self, name) is not UNSET]
        taken_back = [name for name in named if getattr(self, name) is _NOT_SET[name]]
        if not taken_back or taken_back != named:
            return
        if before is None or all(getattr(before, name) == _NOT_SET[name] for name in taken_back):
            raise NotFoundError(
                f"no operator's override sets its {' or '.join(taken_back)}; there is nothing to take back"
            )


def _or(value: Part | UnsetType, before: Part) -> Part:
    return before if isinstance(value, UnsetType) else value


def _expiry(expires_in: float | UnsetType | None, before: Override, now: float) -> float | None:
    if isinstance(expires_in, UnsetType):
        return before.expires_at
    return None if expires_in is None else now + expires_in
