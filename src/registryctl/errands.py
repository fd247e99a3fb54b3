"""Errands to Envoys: asked of the registry, waited for, and shown."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from registryctl.client import read
from registryctl.errors import NEGATIVE, CtlError, UsageError
from registryctl.output import Cell
from registryctl.session import Session
from wire.address import parse_endpoint
from wire.errand import MAX_HOLD, MAX_SAMPLED_PERCENT

_MARGIN = 5.0
"""Seconds that an answer may take beside those that the registry waits."""
_MAX_OUTAGE = 60.0
"""Seconds for which a registry that cannot answer is asked again."""
_RETRY_INTERVAL = 1.0
_MAX_NAMES = 3
"""Envoys that a note names."""
_PENDING = ("asked", "collected")
_HEADERS = ("method", "path", "status", "ms", "authority", "request id")

Answer = dict[str, Any]
"""An errand of the API that is over."""


def _is_endpoint(target: str) -> bool:
    """Return whether a target is an endpoint, and no service."""
    try:
        parse_endpoint(target)
    except ValueError:
        return False
    return True


def ask(
    session: Session, target: str, arguments: Mapping[str, object], reason: str, everyone: str = ""
) -> list[Answer]:
    """Ask the Envoys of a service, or the one of an endpoint, and return the errands when they are over.

    Args:
        session: of the verb.
        target: a service, ``ip:port``, or ``service/ip:port`` where several services have that endpoint.
        arguments: as the API takes them, with the verb.
        reason: for the history.
        everyone: the service's name once more, to ask all of its registrars.
    """
    given = {name: value for name, value in arguments.items() if value not in ("", None)}
    document: dict[str, object] = {"arguments": given, "reason": reason}
    service, slash, endpoint = target.partition("/")
    if slash:
        document |= {"service": service, "endpoint": endpoint}
    else:
        document["endpoint" if _is_endpoint(target) else "service"] = target
    if everyone:
        document |= {"all": True, "confirm": everyone}
    asked = read(Raw(session.client.ask("POST", "/v1/errands", document=document).content))
    errands: list[Answer] = asked["errands"]
    if asked["registrars"] > len(errands):
        session.screen.note(f"{len(errands)} of {asked['registrars']} Envoys are asked; --all NAME asks every one")
    return [_wait(session, errand) for errand in errands]


def _wait(session: Session, errand: Answer) -> Answer:
    given_up = time.monotonic() + _MAX_OUTAGE
    while errand["state"] in _PENDING:
        path = f"/v1/errands/{errand['id']}"
        try:
            answer = session.client.ask("GET", path, {"wait": MAX_HOLD}, timeout=MAX_HOLD + _MARGIN)
        except CtlError as error:
            if not error.is_temporary or time.monotonic() > given_up:
                raise
            time.sleep(_RETRY_INTERVAL)
        else:
            errand = read(Raw(answer.content))
            given_up = time.monotonic() + _MAX_OUTAGE
    return errand


def show(session: Session, answers: Sequence[Answer], field: str, verb: str) -> int:
    """Print what Envoys answered, and note what others did not; return the exit status.

    Args:
        session: of the verb.
        answers: the errands.
        field: the field of a result that has the answer.
        verb: for the sentence when there is no answer at all.
    """
    if session.json:
        session.screen.document(Raw(msgspec.json.encode({"errands": answers})))
        return 0 if _done(answers) else NEGATIVE
    _note_silent(session, answers)
    done = _done(answers)
    if not done:
        session.screen.say(f"no Envoy answered: {verb}")
        # An Envoy whose registrar refuses is one that could be asked: others are of no more use.
        refused = any(answer.get("result") for answer in answers)
        if field in ("tap", "top") and not refused and not answers[0]["callee"]:
            session.screen.note(
                "--caller NAME asks the Envoys of a service that calls this one, and looks at what they send"
            )
        return NEGATIVE
    SHOWN[field](session, [(answer, answer["result"][field]) for answer in done])
    return 0


def _note_silent(session: Session, answers: Sequence[Answer]) -> None:
    """Note why Envoys did not answer: each reason once, with those that have it."""
    silent: dict[str, list[str]] = {}
    for answer in answers:
        result = answer.get("result") or {}
        if result.get("outcome") != "done":
            why = f"{result.get('outcome', 'no answer')}: {result.get('detail') or answer['explanation']}"
            silent.setdefault(why, []).append(f"{answer['service']} {answer['endpoint']}")
    for why, names in silent.items():
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        session.screen.note(f"{', '.join(names[:_MAX_NAMES])}{more}: {why}")


def _done(answers: Iterable[Answer]) -> list[Answer]:
    return [answer for answer in answers if (answer.get("result") or {}).get("outcome") == "done"]


Answered = Sequence[tuple[Answer, Mapping[str, Any]]]


def _show_tap(session: Session, answered: Answered) -> None:
    several = len(answered) > 1
    rows: list[tuple[Cell, ...]] = [
        (
            *((answer["endpoint"],) if several else ()),
            trace.get("method", ""),
            trace.get("path", ""),
            _status(trace),
            trace.get("upstream_milliseconds", ""),
            trace.get("authority", ""),
            trace.get("request_id", ""),
        )
        for answer, tap in answered
        for trace in tap.get("traces", ())
    ]
    if rows:
        session.screen.table((*(("envoy",) if several else ()), *_HEADERS), rows, right=("ms",))
    _say_sampled(session, answered, len(rows), "seen")


def _show_top(session: Session, answered: Answered) -> None:
    added: dict[tuple[str, str], dict[str, float]] = {}
    for _, top in answered:
        for row in top.get("rows", ()):
            sums = added.setdefault((row["method"], row["path"]), {"requests": 0, "failures": 0, "p50": 0, "max": 0})
            sums["requests"] += row["requests"]
            sums["failures"] += row.get("failures", 0)
            # Of several Envoys, that of the slowest.
            sums["p50"] = max(sums["p50"], row.get("p50") or 0)
            sums["max"] = max(sums["max"], row.get("max") or 0)
    total = sum(sums["requests"] for sums in added.values())
    rows: list[tuple[Cell, ...]] = [
        (
            method,
            path or "(any)",
            f"{sums['requests']:.0f}",
            f"{100 * sums['requests'] / total:.0f} %",
            f"{100 * sums['failures'] / sums['requests']:.0f} %",
            f"{sums['p50']:g}",
            f"{sums['max']:g}",
        )
        for (method, path), sums in sorted(added.items(), key=lambda item: -item[1]["requests"])
    ]
    if rows:
        head = ("method", "path", "requests", "share", "failed", "p50 ms", "max ms")
        session.screen.table(head, rows, right=head[2:])
    _say_sampled(session, answered, int(total), "added up")


def _say_sampled(session: Session, answered: Answered, count: int, what: str) -> None:
    (_, first), *_ = answered
    envoys = "an Envoy" if len(answered) == 1 else f"{len(answered)} Envoys"
    ids = ", ".join(sorted({str(result["config_id"]) for _, result in answered}))
    percent = first["percent"]
    requests = "1 request" if count == 1 else f"{count} requests"
    session.screen.say(
        f"{requests} {what} at {envoys} in {first['seconds']:g} s; {percent:g} % were looked at; tap filter {ids}"
    )
    left_out = sum(result.get("left_out", 0) for _, result in answered)
    if left_out:
        session.screen.note(f"{left_out} more did not fit into an answer")
    if not count:
        _note_nothing(session, answered[0][0], percent)


def _note_nothing(session: Session, answer: Answer, percent: float) -> None:
    """Note what finds requests where none was found."""
    if answer["callee"]:
        session.screen.note(
            f"--caller looks for {answer['callee']} in the Host of requests; where apps call it by another name, "
            f"`{answer['verb']} {answer['service']}` looks at all that these Envoys see"
        )
    if percent < 100:
        more = f"--percent {MAX_SAMPLED_PERCENT:g} looks at more, and " if percent < MAX_SAMPLED_PERCENT else ""
        session.screen.note(
            f"nothing that was looked at fits; {more}--all-requests looks at every request, each of which then costs "
            "Envoy more"
        )


def _show_log_level(session: Session, answered: Answered) -> None:
    for answer, result in answered:
        levels = ", ".join(
            f"{logger} {result['before'][logger]} → {level}" for logger, level in result["loggers"].items()
        )
        session.screen.say(f"{answer['service']} {answer['endpoint']}: {levels}; goes back in {result['seconds']} s")


def _show_clusters(session: Session, answered: Answered) -> None:
    (_, result), *_ = answered
    hosts, clusters = result.get("hosts", ()), result.get("clusters", ())
    if hosts:
        head = ("endpoint", "health", "zone", "weight", "requests", "errors", "active")
        rows: list[tuple[Cell, ...]] = [
            (
                host["address"],
                host["health"],
                host.get("zone", ""),
                str(host.get("weight", 1)),
                *(str(host.get(name, 0)) for name in ("requests", "errors", "active")),
            )
            for host in hosts
        ]
        session.screen.table(head, rows, right=head[3:])
    else:
        lines: list[tuple[Cell, ...]] = [
            (each["name"], each.get("service", ""), f"{each.get('healthy', 0)} of {each.get('hosts', 0)}")
            for each in clusters
        ]
        session.screen.table(("cluster", "eds service name", "healthy"), lines, right=("healthy",))
    if result.get("left_out"):
        session.screen.note(f"{result['left_out']} more did not fit into an answer")


def _show_config(session: Session, answered: Answered) -> None:
    (_, result), *_ = answered
    session.screen.document(Raw(msgspec.json.encode(result.get("resources", []))))
    if result.get("cut"):
        values = "1 value is" if result["cut"] == 1 else f"{result['cut']} values are"
        session.screen.note(f"{values} cut by the registrar: secret, or perhaps secret")
    if result.get("left_out"):
        session.screen.note(f"{result['left_out']} resources did not fit; name one by --name")


SHOWN = {
    "tap": _show_tap,
    "top": _show_top,
    "log_level": _show_log_level,
    "clusters": _show_clusters,
    "config": _show_config,
}
"""What shows the result of each verb."""


def _status(trace: Mapping[str, Any]) -> str:
    grpc = trace.get("grpc_status")
    return f"{trace.get('status', '')} grpc {grpc}" if grpc else str(trace.get("status", ""))


def read_levels(words: Iterable[str]) -> dict[str, str]:
    """Return the levels of loggers that ``logger=level`` words name.

    Raises:
        UsageError: one of them is no such word.
    """
    levels = {}
    for word in words:
        logger, equals, level = word.partition("=")
        if not equals or not logger or not level:
            raise UsageError(f"log-level: {word!r} is no LOGGER=LEVEL; write it like http=debug")
        levels[logger] = level
    return levels


def whole_seconds(seconds: float) -> int:
    """Return a duration in whole seconds, as errands have it."""
    return max(1, round(seconds))
