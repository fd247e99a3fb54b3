"""Verbs about Envoys, by way of the registrars beside them: top, tap, log-level, clusters and config."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import GivenReason
from registryctl.session import Session

_Target = Annotated[
    str,
    typer.Argument(metavar="SERVICE|IP:PORT", help="A service, or the one Envoy of an endpoint.", show_default=False),
]
_Envoy = Annotated[
    str, typer.Argument(metavar="IP:PORT", help="The endpoint beside which the Envoy is.", show_default=False)
]
_For = Annotated[str, typer.Option("--for", metavar="DURATION", help="How long to look, 60s at most.")]
_Status = Annotated[str, typer.Option("--status", metavar="STATUS", help="Like 5xx or 503.", show_default=False)]
_Method = Annotated[str, typer.Option("--method", metavar="METHOD", help="Like POST.", show_default=False)]
_Path = Annotated[str, typer.Option("--path", metavar="PREFIX", help="What the path begins with.", show_default=False)]
_Caller = Annotated[
    str,
    typer.Option(
        "--caller",
        metavar="SERVICE",
        help="Look at what this service sends to the other one, at the Envoys of the caller.",
        show_default=False,
    ),
]
_Percent = Annotated[float, typer.Option("--percent", metavar="PERCENT", help="Of the requests to look at, up to 10.")]
_AllRequests = Annotated[
    bool, typer.Option("--all-requests", help="Look at every request, each of which costs Envoy more.")
]
_Everyone = Annotated[
    str,
    typer.Option(
        "--all",
        metavar="NAME",
        help="Ask every Envoy, not 20 of them; NAME is that of the service once more.",
        show_default=False,
    ),
]
_Filter = Annotated[
    str, typer.Option("--config-id", metavar="ID", help="The tap filter, where Envoy has several.", show_default=False)
]


@verb()
def tap(  # noqa: PLR0913  # one argument an option
    session: Session,
    target: _Target,
    status: _Status = "",
    method: _Method = "",
    path: _Path = "",
    caller: _Caller = "",
    lasting: _For = "30s",
    most: Annotated[int, typer.Option("--max", metavar="COUNT", help="Requests of one Envoy, up to 50.")] = 50,
    percent: _Percent = 1.0,
    all_requests: _AllRequests = False,
    config_id: _Filter = "",
    everyone: _Everyone = "",
    reason: GivenReason = "",
) -> int:
    """Show single requests of a service's Envoys: method, path without query, status, and no other header or body."""
    from registryctl.errands import ask, show
    from registryctl.settings import read_duration

    arguments = _requests("tap", status, method.upper(), path, caller, read_duration(lasting, "--for"), config_id)
    arguments |= {"max_traces": most} | _looked_at(percent, all_requests=all_requests)
    return show(session, ask(session, target, arguments, reason, everyone), "tap", f"tap {target}")


@verb()
def top(  # noqa: PLR0913  # one argument an option
    session: Session,
    target: _Target,
    by: Annotated[
        str, typer.Option("--by", metavar="path|method", help="Add up by path, or by method alone.")
    ] = "path",
    status: _Status = "",
    method: _Method = "",
    path: _Path = "",
    caller: _Caller = "",
    lasting: _For = "10s",
    percent: _Percent = 1.0,
    all_requests: _AllRequests = False,
    config_id: _Filter = "",
    everyone: _Everyone = "",
    reason: GivenReason = "",
) -> int:
    """Show the busiest paths of a service's Envoys: requests, failures, milliseconds; ids in paths are folded."""
    from registryctl.errands import ask, show
    from registryctl.settings import read_duration

    arguments = _requests("top", status, method.upper(), path, caller, read_duration(lasting, "--for"), config_id)
    arguments |= {"by": by} | _looked_at(percent, all_requests=all_requests)
    return show(session, ask(session, target, arguments, reason, everyone), "top", f"top {target}")


@verb()
def log_level(
    session: Session,
    target: _Target,
    levels: Annotated[
        list[str], typer.Argument(metavar="LOGGER=LEVEL...", help="Like http=debug.", show_default=False)
    ],
    lasting: Annotated[str, typer.Option("--for", metavar="DURATION", help="Then it goes back; 30m at most.")] = "10m",
    everyone: _Everyone = "",
    reason: GivenReason = "",
) -> int:
    """Set the level of Envoy's loggers for a while; it goes back by itself, also when the registrar is killed."""
    from registryctl.errands import ask, read_levels, show, whole_seconds
    from registryctl.settings import read_duration

    seconds = whole_seconds(read_duration(lasting, "--for"))
    arguments = {"verb": "log-level", "loggers": read_levels(levels), "seconds": seconds}
    return show(session, ask(session, target, arguments, reason, everyone), "log_level", f"log-level {target}")


@verb()
def clusters(
    session: Session,
    endpoint: _Envoy,
    cluster: Annotated[
        str, typer.Argument(metavar="[CLUSTER]", help="By its name or EDS service name; a list of all when not given.")
    ] = "",
    reason: GivenReason = "",
) -> int:
    """Show the endpoints that an Envoy holds of a cluster, with its own view of their health."""
    from registryctl.errands import ask, show

    arguments = {"verb": "clusters", "cluster": cluster}
    return show(session, ask(session, endpoint, arguments, reason), "clusters", f"envoy clusters {endpoint}")


@verb()
def config(
    session: Session,
    endpoint: _Envoy,
    section: Annotated[
        str,
        typer.Option("--section", metavar="SECTION", help="bootstrap, listeners, clusters, routes or endpoints."),
    ] = "clusters",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The one resource to show.", show_default=False)
    ] = "",
    reason: GivenReason = "",
) -> int:
    """Show a section of an Envoy's configuration in JSON, without what is secret in it."""
    from registryctl.errands import ask, show

    arguments = {"verb": "config", "section": section, "name": name}
    return show(session, ask(session, endpoint, arguments, reason), "config", f"envoy config {endpoint}")


def _requests(  # one argument an option
    verb_name: str, status: str, method: str, path: str, caller: str, seconds: float, config_id: str
) -> dict[str, object]:
    import re

    from registryctl.errands import whole_seconds
    from registryctl.errors import UsageError

    if status and not re.fullmatch(r"[1-5](xx|[0-9]{2})", status):
        raise UsageError(f"{verb_name}: --status {status} is no HTTP status", "write it like 5xx or 503")
    return {
        "verb": verb_name,
        "status": status,
        "method": method,
        "path": path,
        "caller": caller,
        "seconds": whole_seconds(seconds),
        "config_id": config_id,
    }


def _looked_at(percent: float, *, all_requests: bool) -> dict[str, object]:
    return {"percent": 100.0 if all_requests else percent, "all_requests": all_requests}
