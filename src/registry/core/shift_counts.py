"""The attempts in one step of a shift, by the group that each endpoint was in when it had them.

Envoys count by address and port. An endpoint that has left keeps its attempts: a group that dies, and comes back at
another address, fails as much as one that stays. An endpoint that is deployed anew at the same address, and is in the
other group then, begins there with none.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from registry.core.endpoint import Endpoint
from registry.core.shares import fits_selector
from registry.core.shift_statistics import Counts
from wire.address import parse_endpoint


class _Member(Struct, frozen=True):
    """An endpoint as of the last look.

    Attributes:
        in_group: whether it is in the group of the shift, or was when it left.
        counts: the attempts at it since the step began.
        others: those of them that it had while it was not where it is now.
    """

    in_group: bool
    counts: Counts = Counts()
    others: Counts = Counts()

    @property
    def own(self) -> Counts:
        """The attempts that it had where it is now."""
        return self.counts.since(self.others)

    def moved(self, *, in_group: bool) -> "_Member":
        """Return it after a look at which group it is in."""
        return self if in_group == self.in_group else _Member(in_group, self.counts, self.own)


class StepCounts:
    """The attempts at both groups since a step began.

    Args:
        selector: the group of the shift.
    """

    def __init__(self, selector: str) -> None:
        self._fits = fits_selector(selector)
        self._members: dict[str, _Member] = {}
        """The endpoints that were counted and listed in this step, by ``address:port``. Written by `sums`."""

    def sums(
        self, counted: Mapping[str, Counts], endpoints: Mapping[tuple[str, int], Endpoint]
    ) -> tuple[Counts, Counts]:
        """Return what the group and the others had since the step began.

        Args:
            counted: what each endpoint had since then, as it is known now.
            endpoints: the endpoints of the service now.
        """
        group = rest = Counts()
        for name, counts in counted.items():
            member = self._members.get(name)
            endpoint = endpoints.get(parse_endpoint(name))
            if endpoint is not None:
                in_group = self._fits(endpoint)
                member = _Member(in_group) if member is None else member.moved(in_group=in_group)
            elif member is None:
                # It left before this process looked for the first time.
                continue
            member = replace(member, counts=counts)
            self._members[name] = member
            group += member.own if member.in_group else member.others
            rest += member.others if member.in_group else member.own
        return group, rest
