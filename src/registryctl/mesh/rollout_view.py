"""Roll-outs that are under way: the step of each, the Envoys that it waits for, and how it goes on."""

import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import Raw, Struct
from rich.text import Text

from registryctl.client import Document, read
from registryctl.errors import NEGATIVE, CtlError, MissingError, UnreachableError
from registryctl.mesh.api import MeshApi
from registryctl.mesh.words import listed
from registryctl.outage import Outage
from registryctl.output import Cell, Screen
from registryctl.session import Session
from wire.duration import ago

POLL_INTERVAL = 1.0
"""Seconds between two looks at a roll-out that is followed."""
MAX_OUTAGE = 600.0
"""Seconds for which no registry may answer while a roll-out is followed; it goes on without whoever follows it."""
MAX_LAGGARDS = 5
"""Envoys of a roll-out that are listed before the others are counted."""

_STEPS = {1: "add clusters", 2: "switch routes", 3: "remove clusters"}
_STATES = {"waiting": "yellow", "paused": "cyan", "refused": "red", "unreadable": "red"}
_ORDERS = {
    "promote": "goes to all Envoys",
    "pause": "goes no further until `registryctl mesh resume`",
    "resume": "goes on",
}
STOPPED = frozenset({"paused", "refused", "unreadable"})
"""States of a roll-out that goes on only when somebody does something."""


def show_rollout(session: Session) -> int:
    """Print the roll-outs that are under way, and return the exit status."""
    document = MeshApi(session.client).rollout()
    overview = read(document)
    if session.json:
        session.screen.document(document)
    else:
        _show(session.screen, overview, session.client.now)
    return _status(overview)


def follow_rollout(session: Session, *, begun: bool = True) -> int:
    """Print what changes of the roll-outs until none is under way or all stand still; return the exit status.

    A registry that does not answer is asked again for ``MAX_OUTAGE``, unless it is the first request of a command that
    has not ``begun`` anything.
    """
    api = MeshApi(session.client)
    before: dict[tuple[str, float], str] = {}
    outage = Outage(session.screen, MAX_OUTAGE)
    while True:
        try:
            document = api.rollout()
            overview = _overview_of(document)
        except CtlError as error:
            if not begun:
                raise
            # A registry has this route: the 404 is that of another program.
            outage.note(error, foreign=isinstance(error, MissingError))
            time.sleep(POLL_INTERVAL)
            continue
        outage.end()
        begun = True
        rollouts = overview["rollouts"]
        lines = {(each["node_cluster"], each["share"]): _line(each) for each in rollouts}
        if session.json:
            session.screen.line(document)
        else:
            _show_changes(session.screen, before, lines)
        if all(each["state"] in STOPPED for each in rollouts):
            if not session.json:
                _show(session.screen, overview, session.client.now)
            return _status(overview)
        before = lines
        time.sleep(POLL_INTERVAL)


class _Rollout(Struct):
    """The fields of a roll-out by which it is followed: an answer without them is that of another program."""

    node_cluster: str
    share: float
    state: str
    reason: str
    step: int
    steps: list[int]


class _Overview(Struct):
    """The fields of the roll-outs that are under way, as far as they are followed."""

    revision: int
    rollouts: list[_Rollout]
    shares: dict[str, float]


def _overview_of(document: Raw) -> Document:
    """Return the roll-outs that are under way.

    Raises:
        UnreachableError: it is another document, so that no registry has written it.
    """
    overview = read(document)
    try:
        msgspec.convert(overview, _Overview)
    except msgspec.ValidationError as error:
        raise UnreachableError(f"an answer has no roll-outs: {error}", from_registry=False) from None
    return overview


def give_order(session: Session, number: int | None, action: str, reason: str) -> int:
    """Promote, pause or resume the newest revision or another one, and print whom that concerns."""
    api = MeshApi(session.client)
    revision = int(read(api.rollout())["revision"]) if number is None else number
    if not revision:
        raise MissingError(f"{action}: nothing was applied yet", "apply definitions first: registryctl mesh apply")
    document = api.order(revision, action, reason)
    if session.json:
        session.screen.document(document)
        return 0
    nodes = read(document)["nodes"]
    if nodes:
        session.screen.say(f"revision {revision} {_ORDERS[action]}: {listed(nodes)}")
    else:
        session.screen.say(f"revision {revision}: there is nothing to {action}")
    return 0


def _status(overview: Document) -> int:
    return NEGATIVE if any(each["state"] in STOPPED for each in overview["rollouts"]) else 0


def _show(screen: Screen, overview: Document, now: float) -> None:
    rollouts = overview["rollouts"]
    if rollouts:
        head = ("node.cluster", "envoys", "revision", "step", "state", "waited", "awaits")
        screen.table(head, map(_row, rollouts), right=("revision", "waited", "awaits"))
    elif overview["revision"]:
        screen.say(f"no roll-out is under way; the newest revision is {overview['revision']}")
    else:
        screen.note("nothing was applied yet")
    for each in rollouts:
        _show_awaited(screen, each, now)
    for node, share in sorted(overview["shares"].items()):
        screen.say(f"{node}: {share:g} % of its Envoys have a newer revision than the others; promote it, or roll back")
    for line in gateway_lines(overview):
        screen.say((line, "yellow"))


def gateway_lines(overview: Document, gateway: str | None = None) -> Iterator[str]:
    """Yield what people have to know of gateways that were compiled again: all of them, or one of this name."""
    for each in overview.get("gateways", ()):
        name = each["node_cluster"]
        if gateway in (None, name) and not each["envoy"]:
            yield f"{name}: compiled again since revision {overview['revision']}, for other services, and unproven"
    for each in overview.get("gateways_refused", ()):
        if gateway in (None, each["gateway"]) or not each["gateway"]:
            yield _refusal_line(each)


def _refusal_line(refusal: Document) -> str:
    name, service = refusal["gateway"] or "gateways", refusal["service"]
    if service:
        return f"{name}: {service} is served as it was, or not yet, because it is refused: {refusal['reason']}"
    return f"{name}: other services than are registered, because a compile is refused: {refusal['reason']}"


def _show_awaited(screen: Screen, rollout: Document, now: float) -> None:
    node = rollout["node_cluster"]
    for laggard in rollout["awaited"][:MAX_LAGGARDS]:
        envoy = f"{laggard['node_id'] or 'an Envoy without an id'} at {laggard['address']}"
        screen.say(f"{node}: ", (f"{envoy} {laggard['reason']}", "red" if laggard["refuses"] else ""))
    more = rollout["awaited_count"] - MAX_LAGGARDS
    if more > 0:
        screen.say(f"{node}: and {more} more")
    if rollout["state"] in STOPPED:
        # A registry before this version does not say when.
        since = rollout.get("paused_at")
        when = "" if since is None else f", {ago(now - since)} ago"
        screen.say((f"{node}: {rollout['reason']}{when}", _STATES[rollout["state"]]))
    for laggard in rollout["left_behind"][:MAX_LAGGARDS]:
        screen.say(
            (f"{node}: {laggard['node_id']} at {laggard['address']} was left behind: {laggard['reason']}", "yellow")
        )


def _row(rollout: Document) -> Sequence[Cell]:
    state = rollout["state"]
    deadline = rollout["deadline"]
    limit = "" if deadline is None else f" of {ago(deadline)}"
    return (
        rollout["node_cluster"],
        _envoys(rollout),
        str(rollout["revision"]),
        _step(rollout),
        Text(state, _STATES.get(state, "")),
        f"{ago(rollout['waited'])}{limit}",
        str(rollout["awaited_count"]),
    )


def _envoys(rollout: Document) -> str:
    return f"{rollout['share']:g} %" if rollout["share"] else "all"


def _step(rollout: Document) -> str:
    steps = rollout["steps"]
    place = f"{steps.index(rollout['step']) + 1} of {len(steps)}: " if rollout["step"] in steps else ""
    return f"{place}{_STEPS.get(rollout['step'], 'unknown')}"


def _line(rollout: Document) -> str:
    return f"{_step(rollout)}, {rollout['state']}" + (f": {rollout['reason']}" if rollout["reason"] else "")


def _show_changes(
    screen: Screen, before: Mapping[tuple[str, float], str], after: Mapping[tuple[str, float], str]
) -> None:
    for (node, share), line in after.items():
        if before.get((node, share)) != line:
            screen.say(f"{node}{f' ({share:g} %)' if share else ''}: {line}")
    for node, share in before.keys() - after.keys():
        screen.say(f"{node}{f' ({share:g} %)' if share else ''}: ", ("done", "green"))
