"""The table of traffic as other processes get it, with ages instead of times."""

from msgspec import Struct


class WindowImage(Struct, array_like=True, frozen=True, gc=False):
    """The sums of one window; tuples, since the garbage collector goes through each list again and again."""

    counts: tuple[int, ...]
    buckets: tuple[int, ...]


class PairImage(Struct, array_like=True, frozen=True, gc=False):
    """A pair as other processes get it.

    Attributes:
        caller: the service that calls.
        location: region and zone of its Envoys.
        callee: the service that is called.
        windows: the sums by window.
        healthy: the endpoints of the callee that may be sent to.
        total: all endpoints of the callee.
        age: slots of 10 s since an Envoy counted these.
    """

    caller: str
    location: str
    callee: str
    windows: list[WindowImage]
    healthy: int
    total: int
    age: int = 0


class RouteImage(Struct, array_like=True, frozen=True, gc=False):
    """A route as other processes get it."""

    caller: str
    callee: str
    route: str
    windows: list[WindowImage]


class CallerImage(Struct, array_like=True, frozen=True, gc=False):
    """The time that the digests of a caller's Envoys cover, added up: milliseconds by window."""

    caller: str
    location: str
    milliseconds: list[int]


class ReporterImage(Struct, array_like=True, frozen=True, gc=False):
    """An Envoy that reports: since when, when last, and how often, as seconds ago; and the registrar beside it."""

    caller: str
    node: str
    location: str
    since: float
    last: float
    interval: float
    sender: str = ""


class TrafficImage(Struct, frozen=True, gc=False):
    """The whole table of a process, with ages instead of times."""

    pairs: list[PairImage] = []
    routes: list[RouteImage] = []
    callers: list[CallerImage] = []
    reporters: list[ReporterImage] = []
