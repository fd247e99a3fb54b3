"""``registrar status``: the state of the running registrar, its endpoints, checks and heartbeats."""

import argparse
import sys
from collections.abc import Iterator, Sequence

import msgspec

from registrar.admin.client import AdminClient
from registrar.admin.status import (
    CredentialStatus,
    EdgeStatus,
    EndpointStatus,
    RegistrarStatus,
    envoy_warning,
    in_service,
)
from registrar.commands.admin_address import add_admin_options, addressed_path, admin_address_of

_TIMEOUT = 5.0
"""Seconds to wait for the response."""
_MAX_SHOWN = 10
"""Names that are listed in one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the address, the registrar that is meant, and the format."""
    add_admin_options(parser)
    parser.add_argument("--json", action="store_true", help="Print the whole status document as JSON.")


def run(arguments: argparse.Namespace, _: Sequence[str]) -> int:
    """Print the status and return 0 if every endpoint is registered and in rotation, otherwise 1.

    Raises:
        AdminRefused: the request reached another registrar.
        AdminUnavailable: no registrar responds.
        ConfigurationError: the address is invalid.
    """
    _code, body = AdminClient(admin_address_of(arguments), _TIMEOUT).request(
        "GET", addressed_path(arguments, "/status")
    )
    status = msgspec.json.decode(body, type=RegistrarStatus)
    text = msgspec.json.format(body, indent=2).decode() if arguments.json else "\n".join(_lines(status))
    sys.stdout.write(f"{text}\n")
    return 0 if status.ready else 1


def _lines(status: RegistrarStatus) -> Iterator[str]:
    registry = status.registry
    since = registry.seconds_since_acknowledged
    acknowledged = "never acknowledged" if since is None else f"acknowledged {since:.1f}s ago"
    in_rotation = sum(map(in_service, status.endpoints))
    verdict = "ready" if status.ready else "NOT READY"
    yield f"{verdict:<9} {in_rotation} of {len(status.endpoints)} endpoints in rotation"
    yield f"instance  {status.instance_id}, up {status.seconds_up:.0f}s, {status.drain}"
    yield f"registry  {registry.url}, {acknowledged}, {registry.sent} sent, {registry.failed} failed"
    if registry.away:
        yield f"          {'refuses' if registry.refused else 'unavailable'}: {registry.away}"
    yield from _credential(status)
    if status.traffic is not None:
        yield f"traffic   {status.traffic.sent} digests sent, {status.traffic.failed} failed"
        if status.traffic.problem:
            yield f"          {status.traffic.problem}"
    if status.edge is not None:
        yield from _edge(status.edge)
    if status.reloads.fault:
        yield f"reload    rejected: {status.reloads.fault}"
    for endpoint in status.endpoints:
        yield from _endpoint(endpoint)


def _credential(status: RegistrarStatus) -> Iterator[str]:
    credential = status.credential
    if credential.kind == "aws":
        yield f"login     {credential.kind}: {_session(credential)}"
    elif credential.kind != "none":
        yield f"token     {credential.kind}"
    if credential.failure:
        yield f"          {credential.failure}: {credential.reason}"
    envoy = credential.envoy
    if envoy is not None:
        since = envoy.seconds_since_written
        written = "not written" if since is None else f"written {since:.0f}s ago"
        left = "" if envoy.seconds_left is None else f", {_left(envoy.seconds_left)}"
        yield f"envoy     token in {envoy.file}, {written}{left}"
        if warning := envoy_warning(status):
            yield f"          {warning}"


def _edge(edge: EdgeStatus) -> Iterator[str]:
    since = edge.seconds_since_answered
    answered = "never answered" if since is None else f"answered {since:.1f}s ago"
    age = "" if edge.age is None else f", oldest {edge.age:.1f}s old"
    yield f"edge      {edge.listen}, {len(edge.names)} names{age}, {edge.held_polls} polls held, {answered}"
    if edge.away:
        yield f"          {'refused' if edge.refused else 'no registry answers'}: {edge.away}"
    refused = [name.name for name in edge.names if name.refused]
    if refused:
        yield f"          may not discover {', '.join(refused[:_MAX_SHOWN])}"
    if edge.full:
        yield "          no room for all that is polled for: Envoys poll the registries"
    if edge.fallback_problem:
        yield f"          fallback: {edge.fallback_problem}"
    if edge.disk_problem:
        yield f"          not written: {edge.disk_problem}"
    elif edge.directory is None:
        yield "          nothing is kept on disk: set REGISTRAR_STATE_DIRECTORY"


def _session(credential: CredentialStatus) -> str:
    if credential.seconds_left is None:
        return "no session, so requests carry no credential"
    return f"{credential.principal or 'a principal without a name'}, {_left(credential.seconds_left)}"


def _left(seconds: float) -> str:
    return f"ends in {seconds:.0f}s" if seconds > 0 else f"ended {-seconds:.0f}s ago"


def _endpoint(endpoint: EndpointStatus) -> Iterator[str]:
    published = f"published as {endpoint.published}" if endpoint.published else "not published"
    owned = "fenced: another owner has it" if endpoint.fenced else published
    yield f"endpoint  {endpoint.service} {endpoint.endpoint}: {endpoint.state}, {owned}"
    if endpoint.problem:
        yield f"          refused: {endpoint.problem}"
    for check in endpoint.checks:
        ago = "" if check.seconds_ago is None else f", {check.seconds_ago:.1f}s ago"
        yield f"  check   {check.type}: {check.outcome}{ago}: {check.detail}".rstrip(": ")
