"""The state of a pair of caller and callee in a word, and the pairs that a map can show."""

from collections.abc import Generator, Sequence
from typing import Generic, Literal, Protocol, TypeVar

from msgspec import Struct

MAX_MAP_SERVICES = 60
"""Services of one map: with twice as many no layout can be read. A caller counts once for each zone that is shown."""
DEGRADED_FROM = 0.01
"""The share of failed requests from which a pair is degraded."""
UNHEALTHY_FROM = 0.05
"""The share of failed requests from which a pair is unhealthy."""

Node = tuple[str, str]
"""A service, and the zone of its Envoys where a map tells callers of one zone from those of another."""
PairState = Literal["unhealthy", "degraded", "healthy", "no traffic"]
_FAILING: tuple[PairState, ...] = ("unhealthy", "degraded")
_WELL = len(_FAILING)

_ROUNDING = 1e-9
"""1 - 0.95 is a little more than 0.05, and other such differences are a little less than they should be."""


class Pair(Protocol):
    """The figures of a pair that a map goes by."""

    @property
    def caller(self) -> str:
        """The service that calls."""

    @property
    def location(self) -> str:
        """The region and zone of the callers' Envoys; empty: of all of them."""

    @property
    def callee(self) -> str:
        """The service that is called."""

    @property
    def requests_per_second(self) -> float:
        """The completed requests a second."""

    @property
    def success(self) -> float | None:
        """The share of completed requests that did not fail; None without requests."""


AnyPair = TypeVar("AnyPair", bound=Pair)


class MapSelection(Struct, Generic[AnyPair], frozen=True):
    """The pairs that a map shows, worst first, and the numbers of what it leaves out."""

    pairs: Sequence[AnyPair]
    services: int
    pairs_left_out: int
    services_left_out: int


def ends(pair: Pair) -> tuple[Node, Node]:
    """Return the nodes between which a map shows a pair: the callee is one for all zones."""
    return (pair.caller, pair.location), (pair.callee, "")


def state_of(success: float | None) -> PairState:
    """Return the state of a pair; without requests it is no success and no failure."""
    if success is None:
        return "no traffic"
    failed = 1 - success + _ROUNDING
    if failed >= UNHEALTHY_FROM:
        return "unhealthy"
    return "degraded" if failed >= DEGRADED_FROM else "healthy"


def select_in_steps(
    pairs: Sequence[AnyPair], limit: int = MAX_MAP_SERVICES
) -> Generator[None, None, MapSelection[AnyPair]]:
    """Return the first pairs that have no more services than the limit, in steps; ``rank`` says which come first.

    A pair between services that are shown already is shown with them.
    """
    shown: list[AnyPair] = []
    services: set[Node] = set()
    everyone: set[Node] = set()
    for pair in pairs:
        caller, callee = ends(pair)
        everyone.add(caller)
        everyone.add(callee)
        missing = (caller not in services) + (callee not in services and callee != caller)
        if len(services) + missing <= limit:
            services.add(caller)
            services.add(callee)
            shown.append(pair)
        yield
    return MapSelection(shown, len(services), len(pairs) - len(shown), len(everyone) - len(services))


def rank(pair: Pair) -> tuple[int, float, float, Node, Node]:
    """Return by what pairs are sorted: those that fail, with the most failures first, then the busiest ones."""
    rate, success = pair.requests_per_second, pair.success
    state = state_of(success)
    if success is None or state == "healthy":
        return (_WELL, 0.0, -rate, *ends(pair))
    return (_FAILING.index(state), -rate * (1 - success), -rate, *ends(pair))
