"""Endpoints and services as they were at a past time, by the history."""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import msgspec
from msgspec import Raw
from rich.text import Text

from registryctl.client import ApiClient, Document, read
from registryctl.errors import MissingError, UsageError
from registryctl.event_lines import EventLines
from registryctl.output import Cell, Screen
from registryctl.paths import path_of
from registryctl.tables import ROUTABLE, STATUSES
from registryctl.times import clock
from wire.duration import ago, parse_duration

_MAX_SERVICES = 200
"""Services of which the past is asked for; each is a request."""
_MAX_EVENTS = 20
"""Events up to the past time that an explanation has."""


def read_moment(text: str, ask_time: Callable[[], float]) -> float:
    """Return a past time in seconds since 1970.

    Args:
        text: how long ago, like ``10m``; or a time in UTC, like ``2026-11-29T02:31:04Z`` or ``2026-11-29 02:31``.
        ask_time: returns the registry's time, by which a length of time is counted.

    Raises:
        UsageError: it is neither.
    """
    try:
        return ask_time() - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        fix = "say how long ago, like --at 10m, or a time in UTC, like --at 2026-11-29T02:31:04Z"
        raise UsageError(f"--at {text} is no time", fix) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


class Past:
    """Prints what the history has of a past time.

    Args:
        client: asks the registry.
        screen: where to print.
        at: the time, as the option has it.
    """

    def __init__(self, client: ApiClient, screen: Screen, at: str) -> None:
        self._client = client
        self._screen = screen
        self._at = read_moment(at, client.ask_time)

    def document(self, service: str) -> Raw:
        """Return the API's document of a service at that time."""
        return self._client.get(path_of(service, rest="/history"), {"at": f"{self._at:.3f}"})

    def documents(self, services: Sequence[str]) -> Raw:
        """Return the API's documents of some services at that time, as a list."""
        self._check_number(services)
        return Raw(msgspec.json.encode([self.document(name) for name in services]))

    def events(self, service: str, endpoint: str) -> Raw:
        """Return the newest events of an endpoint up to that time, as the API's document."""
        return self._client.whole("/v1/events", "events", self._until(service, endpoint), _MAX_EVENTS)

    def show_services(self, names: Sequence[str]) -> None:
        """Print the counts of some services, with a column for each status."""
        self._check_number(names)
        self._head()
        counts = [(name, Counter(row["status"] for row in self._listed(name))) for name in names]
        head = ("endpoints", *(status.lower() for status in STATUSES))
        rows: list[Sequence[Cell]] = [
            (name, str(count.total()), *(str(count[status]) for status in STATUSES), _trouble(count))
            for name, count in counts
        ]
        self._screen.table(("service", *head, ""), rows, right=head)

    def show_endpoints(self, service: str, statuses: Collection[str] = ()) -> None:
        """Print the endpoints of a service, each with the event that made it what it was."""
        self._head()
        rows: list[Sequence[Cell]] = [
            (
                row["endpoint"],
                self._screen.status(row["status"]),
                row["instance_id"],
                ago(self._at - row["since"]),
                row["reason"],
            )
            for row in self._listed(service)
            if not statuses or row["status"] in statuses
        ]
        if not rows:
            self._screen.note("no endpoint was listed, none that matches, or the history is not kept that long")
            return
        self._screen.table(("endpoint", "status", "instance", "since", "reason"), rows, right=("since",))

    def explain(self, service: str, endpoint: str) -> bool:
        """Print what an endpoint was and what had happened to it; return whether it got traffic."""
        row = self._row(service, endpoint)
        params = self._until(service, endpoint)
        events = [read(event) for event in self._client.pages("/v1/events", "events", params, _MAX_EVENTS)]
        if row is None and not events:
            raise MissingError(f"the history has nothing of {service} {endpoint} up to {self._time()}")
        served = _served(row)
        status = Text("not listed", "dim") if row is None else self._screen.status(row["status"])
        verdict = ("got traffic", "green") if served else ("got no traffic", "red")
        self._screen.say((f"{service} {endpoint}", "bold"), "  ", status, "  ", verdict, f"  at {self._time()}")
        if row is not None:
            self._screen.say(("because", "dim"))
            self._screen.say(f"  {row['reason']} ({ago(self._at - row['since'])} before)")
        self._screen.say(("what had happened", "dim"))
        lines = EventLines(self._screen, indent="  ", place=False)
        for event in reversed(events):
            lines.line(event)
        return served

    def served(self, service: str, endpoint: str) -> bool:
        """Return whether an endpoint got traffic at that time."""
        return _served(self._row(service, endpoint))

    def _row(self, service: str, endpoint: str) -> Document | None:
        return next((row for row in self._listed(service) if row["endpoint"] == endpoint), None)

    def _listed(self, service: str) -> list[Document]:
        rows: list[Document] = read(self.document(service))["endpoints"]
        return sorted(rows, key=lambda row: str(row["endpoint"]))

    def _until(self, service: str, endpoint: str) -> dict[str, object]:
        return {"service": service, "endpoint": endpoint, "until": f"{self._at:.3f}"}

    @staticmethod
    def _check_number(services: Sequence[str]) -> None:
        if len(services) > _MAX_SERVICES:
            fix = "name the beginning of their names, as in registryctl services shop --at 10m"
            raise UsageError(f"{len(services)} services are too many for --at, which asks for each of them", fix)

    def _head(self) -> None:
        self._screen.note(f"as it was at {self._time()}")

    def _time(self) -> str:
        return clock(self._at, utc=not self._screen.alive)


def _served(row: Document | None) -> bool:
    return row is not None and (row["status"] in ROUTABLE or row["status"] == "SILENT")


def _trouble(counts: Counter[str]) -> Text:
    if not counts:
        return Text("empty", "dim")
    served = sum(counts[status] for status in (*ROUTABLE, "SILENT"))
    return Text("" if served else "no routable endpoint", "red")
