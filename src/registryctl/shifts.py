"""Shifts of traffic: begun and steered from the command line, shown, and followed to their end."""

import time
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Raw, Struct
from rich.text import Text

from registryctl.client import Document, read
from registryctl.errors import NEGATIVE, CtlError, MissingError, UnreachableError, UsageError
from registryctl.outage import Outage
from registryctl.output import Cell
from registryctl.paths import path_of
from registryctl.session import Session
from wire.duration import ago, format_duration, parse_duration
from wire.share import read_percent

POLL_INTERVAL = 1.0
"""Seconds between two looks at a shift that is waited for."""
UNDER_WAY = 6
"""Exit status: the time to wait is over, and the shift is not."""
_STEPS, _EVERY, _ABORT_ABOVE, _MIN_REQUESTS = "5,25,50,100", "5m", "1%", 200
"""The plan of a shift of which nothing but the group is given; the help of the verb says it too."""
_MIN_HOLD_SHOWN = 60
"""Seconds of a hold from which they are shown: most end before."""

_STATES = {"running": "green", "paused": "cyan", "aborted": "red", "done": ""}
_FINAL = frozenset({"aborted", "done"})


class _Shift(Struct, frozen=True):
    """The fields of a shift by which a pipeline goes: an answer without them is that of another program."""

    service: str
    to: str
    state: Literal["running", "paused", "aborted", "done"]
    percent: float
    started_at: float
    held: str
    reason: str


class Wanted(Struct, frozen=True):
    """The words of the command line about a shift.

    Attributes:
        to: the group of a shift that is to begin; empty: none is.
        steps: its shares, as they were written; None here and below: not given.
        every: the duration of a step, as it was written.
        abort_above: the limit, as it was written.
        min_requests: the requests that a step needs.
        orders: the orders that were given.
    """

    to: str
    steps: str | None
    every: str | None
    abort_above: str | None
    min_requests: int | None
    orders: Sequence[str]


def run_shift(
    session: Session, service: str | None, wanted: Wanted, reason: str, *, wait: bool, longest: str | None
) -> int:
    """Begin, steer or show a shift, wait for its end if that is asked, and return the exit status."""
    seconds = None if longest is None else _duration("--for", longest)
    if service is None:
        if wanted.to or wanted.orders or wait or _plan_options(wanted):
            raise UsageError("shift: received no service", "name it: registryctl shift SERVICE ...")
        _show_all(session)
        return 0
    if len(wanted.orders) + bool(wanted.to) > 1:
        raise UsageError(
            f"shift: received {', '.join(f'--{each}' for each in (*(['to'] if wanted.to else []), *wanted.orders))}",
            "give one of them",
        )
    if not wanted.to and (given := _plan_options(wanted)):
        raise UsageError(f"shift: received {', '.join(given)} without --to", "name the group: --to revision=abc")
    if seconds is not None and not wait:
        raise UsageError("shift: received --for without --wait", "give --wait too")
    if wait:
        return _wait(session, _first_look(session, service, wanted, reason), seconds)
    document = _ask(session, service, wanted, reason)
    _show(session, document, _shift_of(document, service))
    return 0


def _first_look(session: Session, service: str, wanted: Wanted, reason: str) -> Document:
    try:
        return _shift_of(_ask(session, service, wanted, reason), service)
    except CtlError as error:
        if (error.from_registry and not _is_foreign(error, service)) or isinstance(error, UnreachableError):
            raise
        # The 404 of a load balancer says nothing of the shift, and the exit status of one would.
        raise UnreachableError(str(error), error.fix, from_registry=False) from None


def _shift_of(document: Raw, service: str) -> Document:
    """Return a document of a service's shift.

    Raises:
        UnreachableError: it is another document, so that no registry has written it.
    """
    shift = read(document)
    try:
        fields = msgspec.convert(shift, _Shift)
    except msgspec.ValidationError as error:
        raise UnreachableError(f"an answer is no shift of {service}: {error}", from_registry=False) from None
    if fields.service != service:
        raise UnreachableError(f"an answer is a shift of {fields.service}, and not of {service}", from_registry=False)
    return shift


def _is_foreign(error: CtlError, service: str) -> bool:
    """Return whether a 404 is that of another program: a registry's names the service."""
    return isinstance(error, MissingError) and service not in str(error)


def _ask(session: Session, service: str, wanted: Wanted, reason: str) -> Raw:
    path = path_of(service, rest="/shift")
    if wanted.to:
        return Raw(session.client.ask("POST", path, document=_request(wanted, reason)).content)
    for order in wanted.orders:
        return Raw(session.client.ask("POST", f"{path}/{order}", document={"reason": reason}).content)
    return session.client.get(path)


def _plan_options(wanted: Wanted) -> list[str]:
    """Return the options that were given and mean something for a new shift alone."""
    options = {
        "--steps": wanted.steps,
        "--every": wanted.every,
        "--abort-above": wanted.abort_above,
        "--min-requests": wanted.min_requests,
    }
    return [option for option, value in options.items() if value is not None]


def _request(wanted: Wanted, reason: str) -> dict[str, object]:
    return {
        "to": wanted.to,
        "steps": [_percent("--steps", step) for step in (wanted.steps or _STEPS).split(",")],
        "every": _duration("--every", wanted.every or _EVERY),
        "abort_above": _percent("--abort-above", wanted.abort_above or _ABORT_ABOVE),
        "min_requests": _MIN_REQUESTS if wanted.min_requests is None else wanted.min_requests,
        "reason": reason,
    }


def _percent(option: str, text: str) -> float:
    try:
        return read_percent(text)
    except ValueError:
        raise UsageError(f"shift: {option} has {text!r}, which is no percentage", "write it like 5 or 0.5%") from None


def _duration(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"shift: {option}: {error}") from None


def _wait(session: Session, shift: Document, longest: float | None) -> int:
    """Print what becomes of a shift until it is over; a registry that does not answer is asked again."""
    path = path_of(shift["service"], rest="/shift")
    began = time.monotonic()
    before, outage = "", Outage(session.screen)
    begun_at = shift["started_at"]
    while True:
        before = _tell(session, shift, before)
        if shift["started_at"] != begun_at:
            session.screen.note(f"another shift of {shift['service']} has taken its place")
            return NEGATIVE
        if shift["state"] in _FINAL:
            return 0 if shift["state"] == "done" else NEGATIVE
        if longest is not None and time.monotonic() - began >= longest:
            session.screen.note(f"{format_duration(longest)} are over, and the shift is {shift['state']}")
            return UNDER_WAY
        time.sleep(POLL_INTERVAL)
        try:
            shift = _shift_of(session.client.get(path), shift["service"])
            outage.end()
        except CtlError as error:
            foreign = _is_foreign(error, shift["service"])
            if isinstance(error, MissingError) and not (error.is_temporary or foreign):
                session.screen.note(
                    f"the shift is gone: {error}. The registry has forgotten the service, or its database was restored"
                )
                return NEGATIVE
            outage.note(error, foreign=foreign)


def _tell(session: Session, shift: Document, before: str) -> str:
    """Print a line when something has changed, and return what was compared."""
    served = _other_share(shift) if shift["state"] == "paused" else ""
    line = f"{shift['percent']:g} %  {shift['state']}  {shift['held'] or shift['reason']}{served and f'; {served}'}"
    # Numbers of a hold change at each look.
    compared = f"{shift['percent']} {shift['state']} {shift['reason']} {bool(shift['held'])} {served}"
    if compared != before:
        if session.json:
            session.screen.line(Raw(msgspec.json.encode(shift)))
        else:
            session.screen.say(Text(line, _STATES.get(shift["state"], "")))
    return compared


def _show(session: Session, document: Raw, shift: Document) -> None:
    if session.json:
        session.screen.document(document)
        return
    screen = session.screen
    style = _STATES.get(shift["state"], "")
    screen.say(
        f"{shift['service']} to {shift['to']}: ",
        (f"{shift['state']} at {shift['percent']:g} %", style),
        f", step {shift['step']} of {len(shift['steps'])} "
        f"({', '.join(f'{step:g}' for step in shift['steps'])} %, each for {format_duration(shift['every'])})",
    )
    screen.say(shift["reason"])
    if served := _other_share(shift):
        screen.say((served, "yellow"))
    if shift["held"]:
        seconds = round(shift["held_seconds"])
        since = f" (for {format_duration(seconds)})" if seconds >= _MIN_HOLD_SHOWN else ""
        screen.say((f"holds: {shift['held']}{since}", "yellow"))
    rows: list[tuple[Cell, ...]] = [
        (name, str(counts["requests"]), str(counts["errors"]), f"{counts['error_percent']:.2f} %", above)
        for name, counts, above in (
            (shift["to"], shift["group"], f"{shift['group']['surely_above']:.2f} %"),
            ("the rest", shift["rest"], ""),
        )
    ]
    head = ("group", "requests", "errors", "failed", "surely above")
    screen.table(head, rows, right=head[1:])
    if shift["state"] not in _FINAL:
        screen.say(
            f"{format_duration(round(shift['waited']))} of this step; taken back above the rest + "
            f"{shift['abort_above']:g} %, and each step needs {shift['min_requests']} requests"
        )
    begun, changed = (ago(session.client.now - shift[name]) for name in ("started_at", "changed_at"))
    why = f": {shift['why']}" if shift["why"] else ""
    screen.say(f"begun {begun} ago by {shift['actor']}{why}; changed {changed} ago by {shift['changed_by']}")


def _other_share(shift: Document) -> str:
    """Return the share that is served now in words; empty where it is that of the shift."""
    served = shift.get("served_percent")
    if "served_percent" not in shift or served == shift["percent"]:
        return ""
    words = "no share of its own" if served is None else f"{served:g} %"
    by = f", set by {shift['served_by']}" if shift["served_by"] else ""
    again = f"; --resume sets {shift['percent']:g} % again" if shift["state"] == "paused" else ""
    return f"{shift['to']} is served {words} now{by}{again}"


def _show_all(session: Session) -> None:
    document = session.client.get("/v1/shifts")
    shifts: Sequence[Document] = read(document)["shifts"]
    if session.json:
        session.screen.document(document)
        return
    if not shifts:
        session.screen.say("no service had a shift")
        return
    session.screen.table(("service", "to", "share", "state", "step", "why"), map(_row, shifts), right=("share", "step"))


def _row(shift: Document) -> tuple[Cell, ...]:
    state = Text(shift["state"], _STATES.get(shift["state"], ""))
    step = f"{shift['step']}/{len(shift['steps'])}"
    why = _other_share(shift) or shift["held"] or shift["reason"]
    return (shift["service"], shift["to"], f"{shift['percent']:g} %", state, step, why)
